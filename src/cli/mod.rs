//! The command line: one file per command. Everything that prints, asks the environment or knows clap is here.

mod bundle;
mod cache;
mod completions;
mod config;
mod doctor;
mod embedded;
mod environment;
mod inspect;
mod inventory;
mod login;
mod logout;
mod options;
mod output;
mod pressing;
mod progress;
mod push;
mod random_login;
mod report;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use longshore::{Error, Result};

use self::{config::Config, environment::Environment, output::Printer};

/// Pushes container images from disk to any OCI registry.
///
/// No daemon, no unpacking, no second copy on disk: OCI layouts, OCI archives and docker archives are read in
/// place and sent in chunks that every proxy lets through.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Every option but `-v` has a variable (`--chunk-size`: LONGSHORE_CHUNK_SIZE) and
a key in a file; `longshore config show` says what counts, and where it is said.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say less: warnings and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more; twice for every request.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bundle(Box<bundle::Args>),
    Cache(cache::Args),
    Config(config::Args),
    Doctor(Box<doctor::Args>),
    Completions(completions::CompletionsArgs),
    Inspect(inspect::Args),
    Inventory(Box<inventory::Args>),
    Login(login::Args),
    Logout(logout::Args),
    Man(completions::ManArgs),
    Push(Box<push::Args>),
    Serve(Box<serve::Args>),
}

impl Command {
    /// Returns whether standard error is for machines.
    fn is_for_machines(&self) -> bool {
        match self {
            Self::Bundle(args) => args.progress.is_json(),
            Self::Push(args) => args.progress.is_json(),
            Self::Serve(args) => args.progress.is_json(),
            _ => false,
        }
    }
}

/// What a command needs of the outside.
#[derive(Debug)]
struct Context {
    environment: Environment,
    printer: Printer,
    config: Config,
    command: clap::Command,
}

impl Context {
    /// Returns what was typed after `push`, with the configuration's defaults for these destinations.
    fn push_args(&self, destinations: &[String]) -> Result<push::Args> {
        let matches = self.config.matches_for(&self.command, destinations)?;
        match Cli::from_arg_matches(&matches).map(|cli| cli.command) {
            Ok(Command::Push(args)) => Ok(*args),
            _ => Err(Error::internal("a push was typed and cannot be read again")),
        }
    }
}

/// How a command ended: well, or by a signal.
#[derive(Clone, Copy, Debug)]
enum ExitStatus {
    Success,
    Interrupted(u8),
}

/// Returns the command line. Every `-h` fits a screen: what is not usual is left to `--help`.
fn command() -> clap::Command {
    let short = |arg: clap::Arg| {
        let is_usual = arg.is_positional() || USUAL.contains(&arg.get_id().as_str());
        if is_usual { arg } else { arg.hide_short_help(true) }
    };
    let mut cli = Cli::command().mut_subcommand("serve", |serve| serve.mut_args(serve::under_upstream));
    for long in ["bundle", "doctor", "inventory", "login", "push", "serve"] {
        cli = cli.mut_subcommand(long, |command| command.mut_args(short));
    }
    cli
}

/// Options of long commands that are usual.
const USUAL: [&str; 20] = [
    "base",
    "chunk_size",
    "compression",
    "creds",
    "digest_file",
    "dry_run",
    "htpasswd",
    "into",
    "json",
    "listen",
    "output",
    "password_stdin",
    "platform",
    "read_only",
    "split",
    "tags",
    "tls_cert",
    "tls_key",
    "upstream",
    "username",
];

/// Runs the command that was typed.
pub(crate) fn main() -> ExitCode {
    environment::open_files::allow();
    let environment = Environment::read();
    let command = command();
    let config = match Config::read(&environment, &command) {
        Ok(config) => config,
        Err(error) => return without_config(command, &error),
    };
    let matches = match config.matches(&command) {
        Ok(matches) => matches,
        Err(error) => return Printer::default().failure(&error),
    };
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return output::usage(error),
    };
    let printer = Printer::new(cli.quiet, cli.verbose, cli.command.is_for_machines());
    printer.log();
    let context = Context { environment, printer, config, command };
    let result = match cli.command {
        Command::Bundle(args) => bundle::run(&args, &context),
        Command::Cache(args) => cache::run(&args, &context),
        Command::Config(args) => config::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Completions(args) => completions::completions(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Inventory(args) => inventory::run(&args, &context),
        Command::Login(args) => login::run(&args, &context),
        Command::Logout(args) => logout::run(&args, &context),
        Command::Man(args) => completions::man(&args, &context),
        Command::Push(args) => push::run(&args, &context),
        Command::Serve(args) => serve::run(&args, &context),
    };
    match result {
        Ok(ExitStatus::Success) => ExitCode::SUCCESS,
        Ok(ExitStatus::Interrupted(signal)) => {
            context.printer.interrupted();
            ExitCode::from(128 + signal)
        }
        Err(error) => context.printer.failure(&error),
    }
}

/// Help and the version can be had whatever the configuration is.
fn without_config(command: clap::Command, broken: &Error) -> ExitCode {
    match command.try_get_matches() {
        Err(error) if !error.use_stderr() => output::usage(error),
        _ => Printer::default().failure(broken),
    }
}
