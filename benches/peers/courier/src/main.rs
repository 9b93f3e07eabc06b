//! Sends a made-up load through kafka-courier's public API and prints one JSON line about it.
//!
//! Rules: the flags, the data and the line are those of the other clients' generators, so that one program
//! can drive and compare them; nothing is set that a user could not set. Its own flags: `--x-typed 1` (events and their
//! JSON instead of raw records), `--x-flush-messages`, `--x-buffer`, `--x-request`, `--x-connections`,
//! `--x-workers` (threads of its runtime: one, as other clients have one of their own), `--x-expedite 0`.

mod load;
mod typed;

use common::Args;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let workers = args.x("workers", 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(load::run(args))
}
