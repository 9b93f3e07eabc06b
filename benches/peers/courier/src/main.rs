//! Sends a made-up load through kafka-courier's public API and prints one JSON line about it.
//!
//! Rules: the flags, the data and the line are those of the other clients' generators, so that one program
//! can drive and compare them; nothing is set that a user could not set.

mod args;
mod data;
mod load;
mod measure;

use args::Args;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(args.workers).enable_all().build()?;
    runtime.block_on(load::run(args))
}
