//! Counts allocations and allocated bytes per record for each stage of the hot path.
//!
//! Rule: only the stage's own thread counts. The first rounds are skipped, because later rounds reuse their buffers.
//!
//! `cargo run --release -p kafka-courier-benches --bin allocations`
use std::error::Error;

use kafka_courier_benches::{RECORDS, all};

const WARM_UP: usize = 20;
const ROUNDS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    println!("| stage | allocations per 1,000 records | bytes per record |\n|---|---|---|");
    for mut stage in all()? {
        (0..WARM_UP).for_each(|_| (stage.run)());
        let counted = allocation_counter::measure(|| (0..ROUNDS).for_each(|_| (stage.run)()));
        let (allocations, bytes) = (counted.count_total as f64, counted.bytes_total as f64);
        let records = (ROUNDS * RECORDS) as f64;
        println!("| {} | {:.1} | {:.1} |", stage.name, allocations * 1000.0 / records, bytes / records);
    }
    Ok(())
}
