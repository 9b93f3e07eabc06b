//! Who may replay the letters of a topic: decided by records in its first partition, in the log's order.
//!
//! Rules:
//! - Pure, and a function of the log alone: whoever reads the same records finds the same holder, whatever his clock says.
//! - A claim counts if nobody holds the topic, or if it names the holder's last record: nothing came from the holder
//!   between the look and the claim. Of two claims at once the first in the log counts.
//! - Clocks say only whether a claim is worth a try. Before one is taken over its holder was watched for a whole lease, by
//!   the watcher's own clock, in which it renewed nothing: then the holder's own count of its lease has run out too.

use kafka_courier_dlq::{Timestamp, Uuid};
use serde::{Deserialize, Serialize};

/// What a record about the claim says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    /// Somebody wants to replay.
    Claim,
    /// He still does.
    Renew,
    /// He has ended.
    Release,
}

/// A claim's last record, as somebody saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The claim.
    pub(crate) id: Uuid,
    /// The record's offset.
    pub(crate) offset: i64,
}

/// A record about the right to replay: its value, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) act: Act,
    /// One claim, from its making to its end.
    pub(crate) id: Uuid,
    pub(crate) host: String,
    pub(crate) pid: u32,
    /// How long it holds after each of its records.
    pub(crate) lease_ms: i64,
    /// The claim that this one takes over: its holder has gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over: Option<Seen>,
}

impl ClaimRecord {
    /// Who it is, for people.
    pub(crate) fn holder(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

/// Who holds the topic, and since when nothing came of him.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) claim: ClaimRecord,
    /// His last record.
    pub(crate) seen: Seen,
    /// That record's timestamp: the broker's, or his own.
    at_ms: i64,
}

impl Holder {
    /// When his claim runs out, by the clock of its last record.
    pub(crate) fn until(&self) -> Timestamp {
        Timestamp::from_millisecond(self.at_ms.saturating_add(self.claim.lease_ms)).unwrap_or(Timestamp::MAX)
    }
}

/// What the records that were read come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ledger {
    holder: Option<Holder>,
    /// The log's beginning was deleted, and nothing since then shows who holds it: a claim may be known by its renewals
    /// alone. A first claim shows it only once it is renewed, for another may have come before it.
    cut: bool,
}

/// Whether a claim is worth a try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Nobody holds it.
    Free,
    /// This one does, and his lease runs as far as clocks can tell.
    Held(Holder),
    /// This one did; whether he is gone takes a look of a whole lease.
    Silent(Holder),
}

impl Ledger {
    /// Nothing read yet, of a log that begins at this offset.
    pub(crate) fn beginning_at(log_start: i64) -> Self {
        Self { holder: None, cut: log_start > 0 }
    }

    /// The next record, in the log's order.
    pub(crate) fn on(&mut self, offset: i64, at_ms: i64, claim: ClaimRecord) {
        let seen = Seen { id: claim.id, offset };
        let is_holder = self.holder.as_ref().is_some_and(|holder| holder.seen.id == claim.id);
        match claim.act {
            Act::Claim if self.holder.is_none() => self.holder = Some(Holder { claim, seen, at_ms }),
            Act::Claim if claim.over.is_some() && claim.over == self.holder.as_ref().map(|holder| holder.seen) => {
                self.is_shown(Some(Holder { claim, seen, at_ms }));
            }
            Act::Renew if is_holder || self.may_be_older(claim.id) => {
                self.is_shown(Some(Holder { claim, seen, at_ms }));
            }
            Act::Release if is_holder => self.is_shown(None),
            Act::Claim | Act::Renew | Act::Release => {}
        }
    }

    fn is_shown(&mut self, holder: Option<Holder>) {
        self.holder = holder;
        self.cut = false;
    }

    /// Whether this claim may have been made in what was deleted, and nothing that is left took it over.
    fn may_be_older(&self, id: Uuid) -> bool {
        let over = self.holder.as_ref().and_then(|holder| holder.claim.over);
        self.cut && over.is_none_or(|over| over.id != id)
    }

