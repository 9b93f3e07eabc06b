//! The versions of requests that a broker supports, and the versions in common.
//!
//! Rules:
//! - A request without a version in common is not sent.
//! - A broker that lacks a request of delivery is unusable. Dialing it fails with that error.

use std::collections::HashMap;
use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;

use crate::no_common_version::NoCommonVersion;
use crate::wire::api_versions::ApiRange;
use crate::wire::messenger::{OPTIONAL_APIS, REQUIRED_APIS, api_key};

/// The versions that a broker supports.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    broker: Arc<str>,
    theirs: HashMap<ApiKey, (i16, i16)>,
}

impl Versions {
    /// Creates the versions from the broker's answer. Ranges with a lowest version above the highest are left out.
    pub(crate) fn new(broker: Arc<str>, ranges: &[ApiRange]) -> Self {
        let valid = ranges.iter().filter(|(_, lowest, highest)| lowest <= highest);
        let theirs = valid.map(|(key, lowest, highest)| (api_key(*key), (*lowest, *highest)));
        Self { broker, theirs: theirs.collect() }
    }

    /// Returns the newest version in common.
    fn common(&self, key: ApiKey, ours: (i16, i16)) -> Option<i16> {
        let (lowest, highest) = *self.theirs.get(&key)?;
        let newest = highest.min(ours.1);
        (newest >= lowest.max(ours.0)).then_some(newest)
    }

    /// Fails if there is no version in common.
    fn check_one(&self, key: ApiKey, api: &'static str, ours: (i16, i16)) -> Result<i16, NoCommonVersion> {
        self.common(key, ours).ok_or_else(|| {
            let theirs = self.theirs.get(&key).copied();
            NoCommonVersion { broker: self.broker.clone(), api, ours, theirs }
        })
    }

    /// Fails if the broker lacks a request that delivery needs.
    pub(crate) fn check_required(&self) -> Result<(), NoCommonVersion> {
        REQUIRED_APIS.iter().try_for_each(|(key, api, ours)| self.check_one(*key, api, *ours).map(|_| ()))
    }

    /// Fails if there is no version of this request in common.
    pub(crate) fn check(&self, key: ApiKey) -> Result<(), NoCommonVersion> {
        let supported = REQUIRED_APIS.iter().chain(&OPTIONAL_APIS).find(|(known, ..)| *known == key);
        supported.map_or(Ok(()), |(key, api, ours)| self.check_one(*key, api, *ours).map(|_| ()))
    }

    /// Logs the negotiated versions.
    pub(crate) fn log(&self) {
        let [produce, metadata, init_producer_id] = REQUIRED_APIS.map(|(key, _, ours)| self.common(key, ours));
        let [fetch, list_offsets, describe_configs, describe_producers, offset_for_leader_epoch] =
            OPTIONAL_APIS.map(|(key, _, ours)| self.common(key, ours));
        tracing::debug!(
            broker = %self.broker,
            produce,
            metadata,
            init_producer_id,
            fetch,
            list_offsets,
            describe_configs,
            describe_producers,
            offset_for_leader_epoch,
            "versions negotiated"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(ranges: &[ApiRange]) -> Versions {
        Versions::new("b:1".into(), ranges)
    }

    #[test]
    fn newest_common_version_is_used() {
        let broker = versions(&[(0, 0, 99), (3, 7, 9), (22, 9, 0)]);
        assert_eq!(broker.common(ApiKey::Produce, (3, 13)), Some(13));
        assert_eq!(broker.common(ApiKey::Metadata, (1, 13)), Some(9));
        assert_eq!(broker.common(ApiKey::Metadata, (1, 6)), None);
        assert_eq!(broker.common(ApiKey::InitProducerId, (0, 5)), None, "the lowest version is above the highest");
    }

    #[test]
    fn broker_without_idempotence_is_refused() {
        let old = versions(&[(0, 0, 2), (3, 0, 2), (18, 0, 0)]);
        let NoCommonVersion { api, ours, theirs, .. } = old.check_required().unwrap_err();
        assert_eq!((api, ours, theirs), ("Produce", (3, 13), Some((0, 2))));
        let odd = versions(&[(0, 3, 9), (3, 0, 9), (18, 0, 0)]);
        let NoCommonVersion { api, theirs, .. } = odd.check_required().unwrap_err();
        assert_eq!((api, theirs), ("InitProducerId", None));
        assert_eq!(versions(&[(0, 0, 3), (3, 0, 4), (22, 0, 0)]).check_required(), Ok(()));
    }

    #[test]
    fn optional_requests_are_checked_when_sent() {
        let broker = versions(&[(0, 0, 3), (3, 0, 4), (22, 0, 0), (32, 0, 0)]);
        assert_eq!(broker.check(ApiKey::DescribeConfigs).unwrap_err().theirs, Some((0, 0)));
        assert_eq!(broker.check(ApiKey::DescribeProducers).unwrap_err().theirs, None);
        assert_eq!(broker.check(ApiKey::OffsetForLeaderEpoch).unwrap_err().ours, (2, 4));
        assert_eq!(broker.check(ApiKey::Metadata), Ok(()));
    }
}
