//! What the process was given: home, runtime folder, user, variables. Read once; everybody else gets values.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use longshore::{Error, Result, registry::Proxies};

/// The environment of this process.
#[derive(Debug)]
pub(super) struct Environment {
    home: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    vars: HashMap<String, String>,
}

impl Environment {
    /// Reads it.
    pub(super) fn read() -> Self {
        let vars: HashMap<String, String> = env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let path = |key: &str| vars.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let uid = rustix::process::geteuid().as_raw();
        let runtime_dir = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        Self {
            home: env::home_dir(),
            runtime_dir: runtime_dir.or_else(|| Some(PathBuf::from(format!("/run/containers/{uid}")))),
            vars,
        }
    }

    /// Returns a variable that is set and not empty.
    pub(super) fn var(&self, key: &str) -> Option<&str> {
        self.vars.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns where encoded layers are kept unless somebody says otherwise.
    pub(super) fn cache_dir(&self) -> Option<PathBuf> {
        self.xdg("XDG_CACHE_HOME", ".cache").map(|dir| dir.join("longshore"))
    }

    /// Returns the files that may hold credentials, in the order in which podman and skopeo ask them. An
    /// explicit file (`--authfile`, `REGISTRY_AUTH_FILE`) is asked alone, and so is `DOCKER_CONFIG`'s.
    pub(super) fn auth_files(&self, authfile: Option<&Path>) -> Vec<PathBuf> {
        if let Some(file) =
            authfile.map(Path::to_owned).or_else(|| self.var("REGISTRY_AUTH_FILE").map(PathBuf::from))
        {
            return vec![file];
        }
        if let Some(dir) = self.var("DOCKER_CONFIG") {
            return vec![Path::new(dir).join("config.json")];
        }
        let home = self.home.as_deref();
        [
            self.runtime_dir.as_deref().map(|dir| dir.join("auth.json")),
            self.xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("containers/auth.json")),
            home.map(|home| home.join(".docker/config.json")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Returns the proxies that the variables of curl's making name, in either case.
    pub(super) fn proxies(&self) -> Result<Proxies> {
        let var = |key: &str| self.var(&key.to_lowercase()).or_else(|| self.var(key));
        let proxy = |key: &str| {
            let Some(text) = var(key).or_else(|| var("ALL_PROXY")) else { return Ok(None) };
            let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
            // The text may hold a password.
            url.parse()
                .map(Some)
                .map_err(|_| Error::local(format!("the variable `{key}` holds no proxy's address")))
        };
        Ok(Proxies {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exempt: var("NO_PROXY").unwrap_or_default().to_owned(),
        })
    }

    fn xdg(&self, key: &str, below_home: &str) -> Option<PathBuf> {
        // The XDG specification has relative paths ignored.
        self.var(key)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| self.home.as_ref().map(|home| home.join(below_home)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment {
            home: Some("/home/u".into()),
            runtime_dir: Some("/run/user/1000/containers".into()),
            vars: vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn podmans_files_come_before_dockers() {
        let files = environment(&[("XDG_CONFIG_HOME", "/c")]).auth_files(None);
        let expected =
            ["/run/user/1000/containers/auth.json", "/c/containers/auth.json", "/home/u/.docker/config.json"];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn an_explicit_file_is_asked_alone() {
        let environment = environment(&[("REGISTRY_AUTH_FILE", "/r.json"), ("DOCKER_CONFIG", "/d")]);
        assert_eq!(environment.auth_files(Some(Path::new("/a.json"))), [PathBuf::from("/a.json")]);
        assert_eq!(environment.auth_files(None), [PathBuf::from("/r.json")]);
    }

    #[test]
    fn relative_xdg_folders_are_ignored() {
        assert_eq!(
            environment(&[("XDG_CACHE_HOME", "x")]).cache_dir(),
            Some("/home/u/.cache/longshore".into())
        );
        assert_eq!(environment(&[("XDG_CACHE_HOME", "/x")]).cache_dir(), Some("/x/longshore".into()));
    }
}
