//! The async runtime of a command.

use tokio::runtime::{Builder, Runtime};

use crate::exit::{CommandError, Exit};

/// Starts a runtime with two threads, which leave the other processors to the producer and to input.
///
/// # Errors
/// The operating system's error.
pub(crate) fn start() -> Result<Runtime, CommandError> {
    built(Builder::new_multi_thread().worker_threads(2))
}

/// Starts a runtime with a thread for each processor.
///
/// # Errors
/// The operating system's error.
pub(crate) fn start_wide() -> Result<Runtime, CommandError> {
    built(&mut Builder::new_multi_thread())
}

fn built(builder: &mut Builder) -> Result<Runtime, CommandError> {
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| CommandError(Exit::Io, format!("cannot start the async runtime: {error}")))
}
