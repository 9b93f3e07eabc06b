//! `courier spool adopt`.

use clap::Args;
use kafka_courier::SpoolOpenError;
use kafka_courier::spool::{self, SpoolHolder};

use super::folder::FolderArgs;
use super::{events, held};
use crate::exit::{CommandError, Exit};

/// Declare a spool the only copy that is in use
///
/// A producer refuses a spool that was copied or moved while it has undelivered events: both copies would deliver them. Run
/// this command in the folder that stays in use, and remove all other copies, or keep them closed.
#[derive(Args, Debug)]
pub(super) struct AdoptArgs {
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &AdoptArgs) -> Result<Exit, CommandError> {
    let chosen = args.folder.choose()?;
    // The library would create a folder that does not exist.
    let count = chosen.read()?.records();
    spool::adopt(&chosen.dir).map_err(|error| match error {
        SpoolOpenError::Locked { pid, .. } => held(&chosen.shown(), SpoolHolder { pid }),
        error => CommandError(Exit::Io, error.to_string()),
    })?;
    crate::say(&format!("{} is adopted: the next producer with it delivers {}", chosen.shown(), events(count)));
    Ok(Exit::Ok)
}
