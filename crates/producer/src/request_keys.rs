//! The keys of requests that the spool has: those of earlier processes, and those to forget.

use crate::engine::Engine;
use crate::recovered_keys::RecoveredKey;
use crate::spool::SpoolCommand;

impl Engine {
    /// Takes the keys of requests that the spool had when it was opened. A second call returns none.
    pub fn take_recovered_keys(&self) -> Vec<RecoveredKey> {
        std::mem::take(&mut self.intake.shared.recovered_keys.lock())
    }

    /// Makes the spool forget the keys of requests from before a time, in milliseconds since 1970-01-01 UTC.
    pub fn forget_keys(&self, before_ms: u64) {
        if let Some(spool) = &self.intake.shared.spool {
            spool.send(SpoolCommand::ForgetKeys { before_ms });
        }
    }
}
