//! Where options have their values from: the command line, `LONGSHORE_…` variables, `config.toml`, defaults.
//!
//! Every option has a variable and a key, both by its own name. Both only replace defaults, the file's for all registries
//! or in a section for one. So clap takes none of them for typed, and what is typed counts against all of them: an option,
//! and what it cannot stand beside.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{BoolishValueParser, PossibleValue, TypedValueParser as _},
    error::ErrorKind as Clap,
    parser::ValueSource,
};
use longshore::{
    Error, Result,
    error::{Context as _, ErrorKind, no_toml, similar},
    oci::reference::{is_host, no_registry, registry_name},
};
use serde_json::json;
use toml::{Table, Value};

use super::{Context, ExitStatus, environment::Environment, options::value::meant};

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

/// What the variables and `config.toml` say.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    variables: Options,
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
        let unsaid = Self { variables: variables(environment, command)?, ..Self::default() };
        let Some((file, named)) = environment.config_file() else { return Ok(unsaid) };
        let text = match fs_err::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(unsaid),
            text => text.context(ErrorKind::Local, || "reading the configuration".to_owned())?,
        };
        let doing = format!("reading `{}`", file.display());
        let said = Self::parse(file, &text, command).map_err(|error| error.while_doing(doing))?;
        Ok(Self { variables: unsaid.variables, ..said })
    }

    fn parse(file: PathBuf, text: &str, command: &Command) -> Result<Self> {
        let known = known(command);
        let mut table: Table = text.parse().map_err(|error| no_toml(text, &error))?;
        let sections = match table.remove(REGISTRY) {
            None => Table::new(),
            Some(Value::Table(sections)) => sections,
            Some(_) => return Err(no_section(REGISTRY)),
        };
        let mut registries = BTreeMap::new();
        for (host, section) in sections {
            let Value::Table(section) = section else { return Err(no_section(&host)) };
            if !is_host(&host) {
                return Err(no_section(&host));
            }
            let host = registry_name(&host);
            if registries.insert(host.clone(), options(section, &known)?).is_some() {
                return Err(Error::local(format!("`{host}` has two sections")));
            }
        }
        Ok(Self { variables: Options::new(), file, defaults: options(table, &known)?, registries })
    }

    /// Reads the command line. What it leaves open is as the variables and the file say, for the registries that it names.
    pub(super) fn matches(&self, command: &Command) -> Result<Result<ArgMatches, clap::Error>> {
        let defaults = self.defaults_for(&[])?;
        let matches = match read(command, &defaults) {
            Ok(matches) => matches,
            error => return Ok(error),
        };
        let theirs = self.defaults_for(&hosts(&matches))?;
        Ok(if theirs == defaults { Ok(matches) } else { read(command, &theirs) })
    }

    /// Reads the command line as it is for these destinations.
    pub(super) fn matches_for(&self, command: &Command, destinations: &[String]) -> Result<ArgMatches> {
        let hosts: Vec<_> = destinations.iter().map(|destination| host(destination)).collect();
        read(command, &self.defaults_for(&hosts)?)
            .map_err(|error| Error::usage("reading the command line").because(error))
    }

    /// Returns what holds for all these registries.
    fn defaults_for(&self, hosts: &[String]) -> Result<Options> {
        let mut defaults = self.defaults.clone();
        let mut said = BTreeMap::new();
        for host in hosts {
            for key in self.registries.values().flat_map(Options::keys) {
                let value = self.registries.get(host).and_then(|section| section.get(key));
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
        defaults.extend(self.variables.clone());
        Ok(defaults)
    }

    /// Returns an option's value, and who says so.
    fn value<'a>(&'a self, option: &Arg, registry: Option<&'a str>) -> (Vec<String>, Origin<'a>) {
        let name = option.get_long().unwrap_or_default();
        let section = registry.and_then(|host| self.registries.get_key_value(host));
        if let Some(value) = self.variables.get(name) {
            (value.clone(), Origin::Variable)
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

/// Runs `longshore config`.
pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let Context { config, command, .. } = context;
    let Verb::Show { registry, json } = &args.command;
    let registry = registry.as_deref().map(host);
    if let Some(name) = registry.as_ref().filter(|name| !is_host(name)) {
        return Err(no_registry(name));
    }
    let known = known(command);
    let width = known.keys().map(|name| name.len()).max().unwrap_or_default();
    for (name, option) in known {
        let (value, origin) = config.value(option, registry.as_deref());
        let value = match (name, value.join(", ")) {
            // No push takes a password there, and nobody has to read it here.
            ("creds", value) => value.split(':').next().unwrap_or_default().to_owned(),
            (_, value) => value,
        };
        let origin = match origin {
            Origin::Variable => variable(name),
            Origin::Registry(host) => format!("{}, [{REGISTRY}.\"{host}\"]", config.file.display()),
            Origin::File => config.file.display().to_string(),
            Origin::Default => "default".to_owned(),
        };
        if *json {
            context.printer.json(&json!({ "option": name, "value": value, "from": origin }))?;
        } else {
            let value = if value.is_empty() { "-" } else { &value };
            context.printer.result(&format!("{name:width$}  {value:20}  {origin}"))?;
        }
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

/// Reads what variables say of options. One that is empty is as good as not set.
fn variables(environment: &Environment, command: &Command) -> Result<Options> {
    let mut options = Options::new();
    for (name, option) in known(command) {
        let variable = variable(name);
        if environment.is_unreadable(&variable) {
            return Err(Error::local(format!("the variable `{variable}` is not UTF-8")));
        }
        let Some(value) = environment.var(&variable) else { continue };
        // A switch is on or off by any word that says so.
        let is_on = match option.get_action() {
            ArgAction::SetTrue => BoolishValueParser::new().parse_ref(command, None, value.as_ref()).ok(),
            _ => None,
        };
        let value = is_on.map_or_else(|| value.to_owned(), |is_on| is_on.to_string());
        check(option, &variable, &value)?;
        options.insert(name.to_owned(), vec![value]);
    }
    Ok(options)
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

fn no_section(name: &str) -> Error {
    Error::local(format!("`{name}` is no section"))
        .with_hint("a section of a registry begins with `[registry.\"registry.example.com\"]`")
}

/// Reads the command line, with these defaults, less those that cannot stand beside what was typed.
fn read(command: &Command, defaults: &Options) -> Result<ArgMatches, clap::Error> {
    let matches = with_defaults(command.clone(), defaults).try_get_matches()?;
    let overruled = overruled(command, &matches);
    let left: Options = defaults
        .iter()
        .filter(|(name, _)| !overruled.contains(&name.as_str()))
        .map(|(name, values)| (name.clone(), values.clone()))
        .collect();
    if left == *defaults { Ok(matches) } else { with_defaults(command.clone(), &left).try_get_matches() }
}

/// Returns the options that clap would not have accepted besides what was typed.
fn overruled<'a>(command: &'a Command, matches: &ArgMatches) -> Vec<&'a str> {
    let is_typed =
        |option: &Arg| matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine);
    let overruled = conflicts(command).into_iter().filter(|(option, _)| is_typed(option));
    let own = overruled.filter_map(|(_, other)| other.get_long());
    let below = matches
        .subcommand()
        .and_then(|(name, matches)| Some(self::overruled(command.find_subcommand(name)?, matches)));
    own.chain(below.into_iter().flatten()).collect()
}

/// Returns which arguments cannot stand beside which, both ways: it is enough that one of two says so.
fn conflicts(command: &Command) -> Vec<(&Arg, &Arg)> {
    let of = |option| command.get_arg_conflicts_with(option).into_iter().map(move |other| (option, other));
    command.get_arguments().flat_map(of).flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

fn with_defaults(command: Command, defaults: &Options) -> Command {
    let command = command.mut_subcommands(|command| with_defaults(command, defaults));
    let default =
        |option: &Arg| option.get_long().filter(|_| is_settable(option)).and_then(|name| defaults.get(name));
    // What cannot stand beside a default is not asked for: SOURCE beside a list.
    let needless: Vec<_> = conflicts(&command)
        .into_iter()
        .filter(|(option, _)| {
            default(option).is_some_and(|values| !values.iter().all(|value| value == "false"))
        })
        .map(|(_, other)| other.get_id().clone())
        .collect();
    command.mut_args(|option| {
        let option = if needless.contains(option.get_id()) { option.required(false) } else { option };
        match default(&option) {
            Some(values) => option.default_values(values),
            None => option,
        }
    })
}

/// Returns the registries that a command line names.
fn hosts(matches: &ArgMatches) -> Vec<String> {
    let Some((_, matches)) = matches.subcommand() else { return Vec::new() };
    let words = |id| matches.try_get_many::<String>(id).ok().flatten().into_iter().flatten();
    // The words before the last are sources then.
    let is_index = matches.try_get_one("index").is_ok_and(|index| index == Some(&true));
    let destinations = words("destinations").rev().take(if is_index { 1 } else { usize::MAX });
    destinations.chain(words(REGISTRY)).chain(words("upstream")).map(|name| host(name)).collect()
}

/// Returns the registry that a destination names.
fn host(destination: &str) -> String {
    let name = destination.trim_start_matches("docker://");
    registry_name(name.split_once('/').map_or(name, |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{super::Cli, *};

    #[test]
    fn every_option_can_have_another_default() {
        let command = Cli::command();
        assert!(known(&command).len() > 20, "{:?}", known(&command).keys());
        with_defaults(command, &Options::from([("jobs".into(), vec!["3".into()])])).debug_assert();
    }

    #[test]
    fn what_is_typed_overrules_what_cannot_stand_beside_it() {
        let command = Cli::command();
        let defaults = ["all", "list", "quiet", "remove-signatures"];
        let defaults = defaults.map(|name| (name.to_owned(), vec!["true".to_owned()])).into();
        for (typed, left) in [
            ("longshore config show", &["all", "list", "quiet", "remove-signatures"][..]),
            ("longshore config show -v", &["all", "list", "remove-signatures"]),
            ("longshore -v push", &["all", "list", "remove-signatures"]),
            ("longshore push a b", &["all", "quiet", "remove-signatures"]),
            ("longshore push --list a", &["list", "quiet", "remove-signatures"]),
            ("longshore push --referrers", &["all", "list", "quiet"]),
            ("longshore logout a", &["list", "quiet", "remove-signatures"]),
        ] {
            let matches = with_defaults(command.clone(), &defaults);
            let matches = matches.try_get_matches_from(typed.split(' ')).unwrap();
            let overruled = overruled(&command, &matches);
            let names = defaults.keys().filter(|name| !overruled.contains(&name.as_str()));
            assert_eq!(names.collect::<Vec<_>>(), left, "{typed}");
        }
    }
}
