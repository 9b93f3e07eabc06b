//! [`LineBody`], a body of NDJSON that is published while it arrives.
//!
//! Rules:
//! - A client that owes bytes of its rate is read no further until it has paid.
//! - The end of the service ends the reading.
//! - The bytes that wait, and those of the results, are within the memory for bodies.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::watch;

use super::body::{BodyReader, bodies_full};
use super::gateway::Gateway;
use super::head::Head;
use crate::limits::budget::Share;
use crate::shapes::failure::Failure;
use crate::shapes::ndjson::Lines;
use crate::shapes::principal::Principal;
use crate::shapes::problem::Problem;

/// A body of lines that is read in parts.
pub(super) struct LineBody<'a, B> {
    gateway: &'a Gateway,
    client: Option<&'a Principal>,
    reader: BodyReader<B>,
    closing: watch::Receiver<bool>,
    pub(super) lines: Lines,
    share: Share,
}

impl<'a, B: Body<Data = Bytes> + Unpin> LineBody<'a, B>
where
    B::Error: Display,
{
    pub(super) fn new(gateway: &'a Gateway, head: &Head, client: Option<&'a Principal>, body: B) -> Self {
        let config = &gateway.0.config;
        Self {
            gateway,
            client,
            reader: BodyReader::new(body, head.encoding, config),
            closing: gateway.0.is_closing.subscribe(),
            lines: Lines::new(config.max_body_bytes),
            share: gateway.0.budget.empty_share(),
        }
    }

    /// Reads the next part, or `None` at the end. A part may be empty.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no part.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        tokio::select! {
            biased;
            // The gateway has the sender.
            _ = self.closing.wait_for(|is_closing| *is_closing) => Err(closes()),
            part = async {
                let owed = self.gateway.0.clients.count_bytes(self.client, 0);
                if !owed.is_zero() {
                    tokio::time::sleep(owed).await;
                    self.reader.paused(owed);
                }
                self.reader.next().await
            } => part,
        }
    }

    /// Adds a part to the lines, or ends them. The results take `result_bytes` meanwhile.
    pub(super) fn add(&mut self, part: Option<&Bytes>, result_bytes: usize) -> Result<(), Failure> {
        match part {
            Some(part) => {
                self.reserve(part.len() + result_bytes)?;
                self.lines.push(part);
            }
            None => self.lines.end(),
        }
        Ok(())
    }

    /// Reserves memory for what waits, and for `more` bytes.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), Failure> {
        match self.share.grow_to(self.lines.waiting() + more) {
            true => Ok(()),
            false => Err(bodies_full()),
        }
    }

    /// Notes that the reader itself paused.
    pub(super) fn paused(&mut self, time: Duration) {
        self.reader.paused(time);
    }
}

fn closes() -> Failure {
    Failure::new(Problem::Closing, "the service ends: send the rest of the events to another instance")
}
