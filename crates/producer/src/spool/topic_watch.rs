//! The task that learns how the cluster names itself and the topics that the sender knows.
//!
//! Rules:
//!  - A topic is asked for again each time that the sender announces it, because it may have been created again.
//!  - A topic of the spool that the sender fails to find is requested again. Its events wait for it.
//!  - Brokers that can't show their producer states are reported with each topic.
//!  - A topic id that another one has followed never returns. A broker that answers with it is asked again.
//!  - The task ends with the sender's task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::connection::Dialer;
use kafka_courier_client::control::Control;
use kafka_courier_client::{ErrorCode, TopicId, TopicUuid};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};

use super::command::{SpoolCommand, SpoolSender, TopicIdentity};
use super::inherit::NO_TOPIC_ID;

/// The time after which a missing topic is requested again.
const TOPIC_RETRY: Duration = Duration::from_secs(1);

/// News of a topic, from the sender's task.
#[derive(Debug)]
pub(crate) enum TopicNews {
    /// The sender knows the topic.
    Ready(TopicId, Arc<str>),
    /// The sender did not find the topic.
    Failed(Arc<str>),
}

/// The ids of topics, each topic's in the order in which they followed each other.
#[derive(Debug, Default)]
pub(crate) struct TopicIds(BTreeMap<Arc<str>, Vec<TopicUuid>>);

impl TopicIds {
    /// Notes the id of a topic. Returns whether another one has followed it already.
    pub(crate) fn is_former(&mut self, name: &Arc<str>, id: TopicUuid) -> bool {
        if id == NO_TOPIC_ID {
            return false;
        }
        let ids = self.0.entry(name.clone()).or_default();
        match ids.iter().rposition(|known| *known == id) {
            Some(place) => place + 1 < ids.len(),
            None => {
                ids.push(id);
                false
            }
        }
    }
}

/// Returns the task. It reads `news`, and ends once that channel is closed. `ids` are the ids that the spool knows.
pub(crate) fn watch_topics<T: Send + 'static>(
    config: &ClientConfig,
    spool: SpoolSender<T>,
    commands: WeakUnboundedSender<DriverCommand<T>>,
    news: UnboundedReceiver<TopicNews>,
    ids: TopicIds,
) -> impl Future<Output = ()> + Send + 'static {
    let control = Control::new(config, Dialer::new(config));
    let pause = config.retry_backoff;
    let watch = TopicWatch { control, pause, longest: config.retry_backoff_max.max(pause), spool, commands, ids };
    watch.run(news)
}

struct TopicWatch<T> {
    control: Control,
    pause: Duration,
    longest: Duration,
    spool: SpoolSender<T>,
    commands: WeakUnboundedSender<DriverCommand<T>>,
    ids: TopicIds,
}

impl<T: Send + 'static> TopicWatch<T> {
    async fn run(mut self, mut news: UnboundedReceiver<TopicNews>) {
        let mut unnamed: Vec<(TopicId, Arc<str>)> = Vec::new();
        let mut missing: Vec<Arc<str>> = Vec::new();
        let mut pause = self.pause;
        loop {
            let wait = match (unnamed.is_empty(), missing.is_empty()) {
                (true, true) => None,
                (false, _) => Some(pause),
                (true, false) => Some(TOPIC_RETRY),
            };
            tokio::select! {
                next = news.recv() => match next {
                    None => return,
                    Some(TopicNews::Failed(name)) => missing.push(name),
                    Some(TopicNews::Ready(topic, name)) => {
                        unnamed.retain(|(other, _)| *other != topic);
                        unnamed.push((topic, name));
                        pause = self.pause;
                        // Other topics are usually announced in the same moment, and share the request.
                        while let Ok(more) = news.try_recv() {
                            match more {
                                TopicNews::Ready(topic, name) => unnamed.push((topic, name)),
                                TopicNews::Failed(name) => missing.push(name),
                            }
                        }
                        unnamed = self.name(unnamed).await;
                    }
                },
                () = sleep(wait) => {
                    pause = (pause * 2).min(self.longest);
                    unnamed = self.name(unnamed).await;
                    self.request(std::mem::take(&mut missing));
                }
            }
        }
    }

    /// Asks the cluster for topics. Returns the topics that it did not name.
    async fn name(&mut self, topics: Vec<(TopicId, Arc<str>)>) -> Vec<(TopicId, Arc<str>)> {
        if topics.is_empty() {
            return topics;
        }
        let names = topics.iter().map(|(_, name)| name.clone()).collect();
        let Ok((cluster, named)) = self.control.identity(names).await else { return topics };
        let outdated = self.control.lack_of_producer_states().await;
        let (mut known, mut left) = (Vec::new(), Vec::new());
        for (topic, name) in topics {
            match named.iter().find(|other| other.name == name && other.code == ErrorCode::NONE.0) {
                Some(found)
                    if !found.partitions.is_empty() && !found.uuid.is_some_and(|id| self.ids.is_former(&name, id)) =>
                {
                    let partitions = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
                    let (cluster, outdated) = (cluster.clone(), outdated.clone());
                    known.push(TopicIdentity { topic, uuid: found.uuid, partitions, cluster, outdated });
                }
                _ => left.push((topic, name)),
            }
        }
        for identity in known {
            self.spool.send(SpoolCommand::Identity(identity));
        }
        left
    }

    fn request(&self, names: Vec<Arc<str>>) {
        let Some(commands) = self.commands.upgrade() else { return };
        for name in names {
            // The sender's task may have ended. Nothing waits for the topic then.
            let _ = commands.send(DriverCommand::WantTopic(name));
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_topic_id_is_recognised() {
        let (mut ids, name) = (TopicIds::default(), Arc::from("t"));
        let is_former: Vec<bool> = [1, 1, 2, 1, 2, 3, 2, 3].map(|id| ids.is_former(&name, [id; 16])).into();
        assert_eq!(is_former, [false, false, false, true, false, false, true, false]);
        assert!(!ids.is_former(&Arc::from("u"), [1; 16]));
    }
}
