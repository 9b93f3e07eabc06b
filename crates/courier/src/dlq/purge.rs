//! `courier dlq purge`.
//!
//! Rules: what is removed is what was counted when it was asked: letters that arrive meanwhile stay.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use kafka_courier::dlq::{Position, letters};

use super::select::ChosenArgs;
use super::store_failed;
use crate::exit::{Exit, Refusal};

/// Letters that are removed at once.
const AT_ONCE: usize = 1000;

#[derive(Args, Debug)]
pub(super) struct PurgeArgs {
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    chosen: ChosenArgs,
}

pub(super) fn run(args: &PurgeArgs) -> Result<Exit, Refusal> {
    let selection = args.chosen.selection("dlq purge")?;
    if !args.yes && !io::stdin().is_terminal() {
        let why = "dlq purge: nobody is there to be asked whether to remove them for ever: say --yes";
        return Err(Refusal(Exit::Usage, why.to_owned()));
    }
    let opened = args.chosen.store.open_to_remove()?;
    let found = letters(&*opened.store, &selection).take(args.chosen.letters.most());
    let positions: Vec<Position> =
        found.map(|held| held.map(|held| held.position)).collect::<Result<_, _>>().map_err(store_failed)?;
    let count = super::letters(positions.len() as u64);
    if !positions.is_empty()
        && !args.yes
        && !ask(&format!("remove {count} of {} for ever? [y/N] ", opened.store.name()))
    {
        crate::say("nothing was removed");
        return Ok(Exit::Ok);
    }
    let mut removed = 0;
    for some in positions.chunks(AT_ONCE) {
        removed += opened.store.remove(some).map_err(|error| {
            let before = super::letters(removed as u64);
            Refusal(Exit::Io, format!("{error} ({before} removed before)"))
        })?;
    }
    crate::say(&format!("{} removed", super::letters(removed as u64)));
    Ok(Exit::Ok)
}

/// Asks on the terminal; anything but yes is no.
fn ask(question: &str) -> bool {
    let mut err = io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(err, "courier: {question}").and_then(|()| err.flush());
    asked.and_then(|()| io::stdin().lock().read_line(&mut answer)).is_ok()
        && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
