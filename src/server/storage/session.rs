//! Uploads that take several requests, by their random ids. No process owns them: every request finds its session where
//! the registry keeps what it has, and may reach another process than the one before.
//!
//! One request at a time may append; anybody may ask how far it is.

use http::{
    StatusCode,
    header::{LOCATION, RANGE},
};

use crate::server::protocol::{Name, Refusal, UPLOAD_ID};

/// An upload as it was last written down.
#[derive(Clone, Debug)]
pub(in crate::server) struct Session {
    id: String,
    name: Name,
    /// How many bytes count.
    pub(in crate::server) offset: u64,
}

impl Session {
    /// Names a new one.
    pub(in crate::server) fn new(name: Name) -> Self {
        Self { id: format!("{:032x}", rand::random::<u128>()), name, offset: 0 }
    }

    /// Names one that somebody asks for. What is no id might lead anywhere.
    pub(in crate::server) fn named(name: Name, id: String) -> Result<Self, Refusal> {
        let right = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if right { Ok(Self { id, name, offset: 0 }) } else { Err(unknown()) }
    }

    /// Refuses bytes that cannot be the next ones, and says which are.
    pub(in crate::server) fn out_of_order(&self, message: &str) -> Refusal {
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            .with(LOCATION, self.location())
            .with(RANGE, self.range())
            .with(UPLOAD_ID, self.id.clone())
    }

    /// Refuses a second one that appends.
    pub(in crate::server) fn taken(&self) -> Refusal {
        self.out_of_order("another request is appending")
    }

    /// Returns where it is found.
    pub(in crate::server) fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.name, self.id)
    }

    /// Says which bytes are there. The specification has no words for none.
    pub(in crate::server) fn range(&self) -> String {
        format!("0-{}", self.offset.saturating_sub(1))
    }

    /// Returns its id.
    pub(in crate::server) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the repository it is for.
    pub(in crate::server) const fn name(&self) -> &Name {
        &self.name
    }
}

/// Refuses what needs an upload that is not there, or not any more.
pub(in crate::server) fn unknown() -> Refusal {
    Refusal::not_found("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_is_looked_up_nowhere() {
        for id in ["..", ".", "", "x", &"g".repeat(32)] {
            let refusal = Session::named("a".parse().unwrap(), id.into()).unwrap_err();
            assert_eq!(refusal.reply().status(), StatusCode::NOT_FOUND);
        }
        let session = Session::new("a".parse().unwrap());
        Session::named("a".parse().unwrap(), session.id().to_owned()).unwrap();
    }
}
