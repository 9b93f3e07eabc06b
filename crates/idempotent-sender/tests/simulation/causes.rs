//! Why a record may fail: each failed verdict must have a cause in the history, and name it truly.
//!
//! Rules: the history is what the model did and the sender was told, never what the sender says of itself.
//! - The time allowed has run out, and not a moment before.
//! - More errors of the write than `retry_max`: waiting for the cluster is none of them.
//! - A code that is final was answered for it, or for a batch that it was alone in and that was too large.
//! - Its leader did not expect its sequence number, and a look was answered.
//! - A look has found it, and the partition had to go on before its replicas were known to have it.
//! - What may be written is failed for such an answer only after a look at its leader.
//! - Its leader has refused our credentials, at most five seconds ago; or a broker did just now
//!   that was asked who leads, or for a producer id.
//! - Its topic was made anew, or its partition is no more. Everything was given up.

use kafka_courier_idempotent_sender::core::{ErrorCode, FailedOutcome, Failure, Reason};

use crate::cluster::{BROKERS, MS, Micros, SECOND, place_of, topic_of};
use crate::record::RecordHistory;
use crate::world::World;

/// Errors of the write itself. An answer that never came is another.
pub(crate) const WRITE_ERRORS: &[i16] = &[-1, 2, 7, 13];
/// A batch is too large; split as long as that can be done.
pub(crate) const TOO_LARGE: &[i16] = &[10, 18];
/// Nothing makes the leader take it.
const FINAL: &[i16] = &[17, 21, 29, 31, 32, 35, 42, 43, 44, 48, 76, 87, 999];
/// The leader's state is not what the batch's stamp asks for.
const SEQUENCE: &[i16] = &[45, 46, 47, 59];

impl World {
    /// Errors: the failure has no cause, or another one than it says.
    pub(crate) fn note_cause(&mut self, number: u32, published_at: Micros, failure: &Failure) -> Result<(), String> {
        let cause = self.cause(number, published_at, failure).map_err(|why| {
            let record = &self.history.records[number as usize];
            format!("{why}: p{} record {number} {failure:?} {record:?}", record.partition)
        })?;
        *self.history.causes.entry(cause).or_default() += 1;
        Ok(())
    }

    fn cause(&self, number: u32, published_at: Micros, failure: &Failure) -> Result<&'static str, &'static str> {
        let record = &self.history.records[number as usize];
        if failure.timed_out {
            let early = self.now + MS < published_at + self.plan.config.delivery_timeout.as_micros() as Micros;
            let split =
                failure.reason.code().is_some_and(|code| TOO_LARGE.contains(&code.0)) && !record.too_large_alone;
            return match (early, split) {
                (true, _) => Err("called out of time, and it is not"),
                (_, true) => Err("called too large, and only a batch of it and others was"),
                _ => Ok("time ran out"),
            };
        }
        match &failure.reason {
            Reason::Closed if self.history.closed_at == Some(self.now) => Ok("closed"),
            Reason::Broker { code, message: Some(words) } if words.contains("recreated") => {
                self.cause_in_another_life(number, code.0, failure)
            }
            Reason::Broker { code, .. } if *code == ErrorCode::SASL_AUTHENTICATION_FAILED => {
                self.cause_of_refusal(record.partition)
            }
            Reason::Broker { code, .. } if !record.codes.contains(&code.0) => Err("it was never answered so"),
            Reason::Broker { code, .. }
                if failure.outcome == FailedOutcome::Unknown && self.skips_look(record, code.0) =>
            {
                Err("it may be written, and was not looked for")
            }
            Reason::Broker { code, .. } if FINAL.contains(&code.0) => Ok("final code"),
            Reason::Broker { code, .. } if TOO_LARGE.contains(&code.0) && record.too_large_alone => Ok("too large"),
            Reason::Broker { code, .. } if SEQUENCE.contains(&code.0) && failure.outcome == FailedOutcome::Unknown => {
                Ok("sequence")
            }
            Reason::Broker { code, .. } if !WRITE_ERRORS.contains(&code.0) => Err("that is no reason to give up"),
            Reason::NoAnswer(words) if words.contains("the leader has it") => {
                // An old broker's 46 says so too.
                let found = self.history.is_found(number) || record.codes.contains(&46);
                if found && failure.outcome == FailedOutcome::Unknown {
                    Ok("not confirmed")
                } else {
                    Err("no leader has said so")
                }
            }
            Reason::Broker { .. } | Reason::NoAnswer(_) | Reason::NotAvailable(_) => {
                let spent = record.write_errors > self.plan.config.retry_max;
                if spent { Ok("write errors") } else { Err("it has retries left") }
            }
            _ => Err("waiting is no reason to give up"),
        }
    }

    /// Whether a look must come before such an answer ends what may be written, and did not.
    fn skips_look(&self, record: &RecordHistory, code: i16) -> bool {
        let ends_it = FINAL.contains(&code) || TOO_LARGE.contains(&code) || SEQUENCE.contains(&code);
        ends_it && !self.history.is_looked_for(record)
    }

    /// Only the partition's own leader speaks for it, and for five seconds at most.
    fn cause_of_refusal(&self, partition: usize) -> Result<&'static str, &'static str> {
        let pause = Self::refused_pause();
        let recently = |at: Option<Micros>| at.is_some_and(|at| self.now <= at + pause);
        let by_leader = (0..BROKERS)
            .any(|broker| recently(self.brokers[broker].distrusted_at) && self.history.may_lead(partition, broker));
        let history = &self.history;
        let asking = [history.metadata_refused_at, history.producer_id_refused_at].contains(&Some(self.now));
        match (by_leader, asking) {
            (true, _) => Ok("credentials refused"),
            (false, true) => Ok("credentials refused to who asked for more"),
            (false, false) => Err("its leader has not refused us for long"),
        }
    }

    /// How long a broker that has refused us is left alone.
    pub(crate) const fn refused_pause() -> Micros {
        5 * SECOND
    }

    /// What may be written to the former topic is unknown; what waits for a partition that the new one has not is
    /// certainly not written.
    fn cause_in_another_life(&self, number: u32, code: i16, failure: &Failure) -> Result<&'static str, &'static str> {
        let record = &self.history.records[number as usize];
        let told = self.history.told[topic_of(record.partition)];
        match (code, failure.outcome) {
            (103, FailedOutcome::Unknown) if record.sent_in.is_some() && told.changes > 1 => Ok("topic made anew"),
            (3, FailedOutcome::NotWritten) if told.fewest <= place_of(record.partition).1 => Ok("partition is no more"),
            _ => Err("its topic was not made anew"),
        }
    }
}
