//! Where options have their values from: the command line, `LONGSHORE_…` variables, `config.toml`, defaults.
//!
//! Every option has a variable and a key, both by its own name. The file only replaces defaults, for all registries
//! or in a section for one, so clap knows no more of it than of any other default.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{FalseyValueParser, PossibleValue},
    error::ErrorKind as Clap,
};
use longshore::{
    Error, Result,
    error::{Context as _, ErrorKind, similar},
};
use serde_json::json;
use toml::{Table, Value};

use super::{Context, ExitStatus, environment::Environment, value::meant};

/// Say what options are set to, and where that is said
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Every option, its value, and where that comes from
    Show {
        /// As it is for this registry: HOST[:PORT]
        registry: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What `config.toml` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    file: PathBuf,
    defaults: Options,
    registries: BTreeMap<String, Options>,
}

/// Values of options, by name.
type Options = BTreeMap<String, Vec<String>>;

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
enum Origin<'a> {
    Variable,
    Registry(&'a str),
    File,
    Default,
}

impl Config {
    /// Reads the variables, and the file, if there is one. `command` knows the options.
    pub(super) fn read(environment: &Environment, command: &Command) -> Result<Self> {
        check_variables(environment, command)?;
        let Some((file, named)) = environment.config_file() else { return Ok(Self::default()) };
        let text = match fs_err::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
                return Ok(Self::default());
            }
            text => text.context(ErrorKind::Local, || "reading the configuration".to_owned())?,
        };
        Self::parse(file.clone(), &text, command)
            .map_err(|error| error.while_doing(format!("reading `{}`", file.display())))
    }

    fn parse(file: PathBuf, text: &str, command: &Command) -> Result<Self> {
        let known = known(command);
        let mut table: Table = text.parse().map_err(|error| no_toml(text, &error))?;
        let sections = match table.remove(REGISTRY) {
            None => Table::new(),
            Some(Value::Table(sections)) => sections,
            Some(_) => return Err(no_section(REGISTRY)),
        };
        let registries = sections
            .into_iter()
            .map(|(host, section)| match section {
                Value::Table(section) => Ok((host, options(section, &known)?)),
                _ => Err(no_section(&host)),
            })
            .collect::<Result<_>>()?;
        Ok(Self { file, defaults: options(table, &known)?, registries })
    }

    /// Reads the command line. What it leaves open is as the file says, for the registries that it names.
    pub(super) fn matches(&self, command: &Command) -> Result<Result<ArgMatches, clap::Error>> {
        let parse = |defaults: &Options| with_defaults(command.clone(), defaults).try_get_matches();
        let matches = match parse(&self.defaults) {
            Ok(matches) => matches,
            error => return Ok(error),
        };
        let defaults = self.defaults_for(&hosts(&matches))?;
        Ok(if defaults == self.defaults { Ok(matches) } else { parse(&defaults) })
    }

    /// Reads the command line as it is for these destinations.
    pub(super) fn matches_for(&self, command: &Command, destinations: &[String]) -> Result<ArgMatches> {
        let hosts: Vec<_> = destinations.iter().map(|destination| host(destination)).collect();
        with_defaults(command.clone(), &self.defaults_for(&hosts)?)
            .try_get_matches()
            .map_err(|error| Error::usage("reading the command line").because(error))
    }

    /// Returns what holds for all these registries.
    fn defaults_for(&self, hosts: &[&str]) -> Result<Options> {
        let mut defaults = self.defaults.clone();
        let mut said = BTreeMap::new();
        for host in hosts {
            for key in self.registries.values().flat_map(Options::keys) {
                let value = self.registries.get(*host).and_then(|section| section.get(key));
                if said.insert(key, value).is_some_and(|other| other != value) {
                    let file = self.file.display();
                    return Err(Error::usage(format!(
                        "`{file}` has another `{key}` for each of the registries"
                    ))
                    .with_hint("push to one registry at a time"));
                }
                if let Some(value) = value {
                    defaults.insert(key.clone(), value.clone());
                }
            }
        }
        Ok(defaults)
    }

    /// Returns an option's value, and who says so.
    fn value<'a>(
        &'a self,
        option: &Arg,
        registry: Option<&'a str>,
        environment: &Environment,
    ) -> (Vec<String>, Origin<'a>) {
        let name = option.get_long().unwrap_or_default();
        let section = registry.and_then(|host| self.registries.get_key_value(host));
        if let Some(value) = environment.var(&variable(name)) {
            (vec![value.to_owned()], Origin::Variable)
        } else if let Some((host, value)) =
            section.and_then(|(host, section)| Some((host, section.get(name)?)))
        {
            (value.clone(), Origin::Registry(host))
        } else if let Some(value) = self.defaults.get(name) {
            (value.clone(), Origin::File)
        } else {
            let values = option.get_default_values().iter();
            (values.map(|value| value.to_string_lossy().into_owned()).collect(), Origin::Default)
        }
    }
}

