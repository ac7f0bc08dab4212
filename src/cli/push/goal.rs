//! Where a push goes, as DEST says it: to repositories, below a prefix, or to a place on disk.

use longshore::{Error, Result, oci::Reference, push::Mirror};

use super::{super::disk::Disk, Args};

/// Which images go where.
pub(super) enum Goal {
    /// One, to each of these.
    One(Vec<Reference>),
    /// All of the source.
    All(Mirror),
}

impl Goal {
    pub(super) fn new(args: &Args) -> Result<Self> {
        if !args.all {
            if !args.map.is_empty() {
                return Err(Error::usage("`--map` is for many images").with_hint("add `--all`"));
            }
            let parse = |text: &String| match &args.into {
                Some(_) => Reference::at(HERE, text),
                None => text.parse(),
            };
            return args.destinations.iter().map(parse).collect::<Result<_>>().map(Self::One);
        }
        let [prefix] = args.destinations.as_slice() else {
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
            Self::One(destinations) => destinations.iter().map(|to| to.repository.host.as_str()).collect(),
            Self::All(mirror) => vec![&mirror.host],
        }
    }
}

/// Returns the destination, if that is on disk.
pub(super) fn disk(args: &Args) -> Result<Option<Disk>> {
    if args.into.is_some() {
        return Ok(None);
    }
    let found: Vec<_> =
        args.destinations.iter().filter_map(|text| Disk::parse(text).transpose()).collect::<Result<_>>()?;
    if !found.is_empty() && (args.destinations.len() > 1 || args.all) {
        return Err(Error::usage("a destination on disk stands alone, and takes one image"));
    }
    if !found.is_empty() && args.dry_run {
        return Err(Error::usage("`--dry-run` asks a registry, and DEST is none"));
    }
    Ok(found.into_iter().next())
}

/// Stands for the embedded registry until that has an address.
pub(super) const HERE: &str = "127.0.0.1";