    pub(crate) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Whether this claim is the one that counts.
    pub(crate) fn is_held_by(&self, id: Uuid) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.seen.id == id)
    }

    /// What a claimant whose clock says `now_ms` makes of it. Clocks that are further apart than a lease tell him nothing.
    pub(crate) fn standing(&self, now_ms: i64) -> Standing {
        match &self.holder {
            None => Standing::Free,
            Some(holder) if now_ms.abs_diff(holder.at_ms) < holder.claim.lease_ms.unsigned_abs() => {
                Standing::Held(holder.clone())
            }
            Some(holder) => Standing::Silent(holder.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: i64 = 1000;

    fn record(act: Act, id: u128, over: Option<(u128, i64)>) -> ClaimRecord {
        let over = over.map(|(id, offset)| Seen { id: Uuid::from_u128(id), offset });
        ClaimRecord { act, id: Uuid::from_u128(id), host: "h".into(), pid: 7, lease_ms: LEASE, over }
    }

    fn read(records: &[(i64, ClaimRecord)]) -> Ledger {
        let mut ledger = Ledger::beginning_at(0);
        for (offset, claim) in records {
            ledger.on(*offset, *offset, claim.clone());
        }
        ledger
    }

    fn held_by(ledger: &Ledger, id: u128) -> bool {
        ledger.is_held_by(Uuid::from_u128(id))
    }

    #[test]
    fn of_two_claims_at_once_the_first_in_the_log_counts() {
        let ledger = read(&[(0, record(Act::Claim, 1, None)), (1, record(Act::Claim, 2, None))]);
        assert!(held_by(&ledger, 1));
    }

    #[test]
    fn a_claim_that_was_released_is_free_and_nobody_else_can_release_it() {
        let mut records = vec![(0, record(Act::Claim, 1, None)), (1, record(Act::Release, 2, None))];
        assert!(held_by(&read(&records), 1));
        records.push((2, record(Act::Release, 1, None)));
        assert_eq!(read(&records).standing(2), Standing::Free);
        records.push((3, record(Act::Claim, 2, None)));
        assert!(held_by(&read(&records), 2));
    }

    #[test]
    fn a_silent_claim_is_taken_over_unless_its_holder_was_heard_of_since() {
        let mut records = vec![(0, record(Act::Claim, 1, None)), (4, record(Act::Renew, 1, None))];
        for (over, taken) in [(0, false), (4, true)] {
            let mut more = records.clone();
            more.push((5, record(Act::Claim, 2, Some((1, over)))));
            assert_eq!(held_by(&read(&more), 2), taken, "over {over}");
        }
        records.push((5, record(Act::Claim, 2, Some((1, 4)))));
        records.push((6, record(Act::Claim, 3, Some((1, 4)))));
        records.push((7, record(Act::Renew, 1, None)));
        assert!(held_by(&read(&records), 2), "neither a second one nor a late renewal gets it");
    }

    #[test]
    fn a_claim_is_live_for_its_lease_and_clocks_far_apart_prove_nothing() {
        let ledger = read(&[(5000, record(Act::Claim, 1, None))]);
        for (now, live) in [(5000, true), (5999, true), (4500, true), (6000, false), (9999, false), (3000, false)] {
            assert_eq!(matches!(ledger.standing(now), Standing::Held(_)), live, "{now}");
        }
        assert_eq!(ledger.holder().unwrap().until(), Timestamp::from_millisecond(6000).unwrap());
        assert_eq!(ledger.holder().unwrap().claim.holder(), "process 7 on h");
    }

    #[test]
    fn a_claim_whose_beginning_was_deleted_is_known_by_its_renewals() {
        let mut ledger = Ledger::beginning_at(9);
        ledger.on(9, 9, record(Act::Renew, 1, None));
        assert!(held_by(&ledger, 1));
        let mut whole = Ledger::beginning_at(0);
        whole.on(9, 9, record(Act::Renew, 1, None));
        assert_eq!(whole.holder(), None);
    }

    #[test]
    fn a_late_renewal_gets_nothing_back_also_where_the_beginning_was_deleted() {
        let taken_over = record(Act::Claim, 2, Some((1, 9)));
        for first in [vec![(9, record(Act::Renew, 1, None))], Vec::new()] {
            let mut ledger = Ledger::beginning_at(9);
            for (offset, claim) in
                first.into_iter().chain([(10, taken_over.clone()), (11, record(Act::Renew, 1, None))])
            {
                ledger.on(offset, offset, claim);
            }
            assert!(held_by(&ledger, 2));
        }
    }

    #[test]
    fn a_claim_that_did_not_count_hides_no_older_one_that_is_renewed() {
        let mut ledger = Ledger::beginning_at(9);
        ledger.on(9, 9, record(Act::Claim, 2, None));
        ledger.on(10, 10, record(Act::Renew, 1, None));
        assert!(held_by(&ledger, 1));
    }

    fn act() -> impl Strategy<Value = (Act, u128, Option<(u128, i64)>)> {
        let act = prop_oneof![Just(Act::Claim), Just(Act::Renew), Just(Act::Release)];
        (act, 1..4_u128, proptest::option::of((1..4_u128, 0..12_i64)))
    }

    proptest! {
        #[test]
        fn nobody_becomes_the_holder_but_by_a_claim_on_what_is_free_or_was_last_seen(
            acts in proptest::collection::vec(act(), 0..12)
        ) {
            let mut ledger = Ledger::beginning_at(0);
            for (offset, (act, id, over)) in (0..).zip(acts) {
                let before = ledger.holder().cloned();
                let record = record(act, id, over);
                ledger.on(offset, offset, record.clone());
                let after = ledger.holder();
                if after.map(|h| h.seen.id) == before.as_ref().map(|h| h.seen.id) {
                    continue;
                }
                match after {
                    None => prop_assert!(act == Act::Release && before.unwrap().seen.id == record.id),
                    Some(now) => {
                        let claimed = Seen { id: record.id, offset };
                        prop_assert!(act == Act::Claim && now.seen == claimed);
                        prop_assert!(before.is_none_or(|before| record.over == Some(before.seen)));
                    }
                }
            }
        }
    }
}
