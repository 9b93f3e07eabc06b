//! `courier config`: the settings as they are, and where each comes from.
//!
//! Rules: what it prints is a file that `--config` takes; a secret is told to be set, never what it is.

use std::io::{self, Write};

use clap::Args;
use kafka_courier::{EffectiveOption, KafkaConfig};

use crate::exit::{Exit, Refusal};
use crate::files::Files;
use crate::settings::SettingsArgs;

/// Prints every option as it is set, and where: default, file, environment or argument. What is printed is a file of settings
/// that --config takes; secrets are left out. Needs no Kafka.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Says above each option what it does, its variable and its default.
    #[arg(long)]
    explain: bool,
}

/// Runs the command.
pub(crate) fn run(args: &ConfigArgs) -> Exit {
    let mut files = Files::new();
    files.settings(args.settings.file());
    if let Err(Refusal(exit, why)) = files.check() {
        crate::say(&why);
        return exit;
    }
    let loaded = match args.settings.load() {
        Ok(loaded) => loaded,
        Err(errors) => {
            crate::say(&errors.to_string());
            return Exit::Config;
        }
    };
    files.named_by(&loaded);
    if let Err(Refusal(exit, why)) = files.check() {
        crate::say(&why);
        return exit;
    }
    match print(&mut io::stdout().lock(), &loaded.effective(), args.explain) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            crate::say(&format!("standard output: {error}"));
            Exit::Io
        }
    }
}

fn print(out: &mut impl Write, options: &[EffectiveOption], explain: bool) -> io::Result<()> {
    let docs = KafkaConfig::options();
    let lines: Vec<String> = options.iter().zip(&docs).map(|(option, doc)| line(option, &doc.default)).collect();
    let width = lines.iter().map(String::len).max().unwrap_or_default().min(60);
    for ((line, option), doc) in lines.iter().zip(options).zip(&docs) {
        if explain {
            writeln!(out, "\n# {}\n# {}, default {:?}", doc.help, doc.variable, doc.default)?;
        }
        writeln!(out, "{line:width$}  # {}", option.origin)?;
    }
    out.flush()
}

/// A line of TOML; a secret's is a comment. A yes or no is told by its `default`.
fn line(option: &EffectiveOption, default: &str) -> String {
    let is_number = !option.value.is_empty() && option.value.bytes().all(|byte| byte.is_ascii_digit());
    let is_bool = matches!(default, "true" | "false");
    let hidden = if option.secret && !option.value.is_empty() { "# " } else { "" };
    match is_number || is_bool {
        true => format!("{hidden}{} = {}", option.name, option.value),
        false => format!("{hidden}{} = {}", option.name, quoted(&option.value)),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if crate::terminal::is_unprintable(c) => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
