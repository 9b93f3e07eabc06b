//! The right to replay the letters of a topic, decided by the order of claim records in the topic's first partition.
//!
//! Rules:
//! - This module is pure, and the holder is a function of the log alone. All readers of the same records find the same
//!   holder, independent of their clocks.
//! - A claim is valid if no process holds the topic, or if the claim names the holder's last record. The
//!   holder then wrote nothing between the claimant's read and the claim. The log's order decides between concurrent
//!   claims: the first one is valid.
//! - Clocks only decide whether a claim is worth an attempt. A claimant watches the holder for a whole lease by its own
//!   clock before it takes a claim over. A holder that renewed nothing in this time has a lease that expired by its own
//!   clock too.

use kafka_courier_dlq::{Timestamp, Uuid};
use serde::{Deserialize, Serialize};

/// The action of a claim record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClaimAction {
    /// A process claims the right to replay.
    Claim,
    /// The holder renews its claim.
    Renew,
    /// The holder releases its claim.
    Release,
}

/// The last record of a claim that a reader has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ClaimPosition {
    /// The claim's id.
    pub(crate) id: Uuid,
    /// The record's offset.
    pub(crate) offset: i64,
}

/// The value of a claim record, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) act: ClaimAction,
    /// The claim's id, the same in all records of the claim.
    pub(crate) id: Uuid,
    pub(crate) host: String,
    pub(crate) pid: u32,
    /// How long the claim is valid after each of its records.
    pub(crate) lease_ms: i64,
    /// The last record of the claim that this claim takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over: Option<ClaimPosition>,
}

impl ClaimRecord {
    /// Returns a description of the claiming process.
    pub(crate) fn holder(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

/// The holder of the right to replay, and its last record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClaimHolder {
    pub(crate) claim: ClaimRecord,
    /// The holder's last record.
    pub(crate) seen: ClaimPosition,
    /// The timestamp of the last record, set by the broker or the holder.
    at_ms: i64,
}

impl ClaimHolder {
    /// Returns the expiry of the claim, by the clock of its last record.
    pub(crate) fn until(&self) -> Timestamp {
        Timestamp::from_millisecond(self.at_ms.saturating_add(self.claim.lease_ms)).unwrap_or(Timestamp::MAX)
    }
}

/// The state of the right to replay after the records that were read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ClaimState {
    holder: Option<ClaimHolder>,
    /// Whether the beginning of the log was deleted and no later record proves the holder. The holder may then be known
    /// by its renewals alone. A first claim proves its holder only once it is renewed, because an earlier claim may
    /// have been deleted.
    is_truncated: bool,
}

/// Whether a claim is worth an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ClaimStatus {
    /// No process holds the right.
    Free,
    /// A process holds the right, and its lease is valid by the claimant's clock.
    Held(ClaimHolder),
    /// A process holds the right, and its lease has expired by the claimant's clock. The claimant must watch it for a
    /// whole lease.
    Silent(ClaimHolder),
}

impl ClaimState {
    /// Returns the state before the first record, of a log that begins at this offset.
    pub(crate) fn beginning_at(log_start: i64) -> Self {
        Self { holder: None, is_truncated: log_start > 0 }
    }

    /// Applies the next record, in the log's order.
    pub(crate) fn apply(&mut self, offset: i64, at_ms: i64, claim: ClaimRecord) {
        let seen = ClaimPosition { id: claim.id, offset };
        let is_holder = self.holder.as_ref().is_some_and(|holder| holder.seen.id == claim.id);
        match claim.act {
            ClaimAction::Claim if self.holder.is_none() => self.holder = Some(ClaimHolder { claim, seen, at_ms }),
            ClaimAction::Claim
                if claim.over.is_some() && claim.over == self.holder.as_ref().map(|holder| holder.seen) =>
            {
                self.set_holder(Some(ClaimHolder { claim, seen, at_ms }));
            }
            ClaimAction::Renew if is_holder || self.may_be_older(claim.id) => {
                self.set_holder(Some(ClaimHolder { claim, seen, at_ms }));
            }
            ClaimAction::Release if is_holder => self.set_holder(None),
            ClaimAction::Claim | ClaimAction::Renew | ClaimAction::Release => {}
        }
    }

    /// Sets a holder that the log proves.
    fn set_holder(&mut self, holder: Option<ClaimHolder>) {
        self.holder = holder;
        self.is_truncated = false;
    }

    /// Returns whether this claim may be in the deleted part of the log, and no remaining record took it over.
    fn may_be_older(&self, id: Uuid) -> bool {
        let over = self.holder.as_ref().and_then(|holder| holder.claim.over);
        self.is_truncated && over.is_none_or(|over| over.id != id)
    }

    pub(crate) fn holder(&self) -> Option<&ClaimHolder> {
        self.holder.as_ref()
    }

