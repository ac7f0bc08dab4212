//! What the process was given: home, runtime folder, user, variables. Read once; everybody else gets values.

pub(super) mod open_files;
pub(super) mod user_namespace;

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use longshore::{
    Error, Result,
    registry::{Proxies, RegistriesConf, Secret, registries_conf},
    source::{
        StorageOptions, Transport,
        stores::{containerd, storage_conf::Values},
    },
};
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use self::user_namespace::OUTER_UIDS;

/// The environment of this process.
#[derive(Debug)]
pub(super) struct Environment {
    home: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    uid: u32,
    vars: HashMap<String, String>,
    /// The names of those that are not UTF-8.
    unreadable: Vec<String>,
}

impl Environment {
    /// Reads it.
    pub(super) fn read() -> Self {
        let mut vars = HashMap::new();
        let mut unreadable = Vec::new();
        for (key, value) in env::vars_os() {
            match (key.into_string(), value.into_string()) {
                (Ok(key), Ok(value)) => drop(vars.insert(key, value)),
                (Ok(key), Err(_)) => unreadable.push(key),
                (Err(_), _) => {}
            }
        }
        let path = |key: &str| vars.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let outer_uid = OUTER_UIDS.iter().find_map(|key| vars.get(*key)?.parse().ok());
        let uid = outer_uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let runtime_dir = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        Self {
            home: env::home_dir().filter(|home| is_open(home)),
            runtime_dir: runtime_dir
                .or_else(|| Some(PathBuf::from(format!("/run/containers/{uid}"))))
                .filter(|dir| is_open(dir)),
            uid,
            vars,
            unreadable,
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

    /// Returns whether a variable is set to what is not UTF-8.
    pub(super) fn is_unreadable(&self, key: &str) -> bool {
        self.unreadable.iter().any(|unreadable| unreadable == key)
    }

    /// Returns where other defaults for options may be, and whether somebody said that they are there.
    pub(super) fn config_file(&self) -> Option<(PathBuf, bool)> {
        let usual = || Some((self.xdg("XDG_CONFIG_HOME", ".config")?.join("longshore/config.toml"), false));
        self.var("LONGSHORE_CONFIG").map(|file| (PathBuf::from(file), true)).or_else(usual)
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

    /// Returns the one file of credentials that somebody chose: `--authfile`, `REGISTRY_AUTH_FILE`.
    pub(super) fn auth_file(&self, authfile: Option<&Path>) -> Option<PathBuf> {
        authfile.map(Path::to_owned).or_else(|| self.var("REGISTRY_AUTH_FILE").map(PathBuf::from))
    }

    /// Returns the files that may hold credentials, in the order in which podman and skopeo ask them. One that was
    /// chosen is asked alone, and so is `DOCKER_CONFIG`'s.
    pub(super) fn auth_files(&self, authfile: Option<&Path>) -> Vec<PathBuf> {
        if let Some(file) = self.auth_file(authfile) {
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
            home.map(|home| home.join(".dockercfg")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Returns the file that logins are kept in: the first that is asked. Without a runtime folder of its own, only
    /// root can make that one.
    pub(super) fn login_file(&self, authfile: Option<&Path>) -> Result<PathBuf> {
        let mut files = self.auth_files(authfile).into_iter();
        let lacks_runtime = self.uid != 0 && self.var("XDG_RUNTIME_DIR").is_none();
        let runtime = self.runtime_dir.as_deref().filter(|_| lacks_runtime);
        files.find(|file| runtime.is_none_or(|dir| !file.starts_with(dir))).ok_or_else(|| {
            Error::local("there is no home to keep logins in").with_hint("`--authfile FILE` names a place")
        })
    }

    /// Returns what this machine says about registries.
    pub(super) fn registries_conf(&self) -> Result<RegistriesConf> {
        self.registries().read()
    }

    /// Returns the folders that hold a folder of certificates for each registry.
    pub(super) fn certificates(&self) -> Vec<PathBuf> {
        self.registries().certificates()
    }

    fn registries(&self) -> registries_conf::Values {
        registries_conf::Values {
            home: self.home.clone(),
            conf: self.var("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from),
            system: PathBuf::new(),
        }
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

    /// Returns what the clouds' own tools would be told, in the same order every time.
    pub(super) fn cloud_variables(&self) -> Vec<(String, Secret)> {
        let cloud = |key: &str| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| key.starts_with(prefix));
        let mut variables: Vec<_> =
            self.vars.iter().filter(|(key, value)| cloud(key) && !value.is_empty()).collect();
        variables.sort();
        variables.into_iter().map(|(key, value)| (key.clone(), Secret::new(value))).collect()
    }

    fn xdg(&self, key: &str, below_home: &str) -> Option<PathBuf> {
        // The XDG specification has relative paths ignored.
        self.var(key)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| self.home.as_ref().map(|home| home.join(below_home)))
    }
}

/// Returns whether this user may look into a folder, if it is there. Where not, it holds nothing for them: `HOME` is root's
/// in many a container whose user has no name, and `/run/containers` is closed once root has logged in.
fn is_open(dir: &Path) -> bool {
    access(dir, Access::EXEC_OK) != Err(Errno::ACCESS)
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
            unreadable: Vec::new(),
        }
    }

    #[test]
    fn podmans_files_come_before_dockers() {
        let files = environment(&[("XDG_CONFIG_HOME", "/c")]).auth_files(None);
        let expected = [
            "/run/user/1000/containers/auth.json",
            "/c/containers/auth.json",
            "/home/u/.docker/config.json",
            "/home/u/.dockercfg",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn an_explicit_file_is_asked_alone() {
        let environment = environment(&[("REGISTRY_AUTH_FILE", "/r.json"), ("DOCKER_CONFIG", "/d")]);
        assert_eq!(environment.auth_files(Some(Path::new("/a.json"))), [PathBuf::from("/a.json")]);
        assert_eq!(environment.auth_files(None), [PathBuf::from("/r.json")]);
    }

    #[test]
    fn logins_are_kept_where_they_are_looked_for_first() {
        let kept = |environment: Environment| environment.login_file(None).unwrap();
        let runtime = environment(&[("XDG_RUNTIME_DIR", "/run/user/1000")]);
        assert_eq!(kept(runtime), PathBuf::from("/run/user/1000/containers/auth.json"));
        assert_eq!(kept(environment(&[])), PathBuf::from("/home/u/.config/containers/auth.json"));
        let root = Environment { uid: 0, ..environment(&[]) };
        assert_eq!(kept(root), PathBuf::from("/run/user/1000/containers/auth.json"));
        assert_eq!(kept(environment(&[("DOCKER_CONFIG", "/d")])), PathBuf::from("/d/config.json"));
        let homeless = Environment { home: None, ..environment(&[]) };
        assert_eq!(homeless.login_file(None).unwrap_err().kind(), longshore::ErrorKind::Local);
        assert_eq!(homeless.login_file(Some(Path::new("a"))).unwrap(), PathBuf::from("a"));
    }

    #[test]
    fn proxies_are_named_in_either_case_and_for_all_by_one() {
        let hosts = |vars: &[(&str, &str)]| {
            let proxies = environment(vars).proxies().unwrap();
            let host = |url: Option<url::Url>| url.and_then(|url| url.host_str().map(str::to_owned));
            (host(proxies.http), host(proxies.https), proxies.exempt)
        };
        let named = |http: Option<&str>, https: Option<&str>, exempt: &str| {
            (http.map(str::to_owned), https.map(str::to_owned), exempt.to_owned())
        };
        for (vars, expected) in [
            (vec![], named(None, None, "")),
            (vec![("HTTPS_PROXY", "http://a:1"), ("no_proxy", "x,y")], named(None, Some("a"), "x,y")),
            (vec![("https_proxy", "b:1"), ("HTTPS_PROXY", "a:1")], named(None, Some("b"), "")),
            (vec![("ALL_PROXY", "socks5h://c"), ("http_proxy", "d")], named(Some("d"), Some("c"), "")),
            (vec![("HTTP_PROXY", "")], named(None, None, "")),
        ] {
            assert_eq!(hosts(&vars), expected, "{vars:?}");
        }
        let error = environment(&[("HTTP_PROXY", "http://me:xyzzy@:x")]).proxies().unwrap_err();
        assert!(error.message().contains("`HTTP_PROXY`") && !error.message().contains("xyzzy"), "{error}");
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
    fn the_clouds_variables_are_handed_down_and_no_others() {
        let vars = [("AWS_REGION", "x"), ("AWS_PROFILE", ""), ("AZURE_CLIENT_ID", "y"), ("TOKEN", "z")];
        let variables = environment(&vars).cloud_variables();
        let names: Vec<_> = variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["AWS_REGION", "AZURE_CLIENT_ID"]);
        assert!(!format!("{variables:?}").contains("\"x\""));
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
