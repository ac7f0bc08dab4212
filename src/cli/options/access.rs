//! How a registry is got into, alike for every command that speaks with one: options, variables and files become the
//! library's values.

use std::{io::Read as _, path::PathBuf};

use longshore::{
    Error, Result,
    error::chain,
    registry::{ClientOptions, Credential, Credentials, Secret},
};

use crate::cli::{Context, environment::Environment};

/// Where logins are kept.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FileArgs {
    /// Keep and look for credentials in this file only
    #[arg(long, value_name = "FILE", alias = "dest-authfile", help_heading = "Access")]
    authfile: Option<PathBuf>,
}

/// Options of how to connect, and whom to trust.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AccessArgs {
    #[command(flatten)]
    pub(in crate::cli) files: FileArgs,
    /// The registry's certificates, instead of `certs.d/HOST`: authorities `*.crt`, ours `NAME.cert` and `NAME.key`
    #[arg(long, value_name = "DIR", alias = "dest-cert-dir", help_heading = "Access")]
    cert_dir: Option<PathBuf>,
    /// Trust the certificate authorities in this file too
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    ca_file: Option<PathBuf>,
    /// Speak HTTP/2 where the registry offers it over TLS: one connection for everything
    #[arg(long, help_heading = "Access")]
    http2: bool,
    /// Do not check the registry's certificate, and do without TLS where it has none
    #[arg(long, help_heading = "Access")]
    insecure: bool,
    /// What other tools call `--insecure`
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        alias = "dest-tls-verify",
        hide = true
    )]
    tls_verify: Option<bool>,
    /// Speak plain HTTP (the default on loopback)
    #[arg(long, help_heading = "Access")]
    plain_http: bool,
}

/// Options of who somebody is, for this command only.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CredsArgs {
    /// The user to log in as
    ///
    /// The password comes by `--password-stdin`; a token instead of both by LONGSHORE_TOKEN.
    #[arg(long, value_name = "USER", alias = "dest-creds", help_heading = "Access")]
    creds: Option<String>,
    /// Read the password from standard input
    #[arg(long, help_heading = "Access")]
    pub(in crate::cli) password_stdin: bool,
}

impl AccessArgs {
    /// Returns how to speak with `host` about a repository of it. Credentials are another matter.
    pub(in crate::cli) fn options(
        &self,
        host: &str,
        repository: &str,
        context: &Context,
    ) -> Result<ClientOptions> {
        let conf = context.environment.registries_conf()?;
        let rule = conf.rule(host, repository);
        if let Some(rule) = rule.filter(|rule| rule.blocked) {
            let words = format!("`{}` is blocked in `{}`", rule.prefix, rule.file.display());
            return Err(Error::local(words).with_hint("`blocked = false` there lets longshore through"));
        }
        let mut options = ClientOptions {
            http2: self.http2,
            plain_http: self.plain_http,
            insecure: self.insecure
                || self.tls_verify.map_or_else(|| rule.is_some_and(|rule| rule.insecure), |verify| !verify),
            proxies: context.environment.proxies()?,
            ..ClientOptions::default()
        };
        let certificates = &mut options.certificates;
        match &self.cert_dir {
            Some(dir) => certificates.read_dir(dir)?,
            None => certificates.read_host(&context.environment.certificates(), host)?,
        }
        if let Some(file) = &self.ca_file {
            certificates.trust_file(file)?;
        }
        Ok(options)
    }
}

impl FileArgs {
    /// Returns the file that logins are kept in.
    pub(in crate::cli) fn login_file(&self, environment: &Environment) -> Result<PathBuf> {
        environment.login_file(self.authfile.as_deref())
    }

    /// Returns the files in which logins are looked for, in order.
    pub(in crate::cli) fn auth_files(&self, environment: &Environment) -> Vec<PathBuf> {
        environment.auth_files(self.authfile.as_deref())
    }