/// Gives every option of `command` a variable. One that is empty is as good as not set.
pub(super) fn with_variables(command: Command, environment: &Environment) -> Command {
    let command = command.mut_subcommands(|command| with_variables(command, environment));
    command.mut_args(|option| match option.get_long().map(variable) {
        Some(variable) if is_settable(&option) && !environment.is_blank(&variable) => {
            // That there is one is said once, and not at every option.
            let option = option.env(variable).hide_env(true);
            match option.get_action() {
                ArgAction::SetTrue => option.value_parser(FalseyValueParser::new()),
                _ => option,
            }
        }
        _ => option,
    })
}

/// Runs `longshore config`.
pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let Context { config, command, .. } = context;
    let Verb::Show { registry, json } = &args.command;
    let known = known(command);
    let width = known.keys().map(|name| name.len()).max().unwrap_or_default();
    for (name, option) in known {
        let (value, origin) = config.value(option, registry.as_deref(), &context.environment);
        let value = value.join(", ");
        let origin = match origin {
            Origin::Variable => variable(name),
            Origin::Registry(host) => format!("{}, [{REGISTRY}.\"{host}\"]", config.file.display()),
            Origin::File => config.file.display().to_string(),
            Origin::Default => "default".to_owned(),
        };
        context.printer.result(&if *json {
            json!({ "option": name, "value": value, "from": origin }).to_string()
        } else {
            let mut line = format!("{name:width$}  ");
            // Nothing can go wrong in memory.
            write!(line, "{:20}  {origin}", if value.is_empty() { "-" } else { &value }).unwrap_or_default();
            line
        })?;
    }
    Ok(ExitStatus::Success)
}

/// The table that holds a section for each registry.
const REGISTRY: &str = "registry";

/// Returns the options that a file or a variable can set, by name.
fn known(command: &Command) -> BTreeMap<&str, &Arg> {
    let below = command.get_subcommands().flat_map(known);
    let own = command.get_arguments().filter(|option| is_settable(option));
    below.chain(own.filter_map(|option| Some((option.get_long()?, option)))).collect()
}

/// Returns whether somebody might want an option always: not help, nor what is there for the habits of others, nor what
/// is counted.
fn is_settable(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue)
        && option.get_long().is_some()
        && !option.is_hide_set()
}

fn variable(name: &str) -> String {
    format!("LONGSHORE_{}", name.to_uppercase().replace('-', "_"))
}

/// Takes values for options out of a table of the file.
fn options(table: Table, known: &BTreeMap<&str, &Arg>) -> Result<Options> {
    let mut options = Options::new();
    for (key, value) in table {
        let Some(option) = known.get(key.as_str()) else {
            let error = Error::local(format!("there is no option `{key}`"));
            if value.is_table() {
                let hint = format!("what counts for one registry stands in `[{REGISTRY}.\"HOST\"]`");
                return Err(error.with_hint(hint));
            }
            return Err(match similar(&key, known.keys().copied()) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None => error.with_hint("`longshore config show` lists all"),
            });
        };
        let values = match value {
            Value::Array(values) if matches!(option.get_action(), ArgAction::Append) => {
                values.into_iter().map(text).collect::<Option<Vec<_>>>()
            }
            value => text(value).map(|value| vec![value]),
        };
        let values = values.ok_or_else(|| Error::local(format!("`{key}` cannot be a table or a list")))?;
        for value in &values {
            check(option, &key, value)?;
        }
        options.insert(key, values);
    }
    Ok(options)
}

