//! `courier dlq show`.

use std::io::{self, Write};

use clap::Args;
use kafka_courier::dlq::{DeadLetterStore, Letter, LetterId, Position, Selection, letters};

use super::store::StoreArgs;
use super::{output_failed, store_failed};
use crate::exit::{CommandError, Exit};

/// Show dead letters with all their fields
#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Print each dead letter as a line of JSON, as export writes it
    #[arg(long)]
    json: bool,
    /// Show the dead letters with these ids, which list prints
    #[arg(value_name = "ID", required = true)]
    ids: Vec<LetterId>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &ShowArgs) -> Result<Exit, CommandError> {
    let opened = args.store.open_to_read()?;
    let mut out = io::stdout().lock();
    let mut exit = Exit::Ok;
    for id in &args.ids {
        match find(&*opened.store, *id)? {
            Some(letter) if args.json => super::export::write_line(&mut out, &letter, output_failed)?,
            Some(letter) => writeln!(out, "{}", pretty(&letter)?).map_err(output_failed)?,
            None => {
                crate::say(&format!(
                    "{} has no dead letter {id}: it may have been delivered, found in the log, or purged",
                    opened.store.name()
                ));
                exit = Exit::Data;
            }
        }
    }
    Ok(exit)
}

fn find(store: &dyn DeadLetterStore, id: LetterId) -> Result<Option<Letter>, CommandError> {
    let at = store.find(&[id]).map_err(store_failed)?;
    if let Some(Some(position)) = at.first() {
        let before = position.0.checked_sub(1).map(Position);
        let page = store.scan(before, 1).map_err(store_failed)?;
        if let Some(held) = page.into_iter().find(|held| held.letter.id == id) {
            return Ok(Some(held.letter));
        }
    }
    // The index of a topic has only the dead letters that were read.
    let selection = Selection { ids: vec![id], ..Selection::all() };
    letters(store, &selection).next().transpose().map(|held| held.map(|held| held.letter)).map_err(store_failed)
}

/// Returns the dead letter as JSON over several lines.
fn pretty(letter: &Letter) -> Result<String, CommandError> {
    let failed = |error: serde_json::Error| CommandError(Exit::Data, format!("dead letter {}: {error}", letter.id));
    let value = serde_json::to_value(letter).map_err(failed)?;
    serde_json::to_string_pretty(&value).map_err(failed)
}
