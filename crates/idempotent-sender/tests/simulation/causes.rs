//! The causes of failures. Each failed verdict must have a cause in the history, and name that cause.
//!
//! The history contains the model's actions and the answers to the sender, never the sender's own state. A record may
//! fail only because:
//! - `delivery_timeout` has passed.
//! - The record had more write errors than `retry_max`. Waiting for the cluster is no write error.
//! - The leader answered with a final code, or with "too large" to a batch of this record alone.
//! - The leader did not expect the record's sequence number, and a look was answered.
//! - A look has found the record, and the partition had to continue before the replicas were known to have it.
//! - The leader has refused the credentials in the last five seconds, or a broker has just refused them for metadata or
//!   a producer id.
//! - The topic was recreated, the partition was removed, or the producer was closed.
//!
//! A record that may be written fails because of a final code, a size or a sequence number only after a look at its
//! leader.
//!
//! A stored record fails only because the leader rejected its content or its size, or because its outcome can't be
//! determined. Time, retries, rights and credentials never fail it.

use kafka_courier_client::{ErrorCode, Reason};
use kafka_courier_idempotent_sender::core::{FOLLOWS_UNKNOWN, FailedOutcome, Failure, UNCONFIRMED};

use crate::cluster::{BROKERS, MS, Micros, SECOND, topic_and_index, topic_of};
use crate::plan::Reading;
use crate::record::RecordHistory;
use crate::world::World;

