//! A login that is made up for the run of a registry: nobody knows it who is not told.

use std::{fmt, io::Write as _, path::Path};

use longshore::{
    Result,
    error::{Context as _, ErrorKind},
    layout::write::persist,
    registry::{Credential, Secret},
    server::Access,
};
use rand::RngExt as _;
use tempfile::NamedTempFile;

/// A name and a password of 190 bits.
pub(super) struct RandomLogin {
    password: String,
}

impl RandomLogin {
    /// Whoever logs in calls itself so.
    pub(super) const USER: &'static str = "longshore";

    /// Makes one up, by a generator that the operating system's randomness seeds.
    pub(super) fn new() -> Self {
        let letters = rand::rng().sample_iter(rand::distr::Alphanumeric);
        Self { password: letters.take(32).map(char::from).collect() }
    }

    /// Lets in whoever shows it.
    pub(super) fn access(&self) -> Access {
        Access::basic(Self::USER, &self.password)
    }

    /// Returns it as a registry is shown it.
    pub(super) fn credential(&self) -> Credential {
        Credential::Login { user: Self::USER.to_owned(), password: Secret::new(&self.password) }
    }

    /// Returns the password, to be told to whom it is for.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// Writes the password into a file that nobody else can read.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let writing = || format!("writing the password to `{}`", file.display());
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Temp files are their owner's alone.
        let mut temp = NamedTempFile::new_in(dir).context(ErrorKind::Local, writing)?;
        writeln!(temp, "{}", self.password).context(ErrorKind::Local, writing)?;
        persist(temp, &dir.join(file.file_name().unwrap_or_default()))
    }
}

impl fmt::Debug for RandomLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomLogin")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_password_is_its_owners_alone_and_never_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs_err::write(&file, "of an earlier run").unwrap();
        let (one, other) = (RandomLogin::new(), RandomLogin::new());
        assert_ne!(one.password(), other.password());
        one.write(&file).unwrap();
        assert_eq!(fs_err::read_to_string(&file).unwrap(), format!("{}\n", one.password()));
        assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{one:?}").contains(one.password()));
        assert!(one.write(&dir.path().join("nowhere/password")).is_err());
    }
}
