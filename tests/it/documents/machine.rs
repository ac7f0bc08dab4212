//! The machine that a page is about: the files it names, a registry that asks for a login, and a home of its own.
//!
//! What the pages name and is not here has something that stands for it; the rest of a command is run verbatim. What
//! serves goes on until the page ends.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tempfile::TempDir;

use super::page::INSTALL;
#[cfg(feature = "buckets")]
use crate::support::s3::{S3, SECRET_KEY};
use crate::{
    support::{capability::is_unavailable, podman::Podman, program, samples, serve::Serve, tool},
    wire::image::{Archive, Layout, layer},
};

/// A machine.
pub(super) struct Machine {
    home: TempDir,
    registry: Serve,
    /// What the page itself has started.
    served: Option<Serve>,
    #[cfg(feature = "buckets")]
    bucket: S3,
}

/// What commands need that this machine, or this build, may lack.
const NEEDS: [(&str, &str); 6] = [
    ("podman ", "podman"),
    ("containers-storage:", "podman"),
    ("skopeo ", "skopeo"),
    ("docker-storage:", "root"),
    ("s3://", BUCKETS),
    (" --cache ", BUCKETS),
];
const BUCKETS: &str = "buckets";

/// Who may log in to the registry.
const USER: &str = "me";
const PASSWORD: &str = "secret";

/// The variables that a runner gives to the steps of a pipeline; `REGISTRY` stands for the registry.
const PIPELINE: [(&str, &str); 10] = [
    ("TOKEN", PASSWORD),
    ("GITHUB_ACTOR", USER),
    ("GITHUB_REPOSITORY", "owner/app"),
    ("GITHUB_SHA", "8843d7f92416211de9ebb963ff4ce28125932878"),
    ("CI_COMMIT_REF_SLUG", "main"),
    ("CI_COMMIT_SHORT_SHA", "8843d7f9"),
    ("CI_REGISTRY", "REGISTRY"),
    ("CI_REGISTRY_IMAGE", "REGISTRY/group/app"),
    ("CI_REGISTRY_PASSWORD", PASSWORD),
    ("CI_REGISTRY_USER", USER),
];

impl Machine {
    /// Prepares what a page needs.
    pub(super) fn for_page(page: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let users = home.path().join("users");
        fs_err::write(&users, format!("{USER}:{}\n", bcrypt::hash(PASSWORD, 4).unwrap())).unwrap();
        let site = home.path().join("site");
        let registry = Serve::start_with(&site, &[&format!("--htpasswd={}", users.display())]);
        #[cfg(feature = "buckets")]
        let machine = Self { home, registry, served: None, bucket: S3::start() };
        #[cfg(not(feature = "buckets"))]
        let machine = Self { home, registry, served: None };
        machine.put_images();
        machine.configure();
        if page.contains("containers-storage:") && !is_unavailable("podman") {
            let podman = Podman::at(machine.home().to_owned());
            podman.load(&machine.home().join("app.tar")).unwrap();
            podman.tag("localhost/sample:1", "localhost/app:1").unwrap();
        }
        if page.contains("docker-storage:") && !is_unavailable("root") {
            let root = machine.home().join("docker");
            fs_err::create_dir(&root).unwrap();
            samples::unpacked("stores/docker28-overlay2-root.tar.gz", &root).unwrap();
            let names = root.join("image/overlay2/repositories.json");
            let named = fs_err::read_to_string(&names).unwrap().replace("localhost/sample", "app");
            fs_err::write(names, named).unwrap();
        }
        machine
    }

    /// Runs a command; returns what it prints, or else what it complains of. What this machine cannot do is not run.
    pub(super) fn run(&mut self, command: &str) -> Option<Result<String, String>> {
        let is_missing =
            |need| if need == BUCKETS { !cfg!(feature = "buckets") } else { is_unavailable(need) };
        if NEEDS.iter().any(|&(word, need)| command.contains(word) && is_missing(need)) {
            return None;
        }
        if command.starts_with("longshore serve ") {
            let served = Serve::run(&mut self.bash(&format!("exec {command}")));
            return Some(served.map(|served| {
                self.served = Some(served);
                String::new()
            }));
        }
        if command.starts_with(INSTALL) {
            return Some(self.install(command));
        }
        let output = tool::output(&mut self.bash(command));
        Some(output.map(|stdout| String::from_utf8(stdout).unwrap()))
    }

    /// Has cargo install what this is a test of. It finds dependencies where cargo has built the tests, leaves those there
    /// that have other features than in tests, and writes elsewhere: the binary under test is not to change meanwhile.
    fn install(&self, command: &str) -> Result<String, String> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Path::new(env!("CARGO_BIN_EXE_longshore")).ancestors().nth(2).unwrap();
        // The first time is a matter of minutes, which the other tests do not wait for.
        let mut cargo = Command::new("nice");
        cargo.args(["-n19", "bash", "-c", &format!("{command} --debug --offline")]).current_dir(project);
        cargo.env("CARGO_INSTALL_ROOT", self.installed()).env("CARGO_TARGET_DIR", self.home().join("target"));
        // Nobody debugs it, and it is linked sooner.
        cargo.env("CARGO_BUILD_BUILD_DIR", built).env("CARGO_PROFILE_DEV_DEBUG", "0");
        tool::output(&mut cargo)?;
        let binary = self.installed().join("bin/longshore");
        tool::output(Command::new(binary).arg("--version")).map(|version| String::from_utf8(version).unwrap())
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns where cargo installs: what is there comes first.
    fn installed(&self) -> PathBuf {
        self.home().join(".cargo")
    }

