//! What may be said about SOURCE, alike for every command that reads one.

use std::path::PathBuf;

use longshore::{
    Result,
    source::{SourceSpec, detect::SourceOptions, stores::containers_storage::ContainersStorage},
};

use crate::cli::environment::{Environment, user_namespace};

/// Options of SOURCE.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SourceArgs {
    /// The folder that holds the blobs of a layout without any
    #[arg(long, value_name = "DIR", help_heading = "Source")]
    blob_dir: Option<PathBuf>,
    /// SOURCE is a program that writes an archive, such as the script of Nix's `streamLayeredImage`
    #[arg(long, help_heading = "Source")]
    from_command: bool,
}

impl SourceArgs {
    /// Returns where `source` leads, and what the library needs to open it on this machine. A store of rootless
    /// podman can be read only inside its user namespace: then this process begins again there.
    pub(in crate::cli) fn locate(
        &self,
        source: &str,
        environment: &Environment,
    ) -> Result<(SourceSpec, SourceOptions)> {
        let spec: SourceSpec = source.parse()?;
        let storage = environment.storage(spec.transport)?;
        if let Some(store) = ContainersStorage::place(&spec, &storage) {
            user_namespace::enter(&store, environment.is_in_user_namespace())?;
        }
        let options = SourceOptions {
            blob_dir: self.blob_dir.clone(),
            containerd_roots: environment.containerd_roots(),
            from_command: self.from_command,
            storage,
        };
        Ok((spec, options))
    }
}
