//! The arguments, variables and settings of `courier serve`, made from the gateway's table of options.
//!
//! Rules:
//! - An argument takes precedence over its variable, the variable over the table `[serve]` of the settings file, and the table over
//!   the default.
//! - An error does not show the value.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use kafka_courier::Secret;
use kafka_courier_gateway::{GatewayConfig, GatewayOption, OptionError};

/// The prefix of the variables.
const PREFIX: &str = "COURIER_SERVE_";
/// The gateway's options on the command line and in the environment, in the order of the table.
#[derive(Clone, Debug)]
pub(super) struct ServeOptions(Vec<(&'static str, String)>);

/// Why the table of a settings file is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TableError {
    /// The table has a name that is no option.
    #[error("[serve] has a name that is no option of courier serve: see courier serve --help")]
    Unknown,
    /// A value is invalid.
    #[error("[serve] {0}")]
    Value(#[from] OptionError),
}

impl ServeOptions {
    /// Returns the options over those of the table of a settings file.
    pub(super) fn over(&self, table: &[(String, Secret)]) -> Result<GatewayConfig, TableError> {
        let (options, mut config) = (GatewayConfig::options(), GatewayConfig::default());
        for (name, value) in table {
            let option = options.iter().find(|option| option.name == name).ok_or(TableError::Unknown)?;
            config.set(option.name, value.expose())?;
        }
        for (name, text) in &self.0 {
            config.set(name, text)?;
        }
        Ok(config)
    }
}

fn argument(option: &GatewayOption) -> Arg {
    let argument = Arg::new(option.name)
        .long(option.name.replace('_', "-"))
        .env(format!("{PREFIX}{}", option.name.to_uppercase()))
        .hide_env_values(true)
        .help(format!("{} [default: {}]", option.help.trim_end_matches('.'), shown_default(option)))
        .help_heading(option.group.heading());
    match option.is_switch {
        true => argument.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
        false => argument.value_name("VALUE"),
    }
}

fn shown_default(option: &GatewayOption) -> &str {
    if option.default.is_empty() { "none" } else { &option.default }
}

impl Args for ServeOptions {
    fn augment_args(command: Command) -> Command {
        GatewayConfig::options().iter().fold(command, |command, option| command.arg(argument(option)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self(Vec::new());
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let mut checked = GatewayConfig::default();
        for option in GatewayConfig::options() {
            // An empty variable counts as unset.
            let Some(text) = matches.get_one::<String>(option.name).filter(|text| !text.is_empty()) else { continue };
            checked.set(option.name, text).map_err(|error| {
                let name = option.name.replace('_', "-");
                let why = format!("invalid value for --{name}: expected {}\n", error.expected);
                clap::Error::raw(ErrorKind::ValueValidation, why)
            })?;
            self.0.push((option.name, text.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<GatewayConfig, clap::Error> {
        let command = ServeOptions::augment_args(Command::new("serve"));
        let matches = command.try_get_matches_from(std::iter::once("serve").chain(arguments.iter().copied()))?;
        ServeOptions::from_arg_matches(&matches).map(|options| options.over(&[]).unwrap())
    }

    #[test]
    fn every_option_has_an_argument() {
        let options = GatewayConfig::options();
        let arguments: Vec<String> =
            options.iter().map(|option| format!("--{}={}", option.name.replace('_', "-"), option.default)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(parse(&arguments).unwrap(), GatewayConfig::default());
        let config = parse(&["--idle-timeout", "3s", "--insecure-no-auth"]).unwrap();
        assert_eq!((config.idle_timeout, config.insecure_no_auth), (Duration::from_secs(3), true));
    }

    #[test]
    fn errors_do_not_show_the_value() {
        let error = parse(&["--idle-timeout", "hunter2"]).unwrap_err().to_string();
        assert!(error.contains("--idle-timeout: expected a time") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn arguments_precede_the_table() {
        let command = ServeOptions::augment_args(Command::new("serve"));
        let matches = command.try_get_matches_from(["serve", "--idle-timeout", "3s"]).unwrap();
        let options = ServeOptions::from_arg_matches(&matches).unwrap();
        let table = |name: &str, value: &str| vec![(name.to_owned(), Secret::from(value))];
        let both = [table("idle_timeout", "9s"), table("grace", "7s")].concat();
        let config = options.over(&both).unwrap();
        assert_eq!((config.idle_timeout, config.grace), (Duration::from_secs(3), Duration::from_secs(7)));
        let unknown = options.over(&table("hunter2", "x")).unwrap_err();
        assert!(unknown == TableError::Unknown && !unknown.to_string().contains("hunter2"));
        let invalid = options.over(&table("grace", "hunter2")).unwrap_err().to_string();
        assert!(invalid.starts_with("[serve] grace: expected") && !invalid.contains("hunter2"), "{invalid}");
    }
}
