//! Publishing the items of an input: the spool has an item and its event in one round.
//!
//! Rule: an input is begun before its items. The channel to the spool's thread keeps that order.

use kafka_courier_event_model::Event;
use kafka_courier_spool::core::entry::Ordinal;
use kafka_courier_spool::core::inputs::ItemSet;

use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::error::PublishError;
use crate::spool::{InputId, InputItem, SpoolCommand, SpooledInput};
use crate::topics::TopicEntry;

impl Engine {
    /// Returns the inputs that the spool had when it was opened, the oldest first.
    pub fn spool_inputs(&self) -> Vec<SpooledInput> {
        self.intake.shared.spool.as_ref().map(|spool| spool.status.inputs()).unwrap_or_default()
    }

    /// Begins an input. An earlier one of the same name is forgotten. Returns `None` without a spool.
    pub fn begin_input(&self, name: &str) -> Option<InputId> {
        let spool = self.intake.shared.spool.as_ref()?;
        let id = spool.status.next_input()?;
        spool.send(SpoolCommand::Input { input: id.number, name: name.into() });
        Some(id)
    }

    /// Notes items that have no event to publish. The spool has them as dealt with soon.
    pub fn skip_items(&self, items: &[InputItem]) {
        let Some(spool) = &self.intake.shared.spool else { return };
        for InputItem { input, number, check } in items {
            let mut items = ItemSet::default();
            items.insert(Ordinal(*number), *check);
            spool.send(SpoolCommand::Skipped { input: input.number, items });
        }
    }

    /// Publishes the event of an item to `topic`, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_item(&self, topic: &str, event: &dyn Event, item: &InputItem) -> Result<Delivery, PublishError> {
        self.try_publish_with(topic, event, Some(item))
    }

    /// Publishes the event of an item to `topic`. Waits only while the topic is unknown or memory is full.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_item(
        &self,
        topic: &str,
        event: &dyn Event,
        item: &InputItem,
    ) -> Result<Delivery, PublishError> {
        let event_trace = self.tracer.trace_event(topic, event);
        let offer = |topic: &TopicEntry| self.offer_event(topic, event, &event_trace, Some(item));
        let accepted = match self.offer_first(topic, offer) {
            Ok(delivery) => Ok(delivery),
            Err(refused) => self.offer_until(topic, refused, self.max_block, offer).await,
        };
        accepted.map(|delivery| delivery.linked_to(&event_trace)).map_err(|error| self.refused(error))
    }
}
