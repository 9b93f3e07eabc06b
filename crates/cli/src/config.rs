//! `courier config`: every setting with its value and its source.
//!
//! Rules:
//! - The output is a file for `--config`.
//! - The output shows that a secret is set, never its value.

use std::io::{self, Write};

use clap::Args;
use kafka_courier::{EffectiveOption, KafkaConfig};

use crate::exit::{CommandError, Exit};
use crate::files::CommandFiles;
use crate::settings::SettingsArgs;

/// Print every setting with its value and its source
///
/// The source is the default, a file, a variable or an argument. The output is a settings file for --config, without
/// secrets. Needs no Kafka.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// Describe each option, with its variable and its default
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs the command.
pub(crate) fn run(args: &ConfigArgs) -> Exit {
    let mut files = CommandFiles::new();
    files.settings(args.settings.file());
    if let Err(CommandError(exit, why)) = files.check() {
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
    if let Err(CommandError(exit, why)) = files.check() {
        crate::say(&why);
        return exit;
    }
    match print(&mut io::stdout().lock(), &loaded.effective(), args.explain) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            crate::say(&format!("cannot write standard output: {error}"));
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

/// Returns a line of TOML. The line of a secret is a comment. An option is a boolean if its `default` is one.
fn line(option: &EffectiveOption, default: &str) -> String {
    let is_number = !option.value.is_empty() && option.value.bytes().all(|byte| byte.is_ascii_digit());
    let is_bool = matches!(default, "true" | "false");
    let hidden = if option.secret && !option.value.is_empty() { "# " } else { "" };
    match is_number || is_bool {
        true => format!("{hidden}{} = {}", option.name, option.value),
        false => format!("{hidden}{} = {}", option.name, quoted(&option.value)),
    }
}

/// Returns a basic string of TOML.
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
