//! What the process was given: home, runtime folder, user, variables. Read once; everybody else gets values.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use longshore::{
    Error, Result,
    registry::Proxies,
    source::{StorageOptions, Transport, containerd, storage_conf::Values},
};

use super::user_namespace::OUTER_UIDS;

/// The environment of this process.
#[derive(Debug)]
pub(super) struct Environment {
    home: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    uid: u32,
    vars: HashMap<String, String>,
}

impl Environment {
    /// Reads it.
    pub(super) fn read() -> Self {
        let vars: HashMap<String, String> = env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let path = |key: &str| vars.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let outer_uid = OUTER_UIDS.iter().find_map(|key| vars.get(*key)?.parse().ok());
        let uid = outer_uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let runtime_dir = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        Self {
            home: env::home_dir(),
            runtime_dir: runtime_dir.or_else(|| Some(PathBuf::from(format!("/run/containers/{uid}")))),
            uid,
            vars,
        }
    }

    /// Returns where what pushes find out, and begin, is kept.
    pub(super) fn state_dir(&self) -> Option<PathBuf> {
        Some(self.xdg("XDG_STATE_HOME", ".local/state")?.join("longshore"))
    }

    /// Returns where this machine keeps its images, as far as a source of this kind needs to know.
    pub(super) fn storage(&self, transport: Option<Transport>) -> Result<StorageOptions> {
        let path = |key: &str| self.var(key).map(PathBuf::from);
        let text = |key: &str| self.var(key).map(str::to_owned);
        let values = Values {
            uid: self.uid,
            user: text("USER"),
            home: self.home.clone(),
            config_home: self.xdg("XDG_CONFIG_HOME", ".config"),
            data_home: self.xdg("XDG_DATA_HOME", ".local/share"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            conf: path("CONTAINERS_STORAGE_CONF"),
            conf_override: path("CONTAINERS_STORAGE_CONF_OVERRIDE"),
            driver: text("STORAGE_DRIVER"),
            options: text("STORAGE_OPTS"),
            system: PathBuf::new(),
        };
        match transport {
            Some(Transport::ContainersStorage) => values.podman(),
            Some(Transport::DockerStorage) => values.docker(),
            // A path says itself where it is; a broken file is none of its business.
            _ => Ok(values.podman().unwrap_or_default()),
        }
    }

    /// Returns whether this is inside the user namespace that it was run again in.
    pub(super) fn is_in_user_namespace(&self) -> bool {
        OUTER_UIDS.iter().any(|key| self.var(key).is_some())
    }

    /// Returns a variable that is set and not empty.
    pub(super) fn var(&self, key: &str) -> Option<&str> {
        self.vars.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns where encoded layers are kept unless somebody says otherwise.
    pub(super) fn cache_dir(&self) -> Option<PathBuf> {
        self.xdg("XDG_CACHE_HOME", ".cache").map(|dir| dir.join("longshore"))
    }

    /// Returns where containerd may keep its storage: the user's own first.
    pub(super) fn containerd_roots(&self) -> Vec<PathBuf> {
        let own = self.xdg("XDG_DATA_HOME", ".local/share").map(|dir| dir.join("containerd"));
        own.into_iter().chain(containerd::system_roots()).collect()
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
            uid: 1000,
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
    fn podmans_storage_is_the_users_own() {
        let environment = environment(&[("STORAGE_DRIVER", "vfs"), ("XDG_DATA_HOME", "/data")]);
        let storage = environment.storage(None).unwrap();
        assert_eq!(storage.driver.as_deref(), Some("vfs"));
        let docker = environment.storage(Some(Transport::DockerStorage)).unwrap();
        assert_eq!(docker.docker_roots[0], PathBuf::from("/data/docker"));
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