    /// Returns the places that hold credentials, in the order in which they are asked.
    fn kept(&self, context: &Context) -> Result<Credentials> {
        let Context { environment, printer, .. } = context;
        let mut credentials = Credentials::default();
        let files = || self.auth_files(environment);
        if environment.auth_file(self.authfile.as_deref()).is_some() {
            for file in files() {
                credentials.give_file(&file);
            }
            return Ok(credentials);
        }
        if let Some(json) = environment.var(AUTH_CONFIG)
            && let Err(error) = credentials.give_text(AUTH_CONFIG, json)
        {
            // GitLab's runners mean something else by it (gh:docker/cli#6171).
            printer.warning(&format!("`{AUTH_CONFIG}` is ignored: {}", chain(&error)));
        }
        let conf = environment.registries_conf()?;
        match conf.credential_helpers() {
            None => files().iter().for_each(|file| credentials.give_file(file)),
            Some(helpers) => give_helpers(&mut credentials, helpers, &files()),
        }
        Ok(credentials)
    }
}

/// Adds helpers, one of which stands for the files.
fn give_helpers(credentials: &mut Credentials, helpers: &[String], files: &[PathBuf]) {
    for helper in helpers {
        match helper.as_str() {
            "containers-auth.json" => files.iter().for_each(|file| credentials.give_file(file)),
            name => credentials.give_helper("`registries.conf`", name),
        }
    }
}

impl CredsArgs {
    /// Returns what may be shown to registries: what was typed, or what is kept.
    pub(in crate::cli) fn credentials(&self, access: &AccessArgs, context: &Context) -> Result<Credentials> {
        let mut credentials = Credentials::default();
        if let Some(user) = &self.creds {
            if user.contains(':') {
                return Err(password_in_argv("give the user only: `--creds USER --password-stdin`"));
            }
            if !self.password_stdin {
                return Err(Error::usage("`--creds` has no password").with_hint("add `--password-stdin`"));
            }
            let password = password_from_stdin()?;
            credentials.give("--creds", Credential::Login { user: user.clone(), password });
        } else if self.password_stdin {
            return Err(Error::usage("`--password-stdin` has no user").with_hint("add `--creds USER`"));
        } else if let Some(token) = context.environment.var("LONGSHORE_TOKEN") {
            let token = token.trim_end_matches(LINE_END);
            credentials.give("LONGSHORE_TOKEN", Credential::Token(Secret::new(token)));
        } else {
            return access.files.kept(context);
        }
        Ok(credentials)
    }
}

/// Reads a password that another program writes.
pub(in crate::cli) fn password_from_stdin() -> Result<Secret> {
    let mut password = Vec::new();
    std::io::stdin()
        .take(PASSWORD_LIMIT + 1)
        .read_to_end(&mut password)
        .map_err(|error| Error::local("reading the password from standard input").because(error))?;
    if password.len() as u64 > PASSWORD_LIMIT {
        return Err(Error::usage("what standard input holds is too long for a password"));
    }
    let password = String::from_utf8(password)
        .map_err(|_| Error::usage("the password on standard input is no text in UTF-8"))?;
    let password = password.trim_end_matches(LINE_END);
    if password.is_empty() {
        // What `echo "$TOKEN"` writes where nobody has set it.
        return Err(Error::usage("the password on standard input is empty"));
    }
    Ok(Secret::new(password))
}

/// Refuses a password that came by the command line.
pub(in crate::cli) fn password_in_argv(hint: &str) -> Error {
    Error::usage("a password on the command line can be read by every user of this machine").with_hint(hint)
}

/// Tokens have some KiB; who pipes an archive into the wrong option shall not fill the memory.
const PASSWORD_LIMIT: u64 = 1 << 20;

/// What `echo` and a text editor add to a password or a token.
const LINE_END: [char; 2] = ['\r', '\n'];

/// Where docker takes credentials from before all files.
const AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";
