//! Looks for letters in the log.
use super::ReplayError;
use kafka_courier_dlq::Held;
use kafka_courier_idempotent_sender::driver::LogClient;
pub(super) enum Verdict {
    Landed,
    Absent,
    NotFound(String),
}
pub(super) async fn check(_log: &LogClient, doubts: &[Held]) -> Result<Vec<Verdict>, ReplayError> {
    Ok(doubts.iter().map(|_| Verdict::NotFound("x".into())).collect())
}
