//! podman with a storage of its own, on the driver `vfs`: it works wherever root does, and a layer there is a
//! whole file tree.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::tool;

/// podman, and where it keeps everything.
pub(crate) struct Podman {
    home: PathBuf,
}

impl Podman {
    /// One whose storage is in this folder.
    pub(crate) fn at(home: PathBuf) -> Self {
        let podman = Self { home };
        let home = podman.home.display();
        let configuration =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{home}/store\"\nrunroot = \"{home}/run\"\n");
        fs_err::write(podman.configuration(), configuration).unwrap();
        // Else all of them on this machine share their locks, in memory that the first has to make.
        fs_err::write(podman.engine(), "[engine]\nlock_type = \"file\"\n").unwrap();
        podman
    }

    /// Pulls `host/repository:tag` from a registry that speaks plain HTTP; returns the image's ID.
    pub(crate) fn pull(&self, reference: &str) -> Result<String, String> {
        self.run(&["pull", "--quiet", "--tls-verify=false", reference])
    }

    /// Pushes an image to `host/repository:tag` at a registry that speaks plain HTTP.
    pub(crate) fn push(&self, image: &str, reference: &str) -> Result<(), String> {
        self.run(&["push", "--quiet", "--tls-verify=false", image, reference]).map(drop)
    }

    /// Loads an archive; returns what podman says of it.
    pub(crate) fn load(&self, archive: &Path) -> Result<String, String> {
        self.run(&["load", "--quiet", "--input", &archive.display().to_string()])
    }

    /// Gives an image another name.
    pub(crate) fn tag(&self, image: &str, name: &str) -> Result<(), String> {
        self.run(&["tag", image, name]).map(drop)
    }

    /// Makes a list of images, each of which says what it is for.
    pub(crate) fn list(&self, name: &str, images: &[&str]) -> Result<(), String> {
        self.run(&["manifest", "create", name])?;
        for image in images {
            self.run(&["manifest", "add", name, &format!("containers-storage:{image}")])?;
        }
        Ok(())
    }

    /// Says something of one entry of a list.
    pub(crate) fn annotate(&self, list: &str, manifest: &str, annotation: &str) -> Result<(), String> {
        self.run(&["manifest", "annotate", "--annotation", annotation, list, manifest]).map(drop)
    }

    /// Returns a list as podman has it.
    pub(crate) fn listed(&self, name: &str) -> Result<String, String> {
        self.run(&["manifest", "inspect", name])
    }

    /// Removes an image with all its names.
    pub(crate) fn remove(&self, image: &str) -> Result<(), String> {
        self.run(&["image", "rm", "--force", &self.id(image)?]).map(drop)
    }

    /// Returns an image's ID.
    pub(crate) fn id(&self, image: &str) -> Result<String, String> {
        self.run(&["image", "inspect", "--format", "{{.Id}}", image])
    }

    /// Saves images, all in one archive.
    pub(crate) fn save(&self, images: &[&str], archive: &Path) -> Result<(), String> {
        let archive = archive.display().to_string();
        self.run(&[&["save", "--quiet", "--multi-image-archive", "--output", &archive], images].concat())
            .map(drop)
    }

    /// Returns where the file tree of an image is.
    pub(crate) fn mount(&self, reference: &str) -> Result<PathBuf, String> {
        self.run(&["image", "mount", reference]).map(PathBuf::from)
    }

    /// Returns the folder that the images are kept in.
    pub(crate) fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    fn configuration(&self) -> PathBuf {
        self.home.join("storage.conf")
    }

    fn engine(&self) -> PathBuf {
        self.home.join("containers.conf")
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut podman = Command::new("podman");
        podman.arg("--tmpdir").arg(self.home.join("tmp")).args(arguments).env_clear();
        podman.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        podman.env("HOME", &self.home).env("CONTAINERS_STORAGE_CONF", self.configuration());
        podman.env("CONTAINERS_CONF", self.engine());
        let output = tool::output(&mut podman)?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }
}
