//! `push --list`: many pushes, checked before anything is sent, of which a second run does only what is left.

mod entries;
mod node;

use std::collections::HashMap;

use longshore::{
    Error, Result,
    push::{Fingerprint, Journal, Pushed, runtime::Ending},
    source::{Input, choose, spec::Location},
};
use serde_json::json;

use self::entries::Problems;
use crate::cli::{
    Context, ExitStatus,
    push::{
        Args,
        order::{Order, Shared},
        ship::{Done, report},
    },
};

/// Pushes what a file lists.
pub(super) fn run(list: &str, args: &Args, context: &Context) -> Result<ExitStatus> {
    if list == "-" && args.creds.password_stdin {
        return Err(Error::usage("standard input cannot be the list and the password")
            .with_hint("log in by a file: `--authfile FILE`"));
    }
    args.report.check()?;
    let mut problems = Problems::of(list);
    let pushes = read(list, &mut problems, context)?;
    let mut entries = Vec::new();
    for (line, args) in &pushes {
        if let Some(order) = problems.sift(*line, Order::new(args, context)) {
            entries.push(Listed { line: *line, fingerprint: fingerprint(&order), order });
        }
    }
    tell_apart(&entries, &mut problems);
    problems.check()?;
    let journal = journal(list, args, context);
    let is_done = |entry: &Listed<'_>| entry.done(journal.as_ref()).is_some();
    for entry in entries.iter().filter(|entry| !is_done(entry)) {
        problems.sift(entry.line, look_into(&entry.order));
    }
    problems.check()?;
    let before = entries.iter().filter(|entry| is_done(entry)).count();
    if before > 0 {
        let words = format!("{before} of {} done before; `--no-resume` does them again", entries.len());
        context.printer.status(&words);
    }
    let embedded = entries.iter().all(|entry| entry.order.is_embedded());
    let shared = Shared::begin(args, embedded, context)?;
    let push =
        async |shared: &Shared<'_>| carry_out_all(entries, journal, shared, args.dry_run, context).await;
    match shared.run(push)? {
        Ending::Finished(all) => report(args, all, context),
        Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
    }
}

/// Reads the list: the line of each entry, and what it is on a command line of its own.
fn read(list: &str, problems: &mut Problems<'_>, context: &Context) -> Result<Vec<(usize, Args)>> {
    // Where rootless podman's storage is listed, this process is the second one, and the first has read the list.
    let lost = list == "-" && context.environment.is_in_user_namespace();
    let entries = entries::read(list, problems)
        .map_err(|error| if lost { error.with_hint("give the list as a file") } else { error })?;
    let mut pushes = Vec::new();
    for entry in entries {
        let line = entry.line;
        let args = context.push_args(&entry.destinations);
        pushes.extend(problems.sift(line, args).map(|args| (line, entry.over(args))));
    }
    Ok(pushes)
}

/// One push of the list.
struct Listed<'a> {
    line: usize,
    order: Order<'a>,
    fingerprint: Option<Fingerprint>,
}

impl Listed<'_> {
    /// Returns what an earlier run has done of it.
    fn done<'a>(&self, journal: Option<&'a Journal>) -> Option<&'a [(String, Pushed)]> {
        journal?.done(self.fingerprint.as_ref()?)
    }
}

/// Makes sure that no two entries give the same name.
fn tell_apart(entries: &[Listed<'_>], problems: &mut Problems) {
    let mut given: HashMap<String, (usize, usize)> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        for name in entry.order.names() {
            let words = format!("`{}` is", name.escape_debug());
            if let Some((_, other)) = given.insert(name, (at, entry.line)).filter(|(by, _)| *by != at) {
                let error = Error::usage(format!("{words} where the entry of line {other} goes too"));
                problems.sift(entry.line, Err::<(), _>(error));
            }
        }
    }
}

/// Returns what is kept of an earlier run.
fn journal(list: &str, args: &Args, context: &Context) -> Option<Journal> {
    let dir = context.environment.state_dir()?.join("lists");
    let path = if list == "-" { None } else { std::path::absolute(list).ok() };
    let name = path.map_or_else(|| list.to_owned(), |path| path.display().to_string());
    let journal = Journal::open(&dir, &name);
    if !args.no_resume {
        return Some(journal);
    }
    if !args.dry_run {
        journal.forget();
    }
    None
}

/// Returns what a push is known to a later run by; nothing, if its destination can be looked at for nothing, or
/// nothing tells whether its source has changed.
fn fingerprint(order: &Order<'_>) -> Option<Fingerprint> {
    let [(spec, options)] = order.sources.as_slice() else { return None };
    if order.is_embedded() || options.from_command {
        return None;
    }
    let args = order.args;
    let asked = json!({
        "allowNondistributable": args.allow_nondistributable,
        "blobDir": options.blob_dir,
        "compression": args.recipe.compression.to_string(),
        "destinations": args.destinations,
        "forceCompression": args.recipe.force_compression,
        "format": args.recipe.format.to_string(),
        "ifExists": args.if_exists.to_string(),
        "platform": args.platform,
        "referrers": args.referrers,
        "removeSignatures": args.remove_signatures,
        "tags": args.tags,
    });
    Fingerprint::new(&asked, spec)
}

/// Makes sure that a source can be read and holds the image, as far as that can be found out twice.
fn look_into(order: &Order<'_>) -> Result<()> {
    for (spec, options) in &order.sources {
        let is_pipe = |path: &std::path::PathBuf| {
            fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
        };
        if options.from_command || matches!(&spec.location, Location::Path(path) if is_pipe(path)) {
            continue;
        }
        if let Input::Indexed(source) = longshore::source::detect::open(spec, options)? {
            choose(&*source, &spec.choice, order.args.platform.as_ref())?;
        }
    }
    Ok(())
}

/// Pushes one entry after the other, but for those that are done.
async fn carry_out_all(
    entries: Vec<Listed<'_>>,
    mut journal: Option<Journal>,
    shared: &Shared<'_>,
    dry_run: bool,
    context: &Context,
) -> Done {
    let mut all = Done::none(dry_run);
    for entry in entries {
        match entry.done(journal.as_ref()) {
            Some(_) if dry_run => {}
            Some(arrived) => all.extend(Done::before(&entry.order.args.image(), arrived)),
            None => {
                let done = carry_out(entry.order, shared, context).await;
                if let (Some(journal), Some(fingerprint), Some(arrived)) =
                    (&mut journal, entry.fingerprint, done.arrived())
                {
                    journal.note(fingerprint, arrived);
                }
                all.extend(done);
            }
        }
    }
    if let (Some(journal), true) = (journal, all.arrived().is_some()) {
        journal.forget();
    }
    all
}

/// Pushes one entry; whatever goes wrong stops no other.
async fn carry_out(order: Order<'_>, shared: &Shared<'_>, context: &Context) -> Done {
    let (args, errands) = (order.args, order.errands());
    let done = match order.open() {
        Ok(sources) => Box::pin(order.carry_out(sources, shared, context)).await,
        Err(error) => Err(error),
    };
    let done = done.unwrap_or_else(|error| Done::failed(errands, &error, args.dry_run));
    done.while_doing(&format!("pushing `{}`", args.image().escape_debug()))
}
