//! The arguments and variables of `courier serve`, made from the gateway's table of options.
//!
//! Rules:
//! - An argument takes precedence over its variable, and the variable over the default.
//! - An error does not show the value.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use kafka_courier_gateway::{GatewayConfig, GatewayOption};

/// The prefix of the variables.
const PREFIX: &str = "COURIER_SERVE_";
const HEADING: &str = "Service";

/// The gateway's options on the command line and in the environment.
#[derive(Clone, Debug)]
pub(super) struct ServeOptions(pub(super) GatewayConfig);

fn argument(option: &GatewayOption) -> Arg {
    let argument = Arg::new(option.name)
        .long(option.name.replace('_', "-"))
        .env(format!("{PREFIX}{}", option.name.to_uppercase()))
        .hide_env_values(true)
        .help(format!("{} [default: {}]", option.help.trim_end_matches('.'), shown_default(option)))
        .help_heading(HEADING);
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
        let mut options = Self(GatewayConfig::default());
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for option in GatewayConfig::options() {
            // An empty variable counts as unset.
            let Some(text) = matches.get_one::<String>(option.name).filter(|text| !text.is_empty()) else { continue };
            self.0.set(option.name, text).map_err(|error| {
                let name = option.name.replace('_', "-");
                let why = format!("invalid value for --{name}: expected {}\n", error.expected);
                clap::Error::raw(ErrorKind::ValueValidation, why)
            })?;
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
        ServeOptions::from_arg_matches(&matches).map(|options| options.0)
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
}
