//! Certificates from files: whom to trust besides those whom the machine trusts, and who we are.
//!
//! A bundle by itself, or a folder as docker and podman have it for each registry (`certs.d/HOST[:PORT]`): every
//! `*.crt` in it is an authority, every `NAME.cert` a certificate of ours, whose key is `NAME.key`. The caller says
//! which folders; secrets of a key are not seen.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// Whom to trust besides those whom the machine trusts, and who we are.
#[derive(Clone, Default)]
pub struct Certificates {
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<Identity>,
}

/// A certificate of ours, and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    /// The file it is from.
    pub(crate) file: PathBuf,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

impl Certificates {
    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.identity.is_none()
    }

    /// Trusts the authorities in a PEM file.
    pub fn trust_file(&mut self, path: &Path) -> Result<()> {
        let mut found = certificates(path)?;
        // One that cannot be read is better said now, where the file is known.
        for certificate in &found {
            RootCertStore::empty().add(certificate.clone()).context(ErrorKind::Local, || {
                format!("`{}` holds a certificate that cannot be used", path.display())
            })?;
        }
        self.authorities.append(&mut found);
        Ok(())
    }

    /// Reads a folder of one registry.
    pub fn read_dir(&mut self, dir: &Path) -> Result<()> {
        let entries = fs_err::read_dir(dir).context(ErrorKind::Local, || "reading certificates".into())?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let mut identities = Vec::new();
        for file in &files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.trust_file(file)?,
                Some("cert") => identities.push(Identity::read(file)?),
                Some("key") if !file.with_extension("cert").exists() => {
                    let words = format!("`{}` is a key without its certificate", file.display());
                    return Err(Error::local(words)
                        .with_hint("a certificate of ours is `NAME.cert`, an authority `NAME.crt`"));
                }
                _ => {}
            }
        }
        let mut identities = identities.into_iter();
        if let Some(first) = identities.next() {
            for Identity { file, .. } in identities {
                tracing::warn!("`{}` is not used: `{}` is", file.display(), first.file.display());
            }
            self.identity = Some(first);
        }
        Ok(())
    }

    /// Reads the folder `HOST[:PORT]` of the first of these places that has one.
    pub fn read_host(&mut self, places: &[PathBuf], host: &str) -> Result<()> {
        // What a user may not look into is not meant for this user.
        let found = places.iter().map(|place| place.join(host)).find(|dir| dir.is_dir());
        found.map_or(Ok(()), |dir| self.read_dir(&dir))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authorities", &self.authorities.len())
            .field("identity", &self.identity.as_ref().map(|identity| &identity.file))
            .finish()
    }
}

impl Identity {
    fn read(file: &Path) -> Result<Self> {
        let key_file = file.with_extension("key");
        let pem = match fs_err::read(&key_file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let words = format!("`{}` has no key: `{}` is missing", file.display(), key_file.display());
                return Err(
                    Error::local(words).with_hint("an authority that is to be trusted is called `NAME.crt`")
                );
            }
            read => read.context(ErrorKind::Local, || "reading the key of a certificate".into())?,
        };
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| Error::local(format!("`{}` holds no key that can be used", key_file.display())))?;
        Ok(Self { file: file.to_owned(), chain: certificates(file)?, key: Arc::new(key) })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = fs_err::read(path).context(ErrorKind::Local, || "reading certificates".into())?;
    let found: Option<Vec<_>> = CertificateDer::pem_slice_iter(&pem).map(std::result::Result::ok).collect();
    found
        .filter(|found| !found.is_empty())
        .ok_or_else(|| Error::local(format!("`{}` holds no PEM certificate", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs_err::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(["r.example.com".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[test]
    fn a_folder_holds_authorities_and_one_identity() {
        let (certificate, key) = pair();
        let two = format!("{certificate}\n{certificate}");
        let dir = folder(&[
            ("ca.crt", &two),
            ("b.cert", &certificate),
            ("b.key", &key),
            ("a.cert", &certificate),
            ("a.key", &key),
            ("notes.txt", "no PEM"),
        ]);
        let mut certificates = Certificates::default();
        assert!(certificates.is_empty());
        certificates.read_dir(dir.path()).unwrap();
        assert_eq!(certificates.authorities.len(), 2);
        assert_eq!(certificates.identity.as_ref().unwrap().file, dir.path().join("a.cert"));
        assert!(!certificates.is_empty());
        let shown = format!("{certificates:?}");
        assert!(shown.contains("a.cert") && !shown.contains("key"), "{shown}");
    }

    #[test]
    fn halves_of_a_pair_and_broken_files_are_named() {
        let (certificate, key) = pair();
        for (files, named) in [
            (vec![("a.cert", certificate.as_str())], "a.key"),
            (vec![("a.key", key.as_str())], "a.key"),
            (vec![("a.cert", certificate.as_str()), ("a.key", "no PEM")], "a.key"),
            (vec![("a.cert", key.as_str()), ("a.key", key.as_str())], "a.cert"),
            (vec![("ca.crt", "")], "ca.crt"),
            (vec![("ca.crt", "no PEM")], "ca.crt"),
            (vec![("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")], "ca.crt"),
        ] {
            let dir = folder(&files);
            let error = Certificates::default().read_dir(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Local);
            assert!(error.message().contains(named), "{error}");
            assert!(!chain(&error).contains(key.lines().nth(1).unwrap()), "{error:?}");
        }
        let missing = Certificates::default().trust_file(Path::new("/none.pem")).unwrap_err();
        assert!(chain(&missing).contains("/none.pem"), "{missing:?}");
    }

    #[test]
    fn the_first_folder_of_a_host_is_the_one() {
        let (certificate, _) = pair();
        let [first, second] = [folder(&[]), folder(&[])];
        let places = [first.path().to_owned(), second.path().to_owned()];
        for (place, host) in
            [(&second, "r.example.com"), (&second, "r.example.com:5000"), (&first, "r.example.com:5000")]
        {
            let dir = place.path().join(host);
            fs_err::create_dir_all(&dir).unwrap();
            if place.path() == second.path() {
                fs_err::write(dir.join("ca.crt"), &certificate).unwrap();
            }
        }
        for (host, authorities) in [("r.example.com", 1), ("r.example.com:5000", 0), ("r.example.com:1", 0)] {
            let mut certificates = Certificates::default();
            certificates.read_host(&places, host).unwrap();
            assert_eq!(certificates.authorities.len(), authorities, "{host}");
        }
    }
}
