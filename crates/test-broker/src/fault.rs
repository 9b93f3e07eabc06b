//! Injected faults, and the rules that select requests for them.
//!
//! Rules:
//! - A request meets at most one fault: that of the first matching rule.
//! - A rule is removed after its last use.
//! - Every fault states whether the request is applied, because a producer cannot observe that.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use tokio::sync::watch;

/// The fault that a request meets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Answers with this error and does not apply the request.
    Refuse(ResponseError),
    /// Applies the request and still answers with this error. A Produce answer keeps its base offset, like the answer
    /// of a leader with slow replicas.
    ApplyThenRefuse(ResponseError),
    /// Ends the connection and does not apply the request.
    Disconnect,
    /// Applies the request and ends the connection before the answer. Requests that were already read are applied too.
    ApplyThenDisconnect,
    /// Neither applies nor answers the request. The connection stays open.
    Swallow,
    /// Applies the request and never answers. The connection stays open.
    ApplyThenSwallow,
    /// Applies the request and delays the answer. The connection's next request waits for the answer.
    Delay(Duration),
    /// Holds the request at the gate before applying it.
    Hold(Gate),
    /// Applies the request and holds the answer at the gate.
    ApplyThenHold(Gate),
    /// Applies the request and sends these bytes in place of the answer's body, after a correct length and correlation
    /// id.
    ApplyThenAnswer(Vec<u8>),
    /// Applies the request and sends these bytes in place of the whole answer, length and correlation id included.
    ApplyThenSend(Vec<u8>),
    /// Applies the request, answers with this throttle time, and does not read the connection for as long (KIP-219).
    Throttle(Duration),
}

/// A fault, and the requests that meet it.
///
/// ```
/// use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule};
///
/// let rule = Rule::for_api(ApiKey::Produce).at_broker(2).partition("orders", 0).times(3);
/// let rule = rule.then(Fault::Refuse(ErrorCode::RequestTimedOut));
/// ```
#[derive(Clone, Debug)]
pub struct Rule {
    api: Option<ApiKey>,
    broker: Option<i32>,
    partition: Option<(String, i32)>,
    /// Uses that remain. `None` means no limit.
    remaining: Option<u64>,
    pub(crate) fault: Fault,
}

/// A [`Rule`] without its fault.
#[derive(Clone, Debug)]
pub struct RuleBuilder {
    api: Option<ApiKey>,
    broker: Option<i32>,
    partition: Option<(String, i32)>,
    times: Option<u64>,
}

impl Rule {
    /// Starts a rule for the next request of this kind.
    #[must_use]
    pub fn for_api(api: ApiKey) -> RuleBuilder {
        RuleBuilder { api: Some(api), broker: None, partition: None, times: Some(1) }
    }

    /// Starts a rule for the next request of any kind.
    #[must_use]
    pub fn for_any_api() -> RuleBuilder {
        RuleBuilder { api: None, broker: None, partition: None, times: Some(1) }
    }

    fn matches(&self, broker: i32, api: ApiKey, partitions: &[(&str, i32)]) -> bool {
        self.api.is_none_or(|wanted| wanted == api)
            && self.broker.is_none_or(|wanted| wanted == broker)
            && self.partition.as_ref().is_none_or(|(topic, index)| partitions.contains(&(topic.as_str(), *index)))
    }

    /// Returns whether the error of this rule applies to a partition.
    pub(crate) fn applies_to(&self, topic: &str, partition: i32) -> bool {
        self.partition.as_ref().is_none_or(|(name, index)| name == topic && *index == partition)
    }
}

impl RuleBuilder {
    /// Selects the next `n` requests.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// Selects all requests until the faults are cleared.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Selects only requests to this broker.
    #[must_use]
    pub fn at_broker(mut self, id: i32) -> Self {
        self.broker = Some(id);
        self
    }

    /// Selects only Produce requests with a batch for this partition. An error applies to this partition only.
    #[must_use]
    pub fn partition(mut self, topic: &str, index: i32) -> Self {
        self.partition = Some((topic.to_owned(), index));
        self
    }

    /// Sets the fault.
    #[must_use]
    pub fn then(self, fault: Fault) -> Rule {
        Rule { api: self.api, broker: self.broker, partition: self.partition, remaining: self.times, fault }
    }
}

/// The rules in force, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct FaultRules {
    rules: Vec<Rule>,
}

impl FaultRules {
    pub(crate) fn add(&mut self, rule: Rule) {
        if rule.remaining != Some(0) {
            self.rules.push(rule);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the rule for a request and counts one use of the rule.
    pub(crate) fn take(&mut self, broker: i32, api: ApiKey, partitions: &[(&str, i32)]) -> Option<Rule> {
        let at = self.rules.iter().position(|rule| rule.matches(broker, api, partitions))?;
        let rule = self.rules.get_mut(at)?;
        rule.remaining = rule.remaining.map(|remaining| remaining.saturating_sub(1));
        let taken = rule.clone();
        if taken.remaining == Some(0) {
            self.rules.remove(at);
        }
        Some(taken)
    }
}

/// A barrier that holds requests until a test opens it. Gates order events without sleeping.
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
    /// Creates a closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(GateState::default())) }
    }

    /// Opens the gate permanently.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Waits until `n` requests have arrived at the gate since its creation.
    ///
    /// # Cancel safety
    /// Cancel safe: the method only reads.
    pub async fn arrived(&self, n: usize) {
        // The wait cannot fail: the sender lives as long as `self`.
        let _ = self.state.subscribe().wait_for(|state| state.arrived >= n).await;
    }

    /// Counts an arrival and waits until the gate is open.
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
    fn matching_rules_apply_in_order() {
        let mut faults = FaultRules::default();
        faults.add(Rule::for_api(ApiKey::Produce).times(2).then(Fault::Refuse(ResponseError::RequestTimedOut)));
        faults.add(Rule::for_any_api().at_broker(2).then(Fault::Refuse(ResponseError::UnknownServerError)));
        assert_eq!(code(faults.take(1, ApiKey::Metadata, &[])), None);
        assert_eq!(code(faults.take(2, ApiKey::Produce, &[])), Some(7));
        assert_eq!(code(faults.take(1, ApiKey::Produce, &[])), Some(7));
        assert_eq!(code(faults.take(1, ApiKey::Produce, &[])), None);
        assert_eq!(code(faults.take(2, ApiKey::Metadata, &[])), Some(-1));
        assert!(faults.is_empty());
    }

    #[test]
    fn partition_rule_ignores_other_partitions() {
        let mut faults = FaultRules::default();
        let rule = Rule::for_api(ApiKey::Produce).partition("t", 1).always();
        faults.add(rule.then(Fault::Refuse(ResponseError::RequestTimedOut)));
        assert!(faults.take(1, ApiKey::Produce, &[("t", 0), ("u", 1)]).is_none());
        let taken = faults.take(1, ApiKey::Produce, &[("t", 0), ("t", 1)]).unwrap();
        assert!(taken.applies_to("t", 1) && !taken.applies_to("t", 0));
        assert!(faults.take(1, ApiKey::Produce, &[("t", 1)]).is_some());
    }
}
