//! Runs rounds of a thousand records through one stage, for `benches/callgrind` to count the instructions.
//!
//! `hot_path` lists the stages. `hot_path STAGE ROUNDS` runs one.
use std::error::Error;

use kafka_courier_benches::all;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        all()?.iter().for_each(|stage| println!("{}", stage.name));
        return Ok(());
    };
    let rounds: u32 = arguments.next().ok_or("ROUNDS is missing: hot_path STAGE ROUNDS")?.parse()?;
    let mut stage = all()?.into_iter().find(|stage| stage.name == name).ok_or(format!("no stage {name}"))?;
    (0..rounds).for_each(|_| (stage.run)());
    Ok(())
}
