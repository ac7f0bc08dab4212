//! The images that a registry is started with: each is pushed into its folder before the registry opens.
//!
//! They go through a registry of their own that nobody else can use, by the same push as to any other.

use longshore::{
    Error, Result,
    oci::Reference,
    push::{
        Arrival, Mirror, Options, Press, Push, PushAll, Pushed, Target,
        runtime::{Ending, block_on},
    },
    registry::Client,
    server::Place,
    source::{
        SourceSpec,
        detect::{self, SourceOptions},
    },
};

use crate::cli::{
    Context, ExitStatus,
    embedded::with_registry,
    options::{cache::CacheArgs, source::SourceArgs},
    pressing::Pressing,
    progress::ProgressArgs,
};

/// What is to be pushed.
pub(super) struct ServedImages(Vec<ServedImage>);

/// A source, and the name of its image; without one, all of its images go by their own names.
struct ServedImage {
    spec: SourceSpec,
    options: SourceOptions,
    name: Option<Reference>,
    /// As it was typed.
    text: String,
}

impl ServedImages {
    /// Finds out what `[NAME[:TAG]=]SOURCE` arguments mean.
    pub(super) fn open(arguments: &[String], source: &SourceArgs, context: &Context) -> Result<Self> {
        let mut images = Vec::new();
        for argument in arguments {
            let (name, text) = split(argument);
            let (spec, options) = source.locate(text, &context.environment)?;
            images.push(ServedImage { spec, options, name, text: text.to_owned() });
        }
        Ok(Self(images))
    }

    /// Pushes them into `place`.
    pub(super) fn push_into(
        self,
        place: Place,
        cache: &CacheArgs,
        progress: &ProgressArgs,
        context: &Context,
    ) -> Result<ExitStatus> {
        if self.0.is_empty() {
            return Ok(ExitStatus::Success);
        }
        let pressing = Pressing::begin(cache, progress, context)?;
        let ending = block_on(with_registry(place, None, async |client| {
            for image in self.0 {
                image.push(&client, &pressing.press, context).await?;
            }
            Ok(())
        }));
        match pressing.end(ending)? {
            Ending::Finished(result) => result.map(|()| ExitStatus::Success),
            Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
        }
    }
}

impl ServedImage {
    async fn push(self, client: &Client, press: &Press, context: &Context) -> Result<()> {
        let Self { spec, options, name, text } = self;
        let (input, press, client) = (detect::open(&spec, &options)?, press.clone(), client.clone());
        let (host, options) = (client.host().to_owned(), Options::default());
        let arrivals = if let Some(mut destination) = name {
            destination.repository.host = host;
            let targets = vec![Target { destination: destination.clone(), tags: Vec::new(), client }];
            let pushed = Push { input, spec, targets, press, options }.run().await?;
            let arrival = |result: Result<_>| Arrival {
                image: text.clone(),
                destination: Some(destination.clone()),
                result: result.map(Some),
            };
            pushed.into_iter().map(arrival).collect()
        } else {
            let mirror = Mirror { host, path: None, rules: Vec::new() };
            PushAll { input, spec, mirror, client, press, options }.run().await?
        };
        for Arrival { image, destination, result } in arrivals {
            let Some(destination) = destination else {
                let error = result.err().unwrap_or_else(|| Error::internal("an image went nowhere"));
                let words = format!("`{image}` of `{text}` has no name to be served under");
                return Err(Error::usage(words)
                    .because(error)
                    .with_hint(format!("give it one: `NAME:TAG={text}`")));
            };
            let Some(Pushed { digest, .. }) = result? else { continue };
            let tag = destination.tag.as_deref().map(|tag| format!(":{tag}")).unwrap_or_default();
            context.printer.status(&format!("serving {}{tag}@{digest}", destination.repository.path));
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
}
