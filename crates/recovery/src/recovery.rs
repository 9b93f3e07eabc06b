//! [`Recovery`], an engine with the dead letters of its failures.

use std::ops::ControlFlow;

use kafka_courier_producer::Engine;

use crate::dead_letters::DeadLetters;
use crate::replay::{Replay, ReplayError, ReplayReport, run};
use crate::verify::Verifier;

/// An engine with the dead letters of its failures.
#[derive(Debug)]
pub struct Recovery {
    engine: Engine,
    letters: DeadLetters,
}

impl Recovery {
    /// Joins an engine with the dead letters that are its failure sink.
    pub fn new(engine: Engine, letters: DeadLetters) -> Self {
        Self { engine, letters }
    }

    /// Returns the engine.
    #[inline]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the dead letters.
    pub fn letters(&self) -> &DeadLetters {
        &self.letters
    }

    /// Returns a verifier, which searches the log for records with the outcome `unknown` over its own connections.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.engine.client_config(), self.engine.delivery_timeout())
    }

    /// Replays the dead letters of each store in turn. `progress` is called after each group of letters and may end the
    /// replay. Every record that was sent has its verdict then. A group has at most 500 letters, and with a rate the
    /// letters of about a second.
    ///
    /// # Errors
    ///
    /// Returns an error if another replay has the store, a store fails, or the engine is closed.
    ///
    /// # Cancel safety
    ///
    /// Records that were sent may still be delivered. Their letters are marked as in progress, and the next replay looks
    /// for the records in the log.
    pub async fn replay(
        &self,
        replay: &Replay,
        progress: impl FnMut(&ReplayReport) -> ControlFlow<()> + Send,
    ) -> Result<ReplayReport, ReplayError> {
        Box::pin(run::run(&self.engine, &self.letters, replay, progress)).await
    }
}