    /// Returns whether this claim is the valid one.
    pub(crate) fn is_held_by(&self, id: Uuid) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.seen.id == id)
    }

    /// Returns whether a claim is worth an attempt at `now_ms` by the claimant's clock. Clocks that are further apart
    /// than a lease prove nothing, and the holder counts as silent.
    pub(crate) fn status(&self, now_ms: i64) -> ClaimStatus {
        match &self.holder {
            None => ClaimStatus::Free,
            Some(holder) if now_ms.abs_diff(holder.at_ms) < holder.claim.lease_ms.unsigned_abs() => {
                ClaimStatus::Held(holder.clone())
            }
            Some(holder) => ClaimStatus::Silent(holder.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: i64 = 1000;

    fn record(act: ClaimAction, id: u128, over: Option<(u128, i64)>) -> ClaimRecord {
        let over = over.map(|(id, offset)| ClaimPosition { id: Uuid::from_u128(id), offset });
        ClaimRecord { act, id: Uuid::from_u128(id), host: "h".into(), pid: 7, lease_ms: LEASE, over }
    }

    fn read(records: &[(i64, ClaimRecord)]) -> ClaimState {
        let mut state = ClaimState::beginning_at(0);
        for (offset, claim) in records {
            state.apply(*offset, *offset, claim.clone());
        }
        state
    }

    fn held_by(state: &ClaimState, id: u128) -> bool {
        state.is_held_by(Uuid::from_u128(id))
    }

    #[test]
    fn first_concurrent_claim_is_valid() {
        let state = read(&[(0, record(ClaimAction::Claim, 1, None)), (1, record(ClaimAction::Claim, 2, None))]);
        assert!(held_by(&state, 1));
    }

    #[test]
    fn only_the_holder_releases_its_claim() {
        let mut records = vec![(0, record(ClaimAction::Claim, 1, None)), (1, record(ClaimAction::Release, 2, None))];
        assert!(held_by(&read(&records), 1));
        records.push((2, record(ClaimAction::Release, 1, None)));
        assert_eq!(read(&records).status(2), ClaimStatus::Free);
        records.push((3, record(ClaimAction::Claim, 2, None)));
        assert!(held_by(&read(&records), 2));
    }

    #[test]
    fn renewed_claims_cannot_be_taken_over() {
        let mut records = vec![(0, record(ClaimAction::Claim, 1, None)), (4, record(ClaimAction::Renew, 1, None))];
        for (over, taken) in [(0, false), (4, true)] {
            let mut more = records.clone();
            more.push((5, record(ClaimAction::Claim, 2, Some((1, over)))));
            assert_eq!(held_by(&read(&more), 2), taken, "over {over}");
        }
        records.push((5, record(ClaimAction::Claim, 2, Some((1, 4)))));
        records.push((6, record(ClaimAction::Claim, 3, Some((1, 4)))));
        records.push((7, record(ClaimAction::Renew, 1, None)));
        assert!(held_by(&read(&records), 2), "neither a second claim nor a late renewal is valid");
    }

    #[test]
    fn claims_are_held_within_their_lease() {
        let state = read(&[(5000, record(ClaimAction::Claim, 1, None))]);
        for (now, live) in [(5000, true), (5999, true), (4500, true), (6000, false), (9999, false), (3000, false)] {
            assert_eq!(matches!(state.status(now), ClaimStatus::Held(_)), live, "{now}");
        }
        assert_eq!(state.holder().unwrap().until(), Timestamp::from_millisecond(6000).unwrap());
        assert_eq!(state.holder().unwrap().claim.holder(), "process 7 on h");
    }

    #[test]
    fn renewals_prove_truncated_claims() {
        let mut state = ClaimState::beginning_at(9);
        state.apply(9, 9, record(ClaimAction::Renew, 1, None));
        assert!(held_by(&state, 1));
        let mut whole = ClaimState::beginning_at(0);
        whole.apply(9, 9, record(ClaimAction::Renew, 1, None));
        assert_eq!(whole.holder(), None);
    }

    #[test]
    fn late_renewals_are_invalid_after_truncation() {
        let taken_over = record(ClaimAction::Claim, 2, Some((1, 9)));
        for first in [vec![(9, record(ClaimAction::Renew, 1, None))], Vec::new()] {
            let mut state = ClaimState::beginning_at(9);
            for (offset, claim) in
                first.into_iter().chain([(10, taken_over.clone()), (11, record(ClaimAction::Renew, 1, None))])
            {
                state.apply(offset, offset, claim);
            }
            assert!(held_by(&state, 2));
        }
    }

    #[test]
    fn invalid_claims_hide_no_older_claim() {
        let mut state = ClaimState::beginning_at(9);
        state.apply(9, 9, record(ClaimAction::Claim, 2, None));
        state.apply(10, 10, record(ClaimAction::Renew, 1, None));
        assert!(held_by(&state, 1));
    }

    fn act() -> impl Strategy<Value = (ClaimAction, u128, Option<(u128, i64)>)> {
        let act = prop_oneof![Just(ClaimAction::Claim), Just(ClaimAction::Renew), Just(ClaimAction::Release)];
        (act, 1..4_u128, proptest::option::of((1..4_u128, 0..12_i64)))
    }

    proptest! {
        #[test]
        fn only_valid_claims_change_the_holder(
            acts in proptest::collection::vec(act(), 0..12)
        ) {
            let mut state = ClaimState::beginning_at(0);
            for (offset, (act, id, over)) in (0..).zip(acts) {
                let before = state.holder().cloned();
                let record = record(act, id, over);
                state.apply(offset, offset, record.clone());
                let after = state.holder();
                if after.map(|h| h.seen.id) == before.as_ref().map(|h| h.seen.id) {
                    continue;
                }
                match after {
                    None => prop_assert!(act == ClaimAction::Release && before.unwrap().seen.id == record.id),
                    Some(now) => {
                        let claimed = ClaimPosition { id: record.id, offset };
                        prop_assert!(act == ClaimAction::Claim && now.seen == claimed);
                        prop_assert!(before.is_none_or(|before| record.over == Some(before.seen)));
                    }
                }
            }
        }
    }
}
