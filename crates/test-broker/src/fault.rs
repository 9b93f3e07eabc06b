//! Faults on demand: which requests, how many of them, and what befalls them.
//!
//! Rules: a request meets at most one fault, that of the first rule which fits; a rule that is used up is gone; every
//! fault says whether the request was applied first, for that is what a producer cannot see.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use tokio::sync::watch;

/// What befalls a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It is not applied; the answer is this error.
    Refuse(ResponseError),
    /// It is applied; the answer is this error all the same. A Produce answer keeps its base offset then, as a leader's
    /// does whose replicas were too slow.
    ApplyThenRefuse(ResponseError),
    /// It is not applied; the connection ends.
    Disconnect,
    /// It is applied; the connection ends before the answer. What the broker had already read is applied too.
    ApplyThenDisconnect,
    /// It is not applied and never answered; the connection stays.
    Swallow,
    /// It is applied and never answered; the connection stays.
    ApplyThenSwallow,
    /// It is applied; the answer comes so much later. The connection's next request waits for it.
    Delay(Duration),
    /// It waits at the gate before it is applied.
    Hold(Gate),
    /// It is applied; the answer waits at the gate.
    ApplyThenHold(Gate),
    /// It is applied; these bytes go out behind a right length and correlation id, instead of the answer's own.
    ApplyThenAnswer(Vec<u8>),
    /// It is applied; these bytes go out instead of the answer, length and correlation id included.
    ApplyThenSend(Vec<u8>),
    /// It is applied and answered with this throttle time, and the connection is not read for as long (KIP-219).
    Throttle(Duration),
}

/// Which requests a fault befalls, and how many.
///
/// ```
/// use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule};
///
/// let rule = Rule::on(ApiKey::Produce).at_broker(2).partition("orders", 0).times(3);
/// let rule = rule.then(Fault::Refuse(ErrorCode::RequestTimedOut));
/// ```
#[derive(Clone, Debug)]
pub struct Rule {
    api: Option<ApiKey>,
    broker: Option<i32>,
    partition: Option<(String, i32)>,
    left: Option<u64>,
    pub(crate) fault: Fault,
}

/// A rule that does not say yet what happens.
#[derive(Clone, Debug)]
pub struct RuleBuilder {
    api: Option<ApiKey>,
    broker: Option<i32>,
    partition: Option<(String, i32)>,
    times: Option<u64>,
}

impl Rule {
    /// The next request of that kind.
    #[must_use]
    pub fn on(api: ApiKey) -> RuleBuilder {
        RuleBuilder { api: Some(api), broker: None, partition: None, times: Some(1) }
    }

    /// The next request of any kind.
    #[must_use]
    pub fn on_any() -> RuleBuilder {
        RuleBuilder { api: None, broker: None, partition: None, times: Some(1) }
    }

    fn fits(&self, broker: i32, api: ApiKey, partitions: &[(&str, i32)]) -> bool {
        self.api.is_none_or(|wanted| wanted == api)
            && self.broker.is_none_or(|wanted| wanted == broker)
            && self.partition.as_ref().is_none_or(|(topic, index)| partitions.contains(&(topic.as_str(), *index)))
    }

    /// Whether the error of this rule is for that partition.
    pub(crate) fn is_for(&self, topic: &str, partition: i32) -> bool {
        self.partition.as_ref().is_none_or(|(name, index)| name == topic && *index == partition)
    }
}

impl RuleBuilder {
    /// The next `n` requests.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// All requests, until the faults are cleared.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Only those that this broker gets.
    #[must_use]
    pub fn at_broker(mut self, id: i32) -> Self {
        self.broker = Some(id);
        self
    }

    /// Only Produce requests with a batch for this partition. An error is for this partition alone.
    #[must_use]
    pub fn partition(mut self, topic: &str, index: i32) -> Self {
        self.partition = Some((topic.to_owned(), index));
        self
    }

    /// Says what happens.
    #[must_use]
    pub fn then(self, fault: Fault) -> Rule {
        Rule { api: self.api, broker: self.broker, partition: self.partition, left: self.times, fault }
    }
}

/// The rules that are in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) {
        if rule.left != Some(0) {
            self.rules.push(rule);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule for a request, which is thereby used once.
    pub(crate) fn take(&mut self, broker: i32, api: ApiKey, partitions: &[(&str, i32)]) -> Option<Rule> {
        let at = self.rules.iter().position(|rule| rule.fits(broker, api, partitions))?;
        let rule = self.rules.get_mut(at)?;
        rule.left = rule.left.map(|left| left.saturating_sub(1));
        let taken = rule.clone();
        if taken.left == Some(0) {
            self.rules.remove(at);
        }
        Some(taken)
    }
}

/// Where requests wait until a test lets them go on: order without sleeping.
#[derive(Clone, Debug)]
pub struct Gate {
    state: Arc<watch::Sender<GateState>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(GateState::default())) }
    }

    /// Lets everything pass, now and later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Waits until `n` requests have come to the gate since it was made.
    ///
    /// Cancel safety: it only looks.
    pub async fn arrived(&self, n: usize) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.state.subscribe().wait_for(|state| state.arrived >= n).await;
    }

    /// Waits until the gate is open.
    pub(crate) async fn pass(&self) {
        self.state.send_modify(|state| state.arrived += 1);
        let _ = self.state.subscribe().wait_for(|state| state.open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(rule: Option<Rule>) -> Option<i16> {
        match rule?.fault {
            Fault::Refuse(error) => Some(error.code()),
            _ => None,
        }
    }

    #[test]
    fn rules_are_used_up_in_order_and_only_by_requests_that_fit() {
        let mut faults = Faults::default();
        faults.add(Rule::on(ApiKey::Produce).times(2).then(Fault::Refuse(ResponseError::RequestTimedOut)));
        faults.add(Rule::on_any().at_broker(2).then(Fault::Refuse(ResponseError::UnknownServerError)));
        assert_eq!(code(faults.take(1, ApiKey::Metadata, &[])), None);
        assert_eq!(code(faults.take(2, ApiKey::Produce, &[])), Some(7));
        assert_eq!(code(faults.take(1, ApiKey::Produce, &[])), Some(7));
        assert_eq!(code(faults.take(1, ApiKey::Produce, &[])), None);
        assert_eq!(code(faults.take(2, ApiKey::Metadata, &[])), Some(-1));
        assert!(faults.is_empty());
    }

    #[test]
    fn a_rule_for_a_partition_leaves_the_others_alone() {
        let mut faults = Faults::default();
        let rule = Rule::on(ApiKey::Produce).partition("t", 1).always();
        faults.add(rule.then(Fault::Refuse(ResponseError::RequestTimedOut)));
        assert!(faults.take(1, ApiKey::Produce, &[("t", 0), ("u", 1)]).is_none());
        let taken = faults.take(1, ApiKey::Produce, &[("t", 0), ("t", 1)]).unwrap();
        assert!(taken.is_for("t", 1) && !taken.is_for("t", 0));
        assert!(faults.take(1, ApiKey::Produce, &[("t", 1)]).is_some());
    }
}
