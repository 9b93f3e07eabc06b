//! `courier dlq purge`.
//!
//! Rules: the command removes the dead letters that it counted before it asked. Later ones stay.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use kafka_courier::dlq::{Position, letters};

use super::select::ChosenArgs;
use super::store_failed;
use crate::exit::{CommandError, Exit};

/// Dead letters that are removed in one call.
const GROUP: usize = 1000;

/// Remove dead letters permanently
#[derive(Args, Debug)]
pub(super) struct PurgeArgs {
    /// Remove without confirmation (required without a terminal)
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    chosen: ChosenArgs,
}

pub(super) fn run(args: &PurgeArgs) -> Result<Exit, CommandError> {
    let selection = args.chosen.selection("dlq purge")?;
    if !args.yes && !io::stdin().is_terminal() {
        let why = "dlq purge: standard input is not a terminal, so the removal cannot be confirmed: pass --yes";
        return Err(CommandError(Exit::Usage, why.to_owned()));
    }
    let opened = args.chosen.store.open_to_remove()?;
    let found = letters(&*opened.store, &selection).take(args.chosen.letters.max_items());
    let positions: Vec<Position> =
        found.map(|held| held.map(|held| held.position)).collect::<Result<_, _>>().map_err(store_failed)?;
    let count = super::dead_letters(positions.len() as u64);
    if !positions.is_empty()
        && !args.yes
        && !confirm(&format!("permanently remove {count} from {}? [y/N] ", opened.store.name()))
    {
        crate::say("nothing was removed");
        return Ok(Exit::Ok);
    }
    let mut removed = 0;
    for some in positions.chunks(GROUP) {
        removed += opened.store.remove(some).map_err(|error| {
            let before = super::dead_letters(removed as u64);
            CommandError(Exit::Io, format!("{error} ({before} already removed)"))
        })?;
    }
    crate::say(&format!("{} removed", super::dead_letters(removed as u64)));
    Ok(Exit::Ok)
}

/// Asks on the terminal. Any answer but `y` and `yes` is no.
fn confirm(question: &str) -> bool {
    let mut err = io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(err, "courier: {question}").and_then(|()| err.flush());
    asked.and_then(|()| io::stdin().lock().read_line(&mut answer)).is_ok()
        && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
