//! Sends a synthetic load through kafka-courier's public API and prints one JSON line of figures.
//!
//! Rules: flags, data and output equal those of the other clients' generators, so that one program can run and compare
//! them all. Every setting is public. Flags of this generator: `--x-typed 1` (typed events instead of raw records, JSON
//! included), `--x-flush-messages`, `--x-buffer`, `--x-request`, `--x-connections`, `--x-workers` (threads of the
//! runtime: one, as other clients have one internal thread), `--x-expedite 0`.

mod load;
mod typed;

use common::Args;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let workers = args.x("workers", 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(load::run(args))
}
