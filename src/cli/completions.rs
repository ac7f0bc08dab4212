//! `longshore completions` and `longshore man`: what a shell and a manual know of the command line.

use std::path::PathBuf;

use clap_complete::Shell;
use longshore::{ErrorKind, Result, error::Context as _};

use super::{Context, ExitStatus, command};

/// The name it is called by.
const NAME: &str = "longshore";

/// Print what a shell needs to complete commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(longshore completions bash)
  longshore completions zsh > ~/.zfunc/_longshore
  longshore completions fish > ~/.config/fish/completions/longshore.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Print the manual page, or write one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore man | man -l -
  longshore man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// The folder for the pages of all commands; it is made where it is missing
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, context: &Context) -> Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), NAME, &mut script);
    if args.shell == Shell::Zsh {
        // After the first of several arguments zsh would forget options by `*::`, which is for what has a line of
        // its own; by `*:` it does not.
        script = String::from_utf8_lossy(&script).replace("\n'*::", "\n'*:").into_bytes();
    }
    context.printer.document(&script)
}

pub(super) fn man(args: &ManArgs, context: &Context) -> Result<ExitStatus> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(whole(command())).render(&mut page);
        rendered.context(ErrorKind::Internal, || "writing the manual page".to_owned())?;
        return context.printer.document(&page);
    };
    let writing = || format!("writing manual pages into `{}`", dir.display());
    fs_err::create_dir_all(dir).context(ErrorKind::Local, writing)?;
    clap_mangen::generate_to(whole(command()), dir).context(ErrorKind::Local, writing)?;
    Ok(ExitStatus::Success)
}

/// Returns a command whose page says what each option does, those that short help is silent about too.
fn whole(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(whole)
}
