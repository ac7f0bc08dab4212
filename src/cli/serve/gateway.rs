//! `serve --upstream`: where pushes are passed on to, and who may have that done.
//!
//! Whoever uses a gateway uses its upstream by our credentials. So it asks for a login unless it is told otherwise, and
//! where no users are named it makes one up.

use std::{net::SocketAddr, path::PathBuf};

use longshore::{Error, Result, oci::Repository, push::Resume, server::Upstream};

use crate::cli::{
    Context,
    login::registry,
    options::{
        access::{AccessArgs, CredsArgs},
        transfer::TransferArgs,
    },
    random_login::RandomLogin,
};

/// Options of a gateway.
#[derive(Debug, clap::Args)]
pub(super) struct GatewayArgs {
    /// Pass pushes on to this registry, in chunks and with our login there, and take pulls from it: HOST[:PORT][/PREFIX],
    /// where PREFIX stands before every repository
    #[arg(long, value_name = "REGISTRY", conflicts_with = "images", help_heading = UPSTREAM)]
    upstream: Option<String>,
    /// Let everybody who reaches this gateway use the upstream by our credentials
    #[arg(long, help_heading = CLIENTS)]
    pub(super) allow_anonymous: bool,
    /// Write the password that a gateway makes up, for the user `longshore`, to this file and not to standard error
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["allow_anonymous", "htpasswd"],
        help_heading = CLIENTS
    )]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    transfer: TransferArgs,
    #[command(flatten)]
    creds: CredsArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// The heading of who may use a registry that we serve.
pub(super) const CLIENTS: &str = "Clients";
/// The heading of how its upstream is spoken with.
const UPSTREAM: &str = "Upstream";

/// Puts what other commands say of their registry under the heading of the upstream.
pub(in crate::cli) fn under_upstream(arg: clap::Arg) -> clap::Arg {
    match arg.get_help_heading() {
        Some("Access" | "Transfer") => arg.help_heading(UPSTREAM),
        _ => arg,
    }
}

impl GatewayArgs {
    /// Returns whether this is a gateway.
    pub(super) const fn is_one(&self) -> bool {
        self.upstream.is_some()
    }

    /// Returns the upstream, if there is one.
    pub(super) fn upstream(&self, listen: SocketAddr, context: &Context) -> Result<Option<Upstream>> {
        let Some(upstream) = &self.upstream else { return Ok(None) };
        let key = registry(upstream)?;
        let mut own = vec![listen.to_string(), format!("localhost:{}", listen.port())];
        if listen.ip().is_unspecified() {
            own.extend(["127.0.0.1", "[::1]"].map(|loopback| format!("{loopback}:{}", listen.port())));
        }
        if own.iter().any(|own| own == key.host()) {
            return Err(Error::usage(format!("the gateway would be its own upstream: `{}`", key.host()))
                .with_hint("`--listen ADDRESS` puts it elsewhere"));
        }
        let repository = Repository { host: key.host().to_owned(), path: key.path().to_owned() };
        let credentials = self.creds.credentials(&self.access, context)?;
        let rate_limit = self.transfer.rate_limit()?;
        let client = self.transfer.client(&repository, &self.access, credentials, rate_limit, context)?;
        let options = self.transfer.options(context);
        if let Resume::Keep(unfinished) = &options.resume {
            unfinished.sweep();
        }
        let prefix = Some(repository.path).filter(|path| !path.is_empty());
        Ok(Some(Upstream { client, prefix, options }))
    }

    /// Makes up a login, where a gateway needs one.
    pub(super) fn login(
        &self,
        has_users: bool,
        read_only: bool,
        context: &Context,
    ) -> Result<Option<RandomLogin>> {
        if !self.is_one() {
            return match (self.allow_anonymous, &self.password_file) {
                (false, None) => Ok(None),
                (true, _) => Err(no_gateway("--allow-anonymous")),
                (false, Some(_)) => Err(no_gateway("--password-file")),
            };
        }
        if read_only && !self.allow_anonymous {
            let words =
                "with `--read-only` everybody may pull, and from an upstream that is by our credentials";
            return Err(Error::usage(words).with_hint("`--allow-anonymous` says that they may"));
        }
        if self.allow_anonymous && has_users && !read_only {
            let words = "`--htpasswd` asks for a login, and `--allow-anonymous` does not";
            return Err(
                Error::usage(words).with_hint("`--read-only` besides lets everybody pull, and users push")
            );
        }
        if self.allow_anonymous || has_users {
            return match &self.password_file {
                None => Ok(None),
                Some(_) => Err(Error::usage("no password is made up that `--password-file` could keep")),
            };
        }
        if self.password_file.is_none() && !context.printer.says_status() {
            return Err(Error::usage("nobody would see the password that the gateway makes up")
                .with_hint("`--password-file FILE` keeps it"));
        }
        Ok(Some(RandomLogin::new()))
    }

    /// Tells how to log in at `place`, once it is ours: the file may be that of another gateway there.
    pub(super) fn tell(
        &self,
        login: &RandomLogin,
        place: &str,
        has_tls: bool,
        context: &Context,
    ) -> Result<()> {
        let (known, from) = match &self.password_file {
            Some(file) => {
                login.write(file)?;
                (format!("in `{}`", file.display()), format!(" < {}", file.display()))
            }
            None => (format!("`{}`", login.password()), String::new()),
        };
        let tls = if has_tls { "" } else { " --tls-verify=false" };
        let user = RandomLogin::USER;
        context.printer.status(&format!("clients log in as `{user}`, with the password {known}:"));
        context
            .printer
            .status(&format!("  podman login{tls} --username {user} --password-stdin {place}{from}"));
        Ok(())
    }
}

fn no_gateway(option: &str) -> Error {
    Error::usage(format!("`{option}` is for gateways")).with_hint("`--upstream REGISTRY` makes one")
}

/// Returns what clients call a registry at this address.
pub(super) fn place(names: &[String], address: SocketAddr) -> String {
    names.first().map_or_else(|| address.to_string(), |name| format!("{name}:{}", address.port()))
}
