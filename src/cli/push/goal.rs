//! Where a push goes, as DEST says it: to repositories, below a prefix, or to a place on disk.

use std::path::Path;

use longshore::{
    Error, Result,
    oci::Reference,
    push::{IfExists, Mirror},
};

use super::{Args, disk::Disk};

/// Which images go where.
pub(super) enum Goal {
    /// One, to each of these.
    One(Vec<Reference>),
    /// One of each source, as an index, to each of these.
    Index(Vec<Reference>),
    /// All of the source.
    All(Mirror),
}

impl Goal {
    /// Reads DEST, which may be a place on `disk`.
    pub(super) fn new(args: &Args, disk: Option<&Disk>) -> Result<Self> {
        if let Some(dir) = &args.into
            && dir.to_str().is_some_and(|dir| dir.contains("://"))
        {
            return Err(Error::usage(format!("`--into` takes a folder, no address: `{}`", dir.display()))
                .with_hint("`longshore serve` serves a bucket, and a push goes there"));
        }
        if !args.all {
            if !args.map.is_empty() {
                return Err(Error::usage("`--map` is for many images").with_hint("add `--all`"));
            }
            let parse = |text: &String| match (disk, &args.into) {
                (Some(disk), _) => disk.reference(HERE),
                (None, Some(_)) => Reference::at(HERE, text),
                (None, None) => text.parse().map_err(|error| on_disk(text).unwrap_or(error)),
            };
            let destinations = args.destinations().iter().map(parse).collect::<Result<_>>()?;
            return Ok(if args.index { Self::Index(destinations) } else { Self::One(destinations) });
        }
        if args.index {
            return Err(Error::usage("`--all` pushes many images, and `--index` makes one of them"));
        }
        let [prefix] = args.destinations() else {
            return Err(Error::usage("`--all` takes one DEST: what stands before every name"));
        };
        if !args.tags.is_empty() {
            return Err(
                Error::usage("`--tag` is for one image").with_hint("with `--all` they bring their own")
            );
        }
        let mirror: Mirror = match &args.into {
            Some(_) if prefix == "." => HERE.parse()?,
            Some(_) => format!("{HERE}/{prefix}").parse()?,
            None => prefix.parse()?,
        };
        Ok(Self::All(Mirror { rules: args.map.clone(), ..mirror }))
    }

    pub(super) fn hosts(&self) -> Vec<&str> {
        match self {
            Self::One(destinations) | Self::Index(destinations) => {
                destinations.iter().map(|to| to.repository.host.as_str()).collect()
            }
            Self::All(mirror) => vec![&mirror.host],
        }
    }
}

/// Says so where a file or folder stands in the place of DEST, as it does for who writes DEST first.
fn on_disk(text: &str) -> Option<Error> {
    let place = text.split_once("://").map_or(text, |(_, rest)| rest);
    let is_place = Path::new(place).exists() || text.starts_with(['/', '.', '~']);
    is_place.then(|| {
        Error::usage(format!("`{}` is a place on disk, and DEST is a repository", text.escape_debug())).with_hint(
            "SOURCE comes first, DEST behind it; on disk images are written to `oci:DIR` and `oci-archive:FILE`",
        )
    })
}

/// Returns the destination, if that is on disk.
pub(super) fn disk(args: &Args) -> Result<Option<Disk>> {
    if args.into.is_some() {
        return Ok(None);
    }
    let found: Vec<_> =
        args.destinations().iter().filter_map(|text| Disk::parse(text).transpose()).collect::<Result<_>>()?;
    if !found.is_empty() && (args.destinations().len() > 1 || args.all) {
        return Err(Error::usage("a destination on disk stands alone, and takes one image"));
    }
    if !found.is_empty() && args.if_exists != IfExists::Overwrite {
        return Err(Error::usage("`--if-exists` asks a registry, and DEST is none"));
    }
    Ok(found.into_iter().next())
}

/// Stands for the embedded registry until that has an address.
const HERE: &str = "127.0.0.1";

impl Args {
    /// Returns what is pushed. With `--index`, all words but the last name sources.
    pub(super) fn sources(&self) -> Vec<&str> {
        let more = &self.destinations[..self.destinations.len() - self.destinations().len()];
        self.source.iter().chain(more).map(String::as_str).collect()
    }

    /// Returns what the user calls that.
    pub(super) fn image(&self) -> String {
        self.sources().join(" ")
    }

    /// Returns where that goes.
    pub(super) fn destinations(&self) -> &[String] {
        let sources = if self.index { self.destinations.len().saturating_sub(1) } else { 0 };
        &self.destinations[sources..]
    }
}