/// Makes sure that options can be what variables say: clap would blame the option, which nobody has typed.
fn check_variables(environment: &Environment, command: &Command) -> Result<()> {
    for (name, option) in known(command) {
        let variable = variable(name);
        // A switch is on or off by any word.
        let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
        if let Some(value) = environment.var(&variable).filter(|_| !is_switch) {
            check(option, &variable, value)?;
        }
    }
    Ok(())
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => None,
    }
}

/// Makes sure that an option can have a value.
fn check(option: &Arg, key: &str, value: &str) -> Result<()> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value {
            "true" | "false" => Ok(()),
            _ => Err(Error::local(format!("`{key}` cannot be `{value}`: it is true or false"))),
        };
    }
    let alone = Arg::new("value").long("value").value_parser(option.get_value_parser().clone());
    let command = Command::new("check").no_binary_name(true).arg(alone);
    match command.try_get_matches_from([format!("--value={value}")]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let words = match (error.kind(), std::error::Error::source(&error)) {
                (Clap::ValueValidation, Some(cause)) => cause.to_string(),
                _ => format!("there are {}", values(option)),
            };
            let error = Error::local(format!("`{key}` cannot be `{value}`: {words}"));
            let words = option.get_possible_values();
            Err(match meant(value, words.iter().map(PossibleValue::get_name)) {
                Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                None => error,
            })
        }
    }
}

/// Lists what an option may be.
fn values(option: &Arg) -> String {
    let values = option.get_possible_values();
    values.iter().map(|value| format!("`{}`", value.get_name())).collect::<Vec<_>>().join(", ")
}

fn no_toml(text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    Error::local(format!("line {}: {}", before.lines().count().max(1), error.message()))
}

fn no_section(name: &str) -> Error {
    Error::local(format!("`{name}` is no section"))
        .with_hint("a section of a registry begins with `[registry.\"registry.example.com\"]`")
}

fn with_defaults(command: Command, defaults: &Options) -> Command {
    command.mut_subcommands(|command| with_defaults(command, defaults)).mut_args(|option| {
        match option.get_long().filter(|_| is_settable(&option)).and_then(|name| defaults.get(name)) {
            Some(values) => option.default_values(values),
            None => option,
        }
    })
}

/// Returns the registries that a command line names.
fn hosts(matches: &ArgMatches) -> Vec<&str> {
    let Some((_, matches)) = matches.subcommand() else { return Vec::new() };
    let words = |id| matches.try_get_many::<String>(id).ok().flatten().into_iter().flatten();
    // The words before the last are sources then.
    let is_index = matches.try_get_one("index").is_ok_and(|index| index == Some(&true));
    let destinations = words("destinations").rev().take(if is_index { 1 } else { usize::MAX });
    destinations.chain(words(REGISTRY)).chain(words("upstream")).map(|name| host(name)).collect()
}

/// Returns the registry that a destination names.
fn host(destination: &str) -> &str {
    let name = destination.trim_start_matches("docker://");
    name.split_once('/').map_or(name, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{super::Cli, *};

    #[test]
    fn every_option_has_a_variable_by_its_own_name() {
        let command = with_variables(Cli::command(), &Environment::read());
        let known = known(&command);
        assert!(known.len() > 20, "{:?}", known.keys());
        for (name, option) in known {
            assert_eq!(option.get_env().unwrap().to_str().unwrap(), variable(name));
        }
        with_defaults(command, &Options::from([("jobs".into(), vec!["3".into()])])).debug_assert();
    }
}