/// The sender's codes for a topic that was recreated.
const RECREATED: [ErrorCode; 2] = [ErrorCode::INCONSISTENT_TOPIC_ID, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
/// Codes that are write errors. A lost answer is a write error too.
pub(crate) const WRITE_ERRORS: &[i16] = &[-1, 2, 7, 13];
/// Codes for a batch that is too large. The sender splits the batch if the batch has several records.
pub(crate) const TOO_LARGE: &[i16] = &[10, 18];
/// Codes after which no attempt can succeed.
const FINAL: &[i16] = &[17, 21, 29, 31, 32, 35, 42, 43, 44, 48, 76, 87, 999];
/// Codes with which the model's leaders reject the content of some records of a batch. Refused times end with a setting or a clock.
const OF_RECORDS: &[i16] = &[87];
/// Codes that mean that the batch's stamp does not match the leader's state.
const SEQUENCE: &[i16] = &[45, 46, 47, 59];

impl World {
    /// Notes the cause of a failure. Returns an error if the failure has no cause, or names a wrong one.
    pub(crate) fn note_cause(&mut self, number: u32, published_at: Micros, failure: &Failure) -> Result<(), String> {
        let cause = self.cause(number, published_at, failure).map_err(|why| {
            let record = &self.history.records[number as usize];
            format!("{why}: p{} record {number} {failure:?} {record:?}", record.partition)
        })?;
        *self.history.causes.entry(cause).or_default() += 1;
        Ok(())
    }

    /// Checks the cause of the failure of a stored record.
    pub(crate) fn check_stored_failure(&self, number: u32, failure: &Failure) -> Result<(), String> {
        let record = &self.history.records[number as usize];
        let code = failure.reason.code().map(|code| code.0);
        let is_rejected =
            code.is_some_and(|code| OF_RECORDS.contains(&code) || TOO_LARGE.contains(&code) && record.too_large_alone);
        let is_refused = code.is_some_and(|code| FINAL.contains(&code) || SEQUENCE.contains(&code));
        let is_unconfirmed = matches!(&failure.reason, Reason::NoAnswer(words) if &**words == UNCONFIRMED);
        let follows = matches!(&failure.reason, Reason::NotAvailable(words) if &**words == FOLLOWS_UNKNOWN);
        let is_caused = match failure.outcome {
            FailedOutcome::NotWritten => is_rejected,
            // Without the right to read, no answer may name the cause.
            FailedOutcome::Unknown if self.plan.rules.reading != Reading::Allowed => true,
            // The record may be among those that are deleted.
            FailedOutcome::Unknown if self.partitions[record.partition].log_start > 0 => true,
            FailedOutcome::Unknown => is_rejected || is_refused || is_unconfirmed || follows,
        };
        if is_caused && !failure.timed_out {
            return Ok(());
        }
        Err(format!("p{} record {number} is stored, but failed: {failure:?} {record:?}", record.partition))
    }

    fn cause(&self, number: u32, published_at: Micros, failure: &Failure) -> Result<&'static str, &'static str> {
        let record = &self.history.records[number as usize];
        if failure.timed_out {
            let early = self.now + MS < published_at + self.plan.config.delivery_timeout.as_micros() as Micros;
            let split =
                failure.reason.code().is_some_and(|code| TOO_LARGE.contains(&code.0)) && !record.too_large_alone;
            return match (early, split) {
                (true, _) => Err("the failure is a timeout, but the time has not passed"),
                (_, true) => Err("the failure is too large, but only a batch with other records was"),
                _ => Ok("time ran out"),
            };
        }
        match &failure.reason {
            Reason::Closed if self.history.closed_at == Some(self.now) => Ok("closed"),
            // The model's brokers send no text with these codes. The sender has one for a recreated topic.
            Reason::Broker { code, message: Some(_) } if RECREATED.contains(code) => {
                self.recreation_cause(number, code.0, failure)
            }
            Reason::Broker { code, .. } if *code == ErrorCode::SASL_AUTHENTICATION_FAILED => {
                self.credentials_cause(record.partition)
            }
            Reason::Broker { code, .. } if !record.codes.contains(&code.0) => Err("no answer has that code"),
            Reason::Broker { code, .. }
                if failure.outcome == FailedOutcome::Unknown && self.lacks_look(record, code.0) =>
            {
                Err("the record may be written, but no look was answered")
            }
            Reason::Broker { code, .. } if FINAL.contains(&code.0) => Ok("final code"),
            Reason::Broker { code, .. } if TOO_LARGE.contains(&code.0) && record.too_large_alone => Ok("too large"),
            Reason::Broker { code, .. } if SEQUENCE.contains(&code.0) && failure.outcome == FailedOutcome::Unknown => {
                Ok("sequence")
            }
            Reason::Broker { code, .. } if !WRITE_ERRORS.contains(&code.0) => Err("that code does not end a batch"),
            Reason::NoAnswer(words) if &**words == UNCONFIRMED => {
                // The 46 of an old broker means the same.
                let found = self.history.is_found_by_look(number) || record.codes.contains(&46);
                if found && failure.outcome == FailedOutcome::Unknown {
                    Ok("not confirmed")
                } else {
                    Err("no leader has reported that")
                }
            }
            Reason::Broker { .. } | Reason::NoAnswer(_) | Reason::NotAvailable(_) => {
                let spent = record.write_errors > self.plan.config.retry_max;
                if spent { Ok("write errors") } else { Err("retries remain") }
            }
            _ => Err("waiting does not end a batch"),
        }
    }

    /// Returns whether an answer with this code needs an answered look first, and the look is missing.
    fn lacks_look(&self, record: &RecordHistory, code: i16) -> bool {
        let ends_it = FINAL.contains(&code) || TOO_LARGE.contains(&code) || SEQUENCE.contains(&code);
        ends_it && !self.history.has_look_answer(record)
    }

    /// Returns the cause of a refusal of credentials. The refusal of the partition's own leader counts, for five
    /// seconds.
    fn credentials_cause(&self, partition: usize) -> Result<&'static str, &'static str> {
        let pause = Self::refusal_pause();
        let recently = |at: Option<Micros>| at.is_some_and(|at| self.now <= at + pause);
        let by_leader = (0..BROKERS).any(|broker| {
            recently(self.brokers[broker].credentials_refused_at) && self.history.may_lead(partition, broker)
        });
        let history = &self.history;
        let asking = [history.metadata_refused_at, history.producer_id_refused_at].contains(&Some(self.now));
        match (by_leader, asking) {
            (true, _) => Ok("credentials refused"),
            (false, true) => Ok("credentials refused for metadata or id"),
            (false, false) => Err("the leader has not refused the credentials recently"),
        }
    }

    /// Returns the time for which the sender backs off from a broker that has refused the credentials.
    pub(crate) const fn refusal_pause() -> Micros {
        5 * SECOND
    }

    /// Returns the cause of a failure after the topic was recreated. A record that may be written to the former topic
    /// is unknown. A record for a partition that the new topic lacks is not written.
    fn recreation_cause(&self, number: u32, code: i16, failure: &Failure) -> Result<&'static str, &'static str> {
        let record = &self.history.records[number as usize];
        let known = self.history.known_topics[topic_of(record.partition)];
        match (code, failure.outcome) {
            (103, FailedOutcome::Unknown) if record.sent_in.is_some() && known.changes > 1 => Ok("topic recreated"),
            (3, FailedOutcome::NotWritten) if known.fewest <= topic_and_index(record.partition).1 => {
                Ok("partition removed")
            }
            _ => Err("the topic was not recreated"),
        }
    }
}
