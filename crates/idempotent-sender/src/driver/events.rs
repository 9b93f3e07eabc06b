//! What comes of what the driver has under way, handed to the core as it happens.
//!
//! Rule: the core hears of what has left before it hears of a connection's end; otherwise an attempt that was sent would pass
//! for unsent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::connection::Link;
use super::control::{NoProducerId, TopicLimit};
use super::words::{Observation, Upcalls};
use super::{Driver, OpenLink};
use crate::core::{
    ClusterMetadata, ConnId, LookAnswer, LookId, PartitionId, ProduceAnswer, Reason, RequestId, SearchAnswer, TopicId,
};

/// What came of something that the driver had under way.
pub(super) enum IoEvent {
    Dialed(ConnId, Result<Link, Reason>),
    Answered(ConnId, RequestId, Instant, Result<ProduceAnswer, String>),
    Metadata(Result<ClusterMetadata, Reason>),
    ProducerId(Result<i64, NoProducerId>),
    Looked(PartitionId, LookId, LookAnswer),
    Searched(PartitionId, LookId, SearchAnswer),
    Limit(TopicId, TopicLimit),
    Probed,
}

impl<T, U> Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Tells the core which requests have left whole. Must come before it hears of a connection's end.
    pub(super) fn report_written(&mut self) {
        for (conn, open) in self.links.iter_mut().filter(|(_, open)| !open.unwritten.is_empty()) {
            let written = open.link.written();
            while open.told < written.frames
                && let Some(request) = open.unwritten.pop_front()
            {
                open.told += 1;
                self.core.on_written(written.last, *conn, request);
            }
        }
    }

    pub(super) fn on_event(&mut self, event: IoEvent) {
        self.report_written();
        self.brokers_changed |= !matches!(event, IoEvent::Answered(.., Ok(_)) | IoEvent::Probed);
        let now = Instant::now();
        match event {
            IoEvent::Dialed(conn, Ok(link)) => {
                let (told, replace_at) = (link.frames_before, link.replace_at);
                self.links.insert(conn, OpenLink { link: Arc::new(link), unwritten: VecDeque::new(), told });
                self.core.on_connected(now, conn);
                if let Some(at) = replace_at {
                    self.core.on_session(at, conn);
                }
            }
            IoEvent::Dialed(conn, Err(Reason::NotAvailable(why))) => {
                tracing::debug!(%why, "could not connect");
                self.core.on_disconnected(now, conn, &why);
            }
            IoEvent::Dialed(conn, Err(reason)) => {
                tracing::debug!(%reason, "connection refused");
                self.core.on_refused(now, conn, &reason);
            }
            IoEvent::Answered(conn, request, since, Ok(answer)) => {
                if let Some(broker) = self.core.broker_of(conn) {
                    let (took, throttle) = (now.saturating_duration_since(since), answer.throttle);
                    self.upcalls.observed(Observation::Answered { broker, took, throttle });
                }
                self.core.on_answer(now, conn, request, answer);
            }
            IoEvent::Answered(conn, _, _, Err(why)) => {
                if self.links.contains_key(&conn) {
                    tracing::debug!(why, "connection lost");
                    self.disconnect(conn);
                    self.core.on_disconnected(now, conn, &why);
                }
            }
            IoEvent::Metadata(Ok(cluster)) => {
                self.cluster_accepted();
                self.upcalls.observed(Observation::Metadata);
                self.core.on_metadata(now, cluster);
            }
            IoEvent::Metadata(Err(Reason::NotAvailable(why))) => {
                tracing::debug!(%why, "no metadata");
                self.core.on_metadata_failed(now, &why);
            }
            IoEvent::Metadata(Err(reason)) => {
                self.cluster_refused(&reason);
                self.core.on_metadata_refused(now, &reason);
            }
            IoEvent::ProducerId(Ok(id)) => {
                self.core.on_producer_id(now, id);
                self.upcalls.producer_id(id);
            }
            IoEvent::ProducerId(Err(NoProducerId::Refused(reason))) => self.core.on_producer_id_refused(now, &reason),
            IoEvent::ProducerId(Err(NoProducerId::Failed { code, why })) => {
                self.core.on_producer_id_failed(now, code, &why);
            }
            IoEvent::Limit(topic, limit) => self.on_limit(topic, limit),
            IoEvent::Probed => {}
            IoEvent::Looked(partition, look, answer) => self.core.on_looked(now, partition, look, answer),
            IoEvent::Searched(partition, look, answer) => self.core.on_searched(now, partition, look, &answer),
        }
    }
}
