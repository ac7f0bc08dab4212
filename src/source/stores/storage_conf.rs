//! Where this machine keeps its images: what `storage.conf`, Docker's `daemon.json` and the variables around them
//! say.
//!
//! The variables come as plain [`Values`]; the files are read here, in the order of containers-storage.conf(5) and
//! containers-config(5). Old and new releases of podman differ in what a user's storage takes from the system's
//! file: what nobody differs on is taken, and the system's own storage never is.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::storage_options::{StorageOptions, additional_stores};
use crate::error::{Context as _, Error, ErrorKind, Result, no_toml};

/// What the files are interpreted by.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The user; 0 has the system's storage.
    pub uid: u32,
    /// `USER`.
    pub user: Option<String>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, or what it is by default.
    pub config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`, or what it is by default.
    pub data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `CONTAINERS_STORAGE_CONF`: a file that is read alone.
    pub conf: Option<PathBuf>,
    /// `CONTAINERS_STORAGE_CONF_OVERRIDE`: a file that is read after all others.
    pub conf_override: Option<PathBuf>,
    /// `STORAGE_DRIVER`.
    pub driver: Option<String>,
    /// `STORAGE_OPTS`: options of drivers, between commas.
    pub options: Option<String>,
    /// What the system's own paths begin at: nothing, or somebody else's root.
    pub system: PathBuf,
}

impl Values {
    /// Returns where podman keeps its images.
    pub fn podman(&self) -> Result<StorageOptions> {
        let settings = self.settings()?;
        let path = |text: Option<String>| text.map(|text| PathBuf::from(self.expanded(&text)));
        let (graphroot, runroot) = if self.uid == 0 {
            (Some(self.at("var/lib/containers/storage")), Some(self.at("run/containers/storage")))
        } else {
            let below = |dir: &Option<PathBuf>, name: &str| dir.as_ref().map(|dir| dir.join(name));
            let graphroot = path(settings.rootless_storage_path);
            let graphroot = graphroot.or_else(|| below(&self.data_home, "containers/storage"));
            (graphroot, below(&self.runtime_dir, "containers"))
        };
        let additional_stores = match &self.options {
            Some(options) => additional_stores(options).map(str::to_owned).collect(),
            None => settings.additional_stores,
        };
        Ok(StorageOptions {
            graphroot: path(settings.graphroot).or(graphroot),
            runroot: path(settings.runroot).or(runroot),
            driver: self.driver.clone().or(settings.driver),
            image_store: path(settings.imagestore),
            additional_stores: additional_stores.iter().map(|text| self.expanded(text).into()).collect(),
            docker_roots: Vec::new(),
        })
    }

    /// Returns where Docker may keep its images: the user's own, the system's, the snap's.
    pub fn docker(&self) -> Result<StorageOptions> {
        let data_root = |config: PathBuf, default: PathBuf| -> Result<PathBuf> {
            #[derive(Deserialize)]
            #[serde(rename_all = "kebab-case")]
            struct Daemon {
                data_root: Option<PathBuf>,
            }
            let Some(text) = text_of(&config)? else { return Ok(default) };
            let daemon: Daemon = serde_json::from_str(&text)
                .context(ErrorKind::Local, || format!("reading `{}`", config.display()))?;
            Ok(daemon.data_root.unwrap_or(default))
        };
        let mut docker_roots = Vec::new();
        if let (true, Some(config), Some(data)) = (self.uid != 0, &self.config_home, &self.data_home) {
            docker_roots.push(data_root(config.join("docker/daemon.json"), data.join("docker"))?);
        }
        docker_roots.push(data_root(self.at("etc/docker/daemon.json"), self.at("var/lib/docker"))?);
        docker_roots.push(self.at("var/snap/docker/common/var-lib-docker"));
        Ok(StorageOptions { docker_roots, ..StorageOptions::default() })
    }

    /// Reads the files that count, later ones over earlier ones.
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(file) = &self.conf {
            if !settings.read(file)? {
                return Err(Error::local(format!(
                    "`CONTAINERS_STORAGE_CONF` names a file that does not exist: `{}`",
                    file.display()
                )));
            }
        } else {
            let user = self.config_home.as_ref().filter(|_| self.uid != 0);
            let user = user.map(|dir| dir.join("containers"));
            let [admin, vendor] = ["etc/containers", "usr/share/containers"].map(|dir| self.at(dir));
            if !settings.read(&admin.join(MAIN))? {
                settings.read(&vendor.join(MAIN))?;
            }
            if let Some(dir) = &user {
                // The system's own storage is not the user's.
                (settings.graphroot, settings.runroot, settings.imagestore) = (None, None, None);
                settings.read(&dir.join(MAIN))?;
            }
            for dir in [Some(vendor), Some(admin), user].iter().flatten() {
                for dir in self.drop_ins(dir) {
                    settings.read_all(&dir)?;
                }
            }
        }
        if let Some(file) = &self.conf_override {
            settings.read(file)?;
        }
        Ok(settings)
    }

    /// Returns the folders of small files beside a main one.
    fn drop_ins(&self, dir: &Path) -> Vec<PathBuf> {
        let everybody = dir.join("storage.conf.d");
        if self.uid == 0 {
            return vec![everybody, dir.join("storage.rootful.conf.d")];
        }
        let rootless = dir.join("storage.rootless.conf.d");
        vec![everybody, rootless.clone(), rootless.join(self.uid.to_string())]
    }

    fn at(&self, path: &str) -> PathBuf {
        Path::new("/").join(&self.system).join(path)
    }

    /// Puts in what podman puts in for variables.
    fn expanded(&self, text: &str) -> String {
        let home = self.home.as_deref().map(|home| home.display().to_string());
        let values = [("HOME", home), ("UID", Some(self.uid.to_string())), ("USER", self.user.clone())];
        let mut text = text.to_owned();
        for (name, value) in values {
            let value = value.unwrap_or_default();
            text = text.replace(&format!("${{{name}}}"), &value).replace(&format!("${name}"), &value);
        }
        text
    }
}

/// The main file's name.
const MAIN: &str = "storage.conf";

/// What one file says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    storage: Storage,
}

/// `[storage]`; what is empty is not said.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Storage {
    driver: String,
    graphroot: String,
    runroot: String,
    imagestore: String,
    rootless_storage_path: String,
    options: Options,
}

/// `[storage.options]`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    additionalimagestores: Option<Vec<Item>>,
}

/// A path, or `{append=true}`: the list continues the one of earlier files.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a store is a path, or `{append=true}`")]
enum Item {
    Path(String),
    Attributes { append: bool },
}

/// What the files have said so far.
#[derive(Default)]
struct Settings {
    driver: Option<String>,
    graphroot: Option<String>,
    runroot: Option<String>,
    imagestore: Option<String>,
    rootless_storage_path: Option<String>,
    additional_stores: Vec<String>,
}

impl Settings {
    /// Reads a file over what is known; returns whether there is one.
    fn read(&mut self, path: &Path) -> Result<bool> {
        let Some(text) = text_of(path)? else { return Ok(false) };
        let File { storage } = toml::from_str(&text)
            .map_err(|error| no_toml(&text, &error).while_doing(format!("reading `{}`", path.display())))?;
        for (setting, said) in [
            (&mut self.driver, storage.driver),
            (&mut self.graphroot, storage.graphroot),
            (&mut self.runroot, storage.runroot),
            (&mut self.imagestore, storage.imagestore),
            (&mut self.rootless_storage_path, storage.rootless_storage_path),
        ] {
            if !said.is_empty() {
                *setting = Some(said);
            }
        }
        if let Some(items) = storage.options.additionalimagestores {
            let stores = &mut self.additional_stores;
            if !items.iter().any(|item| matches!(item, Item::Attributes { append: true })) {
                stores.clear();
            }
            stores.extend(items.into_iter().filter_map(|item| match item {
                Item::Path(path) => Some(path),
                Item::Attributes { .. } => None,
            }));
        }
        Ok(true)
    }

    /// Reads the files of a folder, in the order of their names.
    fn read_all(&mut self, dir: &Path) -> Result<()> {
        let Ok(entries) = fs_err::read_dir(dir) else { return Ok(()) };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
        files.sort();
        files.iter().try_for_each(|file| self.read(file).map(drop))
    }
}

fn text_of(path: &Path) -> Result<Option<String>> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::local("reading the configuration").because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    /// A machine with these files and a user of its own.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Values) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let home = dir.path().join("home/u");
        let values = Values {
            uid: 1000,
            user: Some("u".into()),
            config_home: Some(home.join(".config")),
            data_home: Some(home.join(".local/share")),
            runtime_dir: Some(dir.path().join("run/user/1000")),
            home: Some(home),
            system: dir.path().to_owned(),
            ..Values::default()
        };
        (dir, values)
    }

    fn storage(text: &str) -> String {
        format!("[storage]\n{text}")
    }

    #[test]
    fn without_files_it_is_where_podman_has_it() {
        let (dir, values) = machine(&[]);
        let options = values.podman().unwrap();
        assert_eq!(options.graphroot, Some(dir.path().join("home/u/.local/share/containers/storage")));
        assert_eq!(options.runroot, Some(dir.path().join("run/user/1000/containers")));
        let root = Values { uid: 0, ..values }.podman().unwrap();
        assert_eq!(root.graphroot, Some(dir.path().join("var/lib/containers/storage")));
        assert!(root.additional_stores.is_empty() && root.driver.is_none() && root.image_store.is_none());
    }

    #[test]
    fn the_systems_storage_is_not_the_users() {
        let text = storage(
            "driver='vfs'\ngraphroot='/srv/s'\nimagestore='/i'\n[storage.options]\nadditionalimagestores=['/a']",
        );
        let (_dir, values) =
            machine(&[("etc/containers/storage.conf", &text), ("usr/share/containers/storage.conf", "bad")]);
        let user = values.podman().unwrap();
        assert!(user.graphroot.unwrap().ends_with("home/u/.local/share/containers/storage"));
        assert_eq!((user.driver.as_deref(), user.image_store), (Some("vfs"), None));
        assert_eq!(user.additional_stores, [PathBuf::from("/a")]);
        let root = Values { uid: 0, ..values }.podman().unwrap();
        assert_eq!((root.graphroot, root.image_store), (Some("/srv/s".into()), Some("/i".into())));
    }

    #[test]
    fn a_users_file_and_variables_win() {
        let system = storage("rootless_storage_path='/u/$UID/${USER}'");
        let (dir, values) = machine(&[("etc/containers/storage.conf", &system)]);
        assert_eq!(values.podman().unwrap().graphroot, Some("/u/1000/u".into()));
        let own = dir.path().join("home/u/.config/containers/storage.conf");
        fs_err::create_dir_all(own.parent().unwrap()).unwrap();
        fs_err::write(&own, storage("graphroot='$HOME/s'\ndriver='overlay'")).unwrap();
        assert_eq!(values.podman().unwrap().graphroot, Some(dir.path().join("home/u/s")));
        let alone = dir.path().join("alone.conf");
        fs_err::write(&alone, storage("graphroot='/alone'")).unwrap();
        let values = Values {
            conf: Some(alone),
            driver: Some("vfs".into()),
            options: Some("overlay.imagestore=/x,overlay.mount_program=/y,additionalimagestore=/z".into()),
            ..values
        };
        let options = values.podman().unwrap();
        assert_eq!((options.graphroot, options.driver), (Some("/alone".into()), Some("vfs".into())));
        assert_eq!(options.additional_stores, [PathBuf::from("/x"), PathBuf::from("/z")]);
        let gone = Values { conf: Some("/none".into()), ..values };
        assert_eq!(gone.podman().unwrap_err().kind(), ErrorKind::Local);
    }

    #[test]
    fn small_files_add_to_the_main_one() {
        let stores = |text: &str| format!("[storage.options]\nadditionalimagestores=[{text}]");
        let (_dir, values) = machine(&[
            ("usr/share/containers/storage.conf", &stores("'/a'")),
            ("etc/containers/storage.conf.d/20.conf", &stores("'/c', {append=true}")),
            ("etc/containers/storage.conf.d/10.conf", &stores("'/b', {append=true}")),
            ("etc/containers/storage.conf.d/30.off", &stores("'/d'")),
            ("etc/containers/storage.rootful.conf.d/1.conf", &storage("graphroot='/r'")),
            ("etc/containers/storage.rootless.conf.d/1000/1.conf", &storage("graphroot='/l'")),
        ]);
        let user = values.podman().unwrap();
        assert_eq!(user.additional_stores, ["/a", "/b", "/c"].map(PathBuf::from));
        assert_eq!(user.graphroot, Some("/l".into()));
        assert_eq!(Values { uid: 0, ..values }.podman().unwrap().graphroot, Some("/r".into()));
    }

    #[test]
    fn a_broken_file_is_named() {
        let (_dir, values) =
            machine(&[("etc/containers/storage.conf", "x"), ("etc/docker/daemon.json", "x")]);
        for error in [values.podman().unwrap_err(), values.docker().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Local);
            assert!(chain(&error).contains("etc/"), "{error:?}");
        }
    }

    #[test]
    fn a_store_that_is_no_path_is_told_in_our_words() {
        let text = storage("[storage.options]\nadditionalimagestores=[1]");
        let (_dir, values) = machine(&[("etc/containers/storage.conf", &text)]);
        let said = chain(&values.podman().unwrap_err());
        assert!(said.ends_with("line 3: a store is a path, or `{append=true}`"), "{said}");
    }

    #[test]
    fn docker_has_several_places() {
        let (dir, values) = machine(&[("etc/docker/daemon.json", r#"{"data-root":"/srv/docker"}"#)]);
        let own = dir.path().join("home/u/.local/share/docker");
        let snap = dir.path().join("var/snap/docker/common/var-lib-docker");
        assert_eq!(values.docker().unwrap().docker_roots, [own, "/srv/docker".into(), snap.clone()]);
        let root = Values { uid: 0, ..values };
        assert_eq!(root.docker().unwrap().docker_roots, [PathBuf::from("/srv/docker"), snap]);
    }
}
