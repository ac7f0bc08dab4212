//! The images that a registry is started with: each is pushed into its folder before the registry opens.
//!
//! They go through a registry of their own that nobody else can use, by the same push as to any other.

use std::{path::Path, sync::Arc};

use longshore::{
    Error, Result,
    oci::Reference,
    push::{
        Options, Press, Push, Target,
        runtime::{Ending, block_on},
    },
    registry::{Client, ClientOptions, Credential, Secret},
    server::{self, Access, Server},
    source::{
        Choice, Image, Input, SourceSpec,
        detect::{self, SourceOptions},
    },
};
use rand::RngExt as _;

use super::{Context, ExitStatus, cache::CacheArgs, progress::Lines, source::SourceArgs};

/// What is to be pushed.
pub(super) struct ServedImages(Vec<ServedImage>);

/// One image of a source, under one name or several.
struct ServedImage {
    spec: SourceSpec,
    options: SourceOptions,
    names: Vec<Reference>,
}

impl ServedImages {
    /// Finds out what `[NAME[:TAG]=]SOURCE` arguments mean.
    pub(super) fn open(arguments: &[String], source: &SourceArgs, context: &Context) -> Result<Self> {
        let mut images = Vec::new();
        for argument in arguments {
            let (name, source_text) = split(argument);
            let (spec, options) = source.locate(source_text, &context.environment)?;
            match name {
                Some(name) => images.push(ServedImage { spec, options, names: vec![name] }),
                None => images.extend(all_of(&spec, &options, source_text)?),
            }
        }
        Ok(Self(images))
    }

    /// Pushes them into `dir`.
    pub(super) fn push_into(self, dir: &Path, cache: &CacheArgs, context: &Context) -> Result<ExitStatus> {
        if self.0.is_empty() {
            return Ok(ExitStatus::Success);
        }
        let opened = cache.open(context)?;
        let press = Press::new(opened.clone(), Arc::new(Lines::new(context.printer)));
        let ending = block_on(async {
            let user = "longshore";
            let password: String =
                rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect();
            let access = Access::basic(user, &password);
            let server = Server::start(server::Options { access, ..server::Options::new(dir) }).await?;
            let mut options = ClientOptions::default();
            let login = Credential::Login { user: user.to_owned(), password: Secret::new(password) };
            options.credentials.give("the embedded registry", login);
            let client = Client::new(&server.address().to_string(), options)?;
            for image in self.0 {
                image.push(&client, &press, context).await?;
            }
            server.stop().await;
            Ok(())
        })?;
        cache.trim(&opened, context);
        match ending {
            Ending::Finished(result) => result.map(|()| ExitStatus::Success),
            Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
        }
    }
}

impl ServedImage {
    async fn push(self, client: &Client, press: &Press, context: &Context) -> Result<()> {
        let target = |name: &Reference| {
            let mut destination = name.clone();
            client.host().clone_into(&mut destination.repository.host);
            Target { destination, tags: Vec::new(), client: client.clone() }
        };
        let push = Push {
            input: detect::open(&self.spec, &self.options)?,
            spec: self.spec,
            targets: self.names.iter().map(target).collect(),
            press: press.clone(),
            options: Options::default(),
        };
        for (name, pushed) in self.names.iter().zip(push.run().await?) {
            let digest = pushed?.digest;
            let tag = name.tag.as_deref().unwrap_or("latest");
            context.printer.status(&format!("serving {}:{tag}@{digest}", name.repository.path));
        }
        Ok(())
    }
}

/// Takes a name off the front, where what stands before `=` can be one.
fn split(argument: &str) -> (Option<Reference>, &str) {
    let named =
        argument.split_once('=').and_then(|(name, source)| Some((Reference::at(HERE, name).ok()?, source)));
    named.map_or((None, argument), |(name, source)| (Some(name), source))
}

/// Lists every image of a source, with the names that it has there.
fn all_of(spec: &SourceSpec, options: &SourceOptions, text: &str) -> Result<Vec<ServedImage>> {
    let nameless = |what: &str| {
        Error::usage(format!("{what} of `{text}` has no name to be served under"))
            .with_hint(format!("give it one: `NAME:TAG={text}`"))
    };
    let Input::Indexed(source) = detect::open(spec, options)? else {
        // Its names come at its end.
        return Err(nameless("the compressed archive or pipe"));
    };
    let chosen: Vec<(Choice, Image)> = match &spec.choice {
        Choice::Only => {
            let images = source.images()?.into_iter().enumerate();
            images
                .filter(|(_, image)| !image.companion)
                .map(|(at, image)| (Choice::Index(at), image))
                .collect()
        }
        choice => vec![(choice.clone(), longshore::source::choose(&*source, choice, None)?)],
    };
    let mut served = Vec::new();
    for (choice, image) in chosen {
        let names: Vec<Reference> = image.names.iter().filter_map(|name| without_host(name)).collect();
        if names.is_empty() {
            return Err(nameless("an image"));
        }
        let spec = SourceSpec { choice, ..spec.clone() };
        served.push(ServedImage { spec, options: options.clone(), names });
    }
    Ok(served)
}

/// Reads a full name, and leaves its host out. A tag alone is none.
fn without_host(name: &str) -> Option<Reference> {
    if !name.contains(['/', ':']) || name.contains('@') {
        return None;
    }
    let path = name.parse::<Reference>().map_or_else(
        |_| name.to_owned(),
        |full| {
            let tag = full.tag.unwrap_or_else(|| "latest".to_owned());
            format!("{}:{tag}", full.repository.path)
        },
    );
    Reference::at(HERE, &path).ok()
}

/// Until the registry has an address.
const HERE: &str = "127.0.0.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_before_the_source() {
        for (argument, name, source) in [
            ("demo:1=a.tar", Some("127.0.0.1/demo:1"), "a.tar"),
            ("a/demo=oci:x:1", Some("127.0.0.1/a/demo"), "oci:x:1"),
            ("a.tar", None, "a.tar"),
            ("./a=b.tar", None, "./a=b.tar"),
            ("/x/a=b.tar", None, "/x/a=b.tar"),
        ] {
            let (found, rest) = split(argument);
            assert_eq!((found.map(|name| name.to_string()).as_deref(), rest), (name, source), "{argument}");
        }
    }

    #[test]
    fn hosts_are_left_out_of_names() {
        for (name, expected) in [
            ("docker.io/library/alpine:3", Some("127.0.0.1/library/alpine:3")),
            ("localhost/demo:1", Some("127.0.0.1/demo:1")),
            ("registry.example.com:5000/a/b", Some("127.0.0.1/a/b:latest")),
            ("demo:1", Some("127.0.0.1/demo:1")),
            ("team/demo:1", Some("127.0.0.1/team/demo:1")),
            ("1", None),
        ] {
            let found = without_host(name).map(|name| name.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
