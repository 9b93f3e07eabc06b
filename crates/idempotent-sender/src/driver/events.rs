//! Passes completed IO to the core as it happens.
//!
//! Rule: the core is notified of written requests before the end of their connection. Otherwise an attempt that was
//! sent would count as unsent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::Reason;
use kafka_courier_client::control::ProducerIdError;

use super::interface::{Observation, Upcalls};
use super::io_event::IoEvent;
use super::{Driver, OpenConnection};

impl<T, U> Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Reports to the core which requests were written completely. Call it before the core is notified that a
    /// connection ended.
    pub(super) fn report_written(&mut self) {
        for (conn, open) in self.connections.iter_mut().filter(|(_, open)| !open.unwritten.is_empty()) {
            let written = open.connection.written();
            while open.reported < written.frames
                && let Some(request) = open.unwritten.pop_front()
            {
                open.reported += 1;
                self.core.on_written(written.last, *conn, request);
            }
        }
    }

    pub(super) fn handle_event(&mut self, event: IoEvent) {
        self.report_written();
        self.brokers_changed |= !matches!(event, IoEvent::Answered(.., Ok(_)) | IoEvent::HealthChecked);
        let now = Instant::now();
        match event {
            IoEvent::Dialed(conn, Ok(connection)) => {
                let (reported, replace_at) = (connection.setup_frames, connection.replace_at);
                self.connections.insert(
                    conn,
                    OpenConnection { connection: Arc::new(connection), unwritten: VecDeque::new(), reported },
                );
                self.core.on_connected(now, conn);
                if let Some(at) = replace_at {
                    self.core.on_session(at, conn);
                }
            }
            IoEvent::Dialed(conn, Err(Reason::NotAvailable(why))) => {
                tracing::debug!(%why, "connection failed");
                self.core.on_disconnected(now, conn, &why);
            }
            IoEvent::Dialed(conn, Err(reason)) => {
                tracing::debug!(%reason, "connection failed permanently");
                self.core.on_refused(now, conn, &reason);
            }
            IoEvent::Answered(conn, request, since, Ok(answer)) => {
                if let Some(broker) = self.core.broker_of(conn) {
                    let (took, throttle) = (now.saturating_duration_since(since), answer.throttle);
                    self.upcalls.observed(Observation::Answered { broker, took, throttle });
                }
                self.core.on_answer(now, conn, request, answer);
            }
            IoEvent::Answered(conn, _, _, Err(error)) => {
                if self.connections.contains_key(&conn) {
                    let why = error.to_string();
                    let broker = self.core.broker_of(conn).map(|broker| broker.0);
                    tracing::debug!(broker, why, "broker disconnected");
                    self.disconnect(conn);
                    self.core.on_disconnected(now, conn, &why);
                }
            }
            IoEvent::Metadata(Ok(cluster)) => {
                self.log_cluster_accepted();
                self.upcalls.observed(Observation::Metadata);
                self.core.on_metadata(now, cluster);
            }
            IoEvent::Metadata(Err(Reason::NotAvailable(why))) => {
                tracing::debug!(%why, "metadata request failed");
                self.core.on_metadata_failed(now, &why);
            }
            IoEvent::Metadata(Err(reason)) => {
                self.log_cluster_refused(&reason);
                self.core.on_metadata_refused(now, &reason);
            }
            IoEvent::ProducerId(Ok(id)) => {
                self.core.on_producer_id(now, id);
                self.upcalls.producer_id(id);
            }
            IoEvent::ProducerId(Err(ProducerIdError::Refused(reason))) => {
                self.core.on_producer_id_refused(now, &reason);
            }
            IoEvent::ProducerId(Err(ProducerIdError::Failed { code, why })) => {
                self.core.on_producer_id_failed(now, code, &why);
            }
            IoEvent::Limit(topic, limit) => self.handle_limit(topic, limit),
            IoEvent::HealthChecked => {}
            IoEvent::Looked(partition, look, answer) => self.core.on_state_lookup(now, partition, look, answer),
            IoEvent::Searched(partition, look, answer) => self.core.on_log_search(now, partition, look, &answer),
        }
    }
}
