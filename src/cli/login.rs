//! `longshore login`: a user and password are tried at the registry, and kept where pushes look for them.

use std::io::{BufReader, Read as _, Write as _};

use longshore::{
    Error, Result,
    error::{chain, printable},
    oci::{Reference, reference::no_registry},
    push::runtime::{Ending, block_on, blocking},
    registry::{
        Client, ClientOptions, Credential, Credentials, Secret,
        credentials::auth_file::Key,
        login::{Entrance, LoginFile},
    },
};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::{
    Context, ExitStatus,
    options::access::{AccessArgs, password_from_stdin, password_in_argv},
};

/// Log in to a registry
///
/// Tries user and password at the registry and keeps them in the `auth.json` that podman, buildah and skopeo use too,
/// or with the credential helper that is named there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore login registry.example.com
  longshore login --username ci --password-stdin ghcr.io < token
  longshore login --authfile ~/.docker/config.json docker.io")]
pub(super) struct Args {
    /// The registry, or a namespace of it: HOST[:PORT][/PATH]
    registry: String,
    /// The user
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// What other tools take, and every user of the machine can read
    #[arg(short, long, value_name = "PASSWORD", hide = true)]
    password: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    if args.password.is_some() {
        return Err(password_in_argv("leave it out to be asked for it, or use `--password-stdin`"));
    }
    let key = registry(&args.registry)?;
    let options = args.access.options(key.host(), key.path(), context)?;
    let file = LoginFile::open(&args.access.files.login_file(&context.environment)?)?;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => match Terminal::open()?.ask(&format!("User for {}: ", key.host()), true)? {
            Ending::Finished(user) => user,
            Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
        },
    };
    if user.is_empty() || user.contains(':') {
        return Err(Error::usage(format!("invalid user: `{}`", user.escape_debug())));
    }
    let password = if args.password_stdin {
        password_from_stdin()?
    } else {
        match Terminal::open()?.ask("Password: ", false)? {
            Ending::Finished(password) if password.is_empty() => {
                return Err(Error::usage("the password is empty"));
            }
            Ending::Finished(password) => Secret::new(password),
            Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
        }
    };
    let ending = block_on(async {
        verify(&key, &user, &password, options, context).await?;
        file.log_in(&key, &user, &password).await
    })?;
    let place = match ending {
        Ending::Finished(place) => place?,
        Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
    };
    context.printer.status(&format!("logged in to {} as {user}, kept by {place}", key.host()));
    Ok(ExitStatus::Success)
}

/// Reads what stands for a registry on the command line.
pub(super) fn registry(text: &str) -> Result<Key> {
    let key = Key::of(text.trim_start_matches("docker://"));
    // The rules of hosts and paths are those of references.
    let reference: Reference = if key.path().is_empty() {
        let any = format!("{}/any", key.host()).parse();
        any.map_err(|_| no_registry(text))?
    } else {
        key.to_string().parse()?
    };
    if reference.tag.is_some() || reference.digest.is_some() {
        return Err(Error::usage(format!("`{}` is an image, no registry", text.escape_debug())));
    }
    Ok(key)
}

/// Tries the login at the registry. One that does not answer now may do so later.
async fn verify(
    key: &Key,
    user: &str,
    password: &Secret,
    options: ClientOptions,
    context: &Context,
) -> Result<()> {
    let mut credentials = Credentials::default();
    let login = Credential::Login { user: user.to_owned(), password: password.clone() };
    credentials.give("this login", login);
    let client = Client::new(key.host(), ClientOptions { credentials, retries: 1, ..options })?;
    match client.enter().await? {
        Entrance::Guarded => {}
        Entrance::Open => context.printer.warning(&format!("{} asked for no password", key.host())),
        Entrance::Unreachable(error) => {
            context.printer.warning(&format!("the password was not tried: {}", chain(&error)));
        }
    }
    Ok(())
}

/// The signal that Ctrl-C stands for.
const INTERRUPT: u8 = 2;

/// The terminal, where there is somebody to ask.
struct Terminal(fs_err::File);

impl Terminal {
    fn open() -> Result<Self> {
        let open = fs_err::OpenOptions::new().read(true).write(true).open("/dev/tty");
        open.map(Self).map_err(|_| {
            Error::usage("there is no terminal to ask for the login")
                .with_hint("give it by `--username USER --password-stdin`")
        })
    }

    /// Asks for one line, which is seen as it is typed only if `echo`. Ctrl-C is the signal that it stands for.
    fn ask(&self, prompt: &str, echo: bool) -> Result<Ending<String>> {
        let failed = |error: std::io::Error| Error::local("asking for the login").because(error);
        let typed = self.0.try_clone().map_err(failed)?;
        let ending = block_on(async {
            // Before the prompt: who sees it may type at once.
            let dialog = Dialog::begin(&self.0, echo).map_err(failed)?;
            (&self.0).write_all(printable(prompt).as_bytes()).map_err(failed)?;
            let interrupt = dialog.interrupt();
            blocking(move || line(&typed, interrupt).map_err(failed)).await
        })?;
        let line = match ending {
            Ending::Finished(line) => line?.ok_or(INTERRUPT),
            Ending::Interrupted(signal) => Err(signal),
        };
        if line.is_err() || !echo {
            // A terminal that has gone away shows nothing anyway.
            (&self.0).write_all(b"\n").unwrap_or_default();
        }
        let line = match line {
            Ok(line) => String::from_utf8(line).map_err(std::io::Error::other).map_err(failed)?,
            Err(signal) => return Ok(Ending::Interrupted(signal)),
        };
        Ok(Ending::Finished(line.trim_end_matches('\r').to_owned()))
    }
}

/// Reads a line, unless it ends with Ctrl-C.
fn line(terminal: &fs_err::File, interrupt: u8) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    for byte in BufReader::new(terminal).bytes() {
        match byte? {
            b'\n' => break,
            byte if byte == interrupt => return Ok(None),
            byte => line.push(byte),
        }
    }
    Ok(Some(line))
}

/// A terminal at which Ctrl-C ends the line and not the process, and what is typed is not shown, until this is dropped:
/// a process that was ended would leave it like that.
struct Dialog<'a> {
    terminal: &'a fs_err::File,
    before: Termios,
}

impl<'a> Dialog<'a> {
    fn begin(terminal: &'a fs_err::File, echo: bool) -> std::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let dialog = Self { terminal, before };
        let mut during = dialog.before.clone();
        during.local_modes.remove(LocalModes::ISIG);
        during.local_modes.set(LocalModes::ECHO, echo);
        during.special_codes[SpecialCodeIndex::VEOL] = dialog.interrupt();
        tcsetattr(terminal, OptionalActions::Flush, &during)?;
        Ok(dialog)
    }

    /// Returns what Ctrl-C sends.
    fn interrupt(&self) -> u8 {
        self.before.special_codes[SpecialCodeIndex::VINTR]
    }
}

impl Drop for Dialog<'_> {
    fn drop(&mut self) {
        // A terminal that has gone away shows nothing anyway.
        tcsetattr(self.terminal, OptionalActions::Now, &self.before).unwrap_or_default();
    }
}
