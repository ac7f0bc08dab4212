//! `longshore inventory`: what a site has, as the base of bundles that leave it out.

use longshore::{
    Result,
    error::counted,
    oci::{Repository, reference::no_registry},
    push::{
        Mirror,
        inventory::{Holdings, VERSION},
        runtime::{Ending, block_on},
        stocktaking,
    },
    registry::Client,
    source::{Input, SourceSpec, detect, passed, spec::Location},
};
use serde_json::json;

use super::{
    Context, ExitStatus,
    options::{
        access::{AccessArgs, CredsArgs},
        source::SourceArgs,
    },
    output::ascii,
};

/// List the blobs that a site has, for `longshore bundle --base`
///
/// Of a registry, every tag's manifests are read and nothing else. The list is JSON, by repository: tags, manifests and
/// blobs with their sizes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore inventory registry.example.com > have.json
  longshore inventory registry.example.com/team > have.json
  longshore inventory ./registry > have.json
  longshore inventory images.oci.tar > have.json")]
pub(super) struct Args {
    /// Registries, `HOST[/PREFIX]`, or repositories where a registry does not list its own; or folders and archives, like
    /// that of `longshore serve` or an earlier bundle
    #[arg(value_name = "PLACE", required = true)]
    places: Vec<String>,
    #[command(flatten)]
    creds: CredsArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    source_options: SourceArgs,
}

/// Where to look.
enum Site {
    Disk(String),
    Registry(Mirror),
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let places: Vec<_> = args.places.iter().map(|place| Site::parse(place)).collect::<Result<_>>()?;
    let mut list = List { context, begun: false };
    list.begin()?;
    let mut credentials = None;
    for place in places {
        let mirror = match place {
            Site::Disk(source) => {
                disk(args, &source, context)?.iter().try_for_each(|holdings| list.add(holdings))?;
                continue;
            }
            Site::Registry(mirror) => mirror,
        };
        // Standard input can be read once.
        let credentials = match &credentials {
            Some(credentials) => credentials,
            None => credentials.insert(args.creds.credentials(&args.access, context)?),
        };
        let path = mirror.path.clone().unwrap_or_default();
        let mut options = args.access.options(&mirror.host, &path, context)?;
        options.credentials = credentials.clone();
        let client = Client::new(&mirror.host, options)?;
        match block_on(registry(&client, mirror.path.as_deref(), &mut list))? {
            Ending::Finished(result) => result?,
            Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
        }
    }
    list.end()?;
    Ok(ExitStatus::Success)
}

/// Lists what is on this machine.
fn disk(args: &Args, source: &str, context: &Context) -> Result<Vec<Holdings>> {
    let (spec, options) = args.source_options.locate(source, &context.environment)?;
    let source = match detect::open(&spec, &options)? {
        Input::Indexed(source) => source,
        Input::Pass(pass) => passed::look(pass, spec.transport)?.0,
    };
    stocktaking::of_source(&*source)
}

/// Lists what a registry has, repository by repository.
async fn registry(client: &Client, prefix: Option<&str>, list: &mut List<'_>) -> Result<()> {
    let printer = list.context.printer;
    let names = stocktaking::repositories(client, prefix, |words| printer.warning(&words)).await?;
    for name in names {
        // One that was deleted meanwhile has nothing.
        if let Some(holdings) = stocktaking::of_repository(client, &name).await? {
            list.add(&holdings)?;
            let (tags, blobs) = (counted(holdings.tags.len(), "tag"), counted(holdings.blobs.len(), "blob"));
            let repository = Repository { host: client.host().to_owned(), path: name };
            printer.status(&format!("{repository}: {tags}, {blobs}"));
        }
    }
    Ok(())
}

/// The list on standard output, a repository a line.
struct List<'a> {
    context: &'a Context,
    begun: bool,
}

impl List<'_> {
    fn begin(&self) -> Result<()> {
        self.print(&format!("{{\"longshoreInventory\":{VERSION},\"repositories\":["))
    }

    fn add(&mut self, holdings: &Holdings) -> Result<()> {
        let comma = if std::mem::replace(&mut self.begun, true) { "," } else { "" };
        self.print(&format!("{comma}{}", ascii(&json!(holdings).to_string())))
    }

    fn end(&self) -> Result<()> {
        self.print("]}")
    }

    fn print(&self, line: &str) -> Result<()> {
        self.context.printer.result(line)
    }
}

impl Site {
    /// What exists is on disk, and so is what has a transport; what else begins with a host is a registry.
    fn parse(text: &str) -> Result<Self> {
        if text.starts_with("docker://") {
            return text.parse().map(Self::Registry);
        }
        let spec: SourceSpec = text.parse()?;
        let is_there = match &spec.location {
            Location::Path(path) => spec.transport.is_some() || path.exists(),
            Location::Stdin | Location::Storage { .. } => true,
        };
        match text.parse::<Mirror>() {
            Ok(mirror) if !is_there => Ok(Self::Registry(mirror)),
            Err(_) if !is_there => {
                Err(no_registry(text).with_hint("there is no folder or archive of that name either"))
            }
            _ => Ok(Self::Disk(text.to_owned())),
        }
    }
}