    /// Returns what pages name, and what stands for it here; of several the first counts.
    fn stand_ins(&self) -> [(&'static str, String); 6] {
        let registry = self.registry.host();
        [
            // An image in the archives.
            ("registry.example.com:5000/ns", "registry.example.com:5000/ns".to_owned()),
            ("registry.example.com", registry.to_owned()),
            ("ghcr.io", registry.to_owned()),
            ("localhost:5000", self.served.as_ref().map_or("localhost:5000", Serve::host).to_owned()),
            ("0.0.0.0:5000", ANY_PORT.to_owned()),
            ("docker-storage:", format!("docker-storage:[{}/docker]", self.home().display())),
        ]
    }

    fn here(&self, text: &str) -> String {
        let stand_ins = self.stand_ins();
        let (mut here, mut rest) = (String::new(), text);
        while let Some(first) = rest.chars().next() {
            let found = stand_ins.iter().find(|(name, _)| rest.starts_with(name));
            let (name, stand_in) =
                found.map_or((&rest[..first.len_utf8()], None), |(name, it)| (*name, Some(it)));
            here.push_str(stand_in.map_or(name, String::as_str));
            rest = &rest[name.len()..];
        }
        here
    }

    fn bash(&self, command: &str) -> Command {
        let home = self.home();
        let binary = Path::new(env!("CARGO_BIN_EXE_longshore")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.here(command)]).current_dir(home).env_clear();
        let installed = self.installed().join("bin");
        bash.env("PATH", format!("{}:{}:{path}", installed.display(), binary.display()))
            .env("HOME", home)
            .env("LONGSHORE_LISTEN", ANY_PORT);
        for (variable, file) in [
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("REGISTRY_AUTH_FILE", "auth.json"),
        ] {
            bash.env(variable, home.join(file));
        }
        #[cfg(feature = "buckets")]
        bash.envs(S3::variables(self.bucket.address(), SECRET_KEY));
        let registry = self.registry.host();
        bash.envs(PIPELINE.map(|(variable, value)| (variable, value.replace("REGISTRY", registry))));
        bash
    }

    /// Tells longshore, podman and skopeo of the registry, and podman of its storage.
    fn configure(&self) {
        let (home, registry) = (self.home(), self.registry.host());
        let login = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let logins = json!({ "auths": { registry: { "auth": login } } });
        fs_err::write(home.join("auth.json"), logins.to_string()).unwrap();
        let plain = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
        let configuration = home.join(".config/containers");
        fs_err::create_dir_all(&configuration).unwrap();
        fs_err::write(configuration.join("registries.conf"), plain).unwrap();
        let engine = format!("[engine]\ntmp_dir = \"{}/tmp\"\n", home.display());
        fs_err::write(home.join("containers.conf"), engine).unwrap();
        Podman::at(home.to_owned());
    }

    /// Puts there what the pages push.
    fn put_images(&self) {
        let (home, project) = (self.home(), Path::new(env!("CARGO_MANIFEST_DIR")));
        let fixtures = project.join("fixtures");
        symlink(&fixtures, home.join("fixtures")).unwrap();
        let tarball = "bazel-bin/load/tarball.tar";
        fs_err::create_dir_all(home.join(tarball).parent().unwrap()).unwrap();
        for (fixture, name) in [
            ("docker-archive/podman-save.tar", "app.tar"),
            ("docker-archive/podman-save.tar", tarball),
            ("oci-archive/podman-save.tar", "app.oci.tar"),
            ("docker-archive/docker28-save-multi.tar", "images.tar"),
        ] {
            fs_err::copy(fixtures.join(fixture), home.join(name)).unwrap();
        }
        for architecture in ["amd64", "arm64"] {
            let platform = json!({ "os": "linux", "architecture": architecture });
            let image = Archive::on(platform, vec![layer(architecture.as_bytes())]);
            fs_err::copy(image.path(), home.join(format!("{architecture}.tar"))).unwrap();
        }
        let layout = Layout::of(&[1000]);
        layout.list(&[(&layout.root.descriptor(), Some("v1"))]);
        let mine = home.join("layout");
        tool::output(Command::new("cp").arg("-r").arg(layout.path()).arg(&mine)).unwrap();
        // Bazel's outputs are links into its store.
        tool::output(Command::new("cp").arg("-rs").arg(&mine).arg(home.join("bazel-bin/image"))).unwrap();
        // What Nix builds for `streamLayeredImage`.
        program::install(&home.join("result"), "exec cat app.tar");
        let page = fs_err::read_to_string(project.join("docs/air-gap.md")).unwrap();
        let list = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        fs_err::write(home.join("images.yaml"), self.here(list)).unwrap();
    }
}

/// Nobody else's port.
const ANY_PORT: &str = "127.0.0.1:0";
