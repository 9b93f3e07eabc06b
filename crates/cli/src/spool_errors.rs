//! The errors of a producer with a spool, and their exit codes.
//!
//! Rule: `courier publish --spool` and `courier spool drain` end with the same code for the same fault.

use kafka_courier::dlq::OpenError;
use kafka_courier::spool::SpoolHolder;
use kafka_courier::{ConfigErrors, ConfigProblem, SpoolOpenError, SpoolStats};

use crate::exit::{CommandError, Exit};

/// Returns the error of a producer that can't be built. `held` is the error if another process has the spool.
pub(crate) fn build_failed(errors: &ConfigErrors, held: impl FnOnce(SpoolHolder) -> CommandError) -> CommandError {
    let is_held = |problem: &ConfigProblem| matches!(problem.dead_letter_error(), Some(OpenError::Held { .. }));
    match errors.problems().iter().find_map(ConfigProblem::spool_error) {
        Some(SpoolOpenError::Locked { pid, .. }) => held(SpoolHolder { pid: *pid }),
        Some(error @ SpoolOpenError::Copied { .. }) => CommandError(Exit::Config, error.to_string()),
        Some(error) => CommandError(Exit::Io, error.to_string()),
        None if errors.problems().iter().any(is_held) => CommandError(Exit::Busy, errors.to_string()),
        None => CommandError(Exit::Config, errors.to_string()),
    }
}

/// Returns why no further event can be delivered, if that is so.
pub(crate) fn fault(spool: &SpoolStats, in_flight: u64) -> Option<CommandError> {
    if let Some(fault) = &spool.fault {
        let is_config = spool.is_other_cluster || spool.has_outdated_brokers;
        let exit = if is_config { Exit::Config } else { Exit::Io };
        return Some(CommandError(exit, fault.clone()));
    }
    if in_flight > 0 || spool.held_partitions == 0 {
        return None;
    }
    let why = "no durable store takes the dead letters of rejected events, which stay in the spool: fix dlq_file or \
               dlq_topic, or make room there";
    Some(CommandError(Exit::Io, why.to_owned()))
}
