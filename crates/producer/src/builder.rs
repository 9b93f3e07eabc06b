//! Settings one by one, for those who write them in code.
//!
//! Rules: every option of the table has a method of its name; nothing fails before the end, where all problems are
//! reported at once.

use std::sync::Arc;

use kafka_courier_dlq::DeadLetterStore;
use kafka_courier_idempotent_sender::Secret;
use kafka_courier_idempotent_sender::driver::security::TokenSource;

use crate::config::{ConfigErrors, Endpoint, KafkaConfig, OptionValue, SaslMechanism};
use crate::producer::{ConnectError, KafkaProducer, Letters};
use crate::trace::TraceContextSource;

/// Builds a [`KafkaProducer`]: a method for each option, named as the option is, beginning with the defaults.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use kafka_courier::KafkaProducer;
///
/// let producer = KafkaProducer::builder()
///     .brokers("kafka-1:9092,kafka-2:9092")
///     .client_id("checkout")
///     .flush_timeout(Duration::from_millis(5))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is built before `.build()`, `.connect()` or `.config()`"]
pub struct Builder {
    pub(crate) config: KafkaConfig,
    pub(crate) problems: Vec<String>,
    /// Whether the longest wait between tries was set, and not only the first.
    sets_longest_wait: bool,
    extras: Extras,
}

/// What no text can say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) letters: Letters,
    pub(crate) trace: Option<TraceContextSource>,
    pub(crate) tokens: Option<TokenSource>,
}

impl Builder {
    /// Begins with these settings instead of the defaults. What was set before is lost.
    pub fn with_config(mut self, config: KafkaConfig) -> Self {
        self.config = config;
        self.sets_longest_wait = true;
        self
    }

    /// Keeps dead letters in a store of one's own, before any other.
    pub fn dead_letter_store(mut self, store: Arc<dyn DeadLetterStore>) -> Self {
        self.extras.letters = Letters::Kept(Some(store));
        self
    }

    /// Has records carry the trace context of the spans that they come from.
    pub fn trace_context(mut self, source: TraceContextSource) -> Self {
        self.extras.trace = Some(source);
        self
    }

    /// Asks for a token whenever a connection is made, for OAUTHBEARER: it is an error to give one with another mechanism,
    /// or together with `sasl_oauthbearer_token_location`.
    ///
    /// ```no_run
    /// # use kafka_courier::{KafkaProducer, SaslMechanism, Secret, SecurityProtocol, TokenSource};
    /// # async fn fetch() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let builder = KafkaProducer::builder()
    ///     .security_protocol(SecurityProtocol::SaslSsl)
    ///     .sasl_mechanism(SaslMechanism::OAuthBearer)
    ///     .token_source(TokenSource::new(|| async { Ok(Secret::new(fetch().await?)) }));
    /// ```
    pub fn token_source(mut self, tokens: TokenSource) -> Self {
        self.extras.tokens = Some(tokens);
        self
    }

    /// The settings. Errors: everything that is wrong with them.
    pub fn config(self) -> Result<KafkaConfig, ConfigErrors> {
        let (config, mut problems, _) = self.take();
        problems.extend(config.problems());
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    fn take(mut self) -> (KafkaConfig, Vec<String>, Extras) {
        if !self.sets_longest_wait {
            self.config.raise_backoff_max();
        }
        (self.config, self.problems, self.extras)
    }

    /// As [`KafkaProducer::build`], with these settings.
    pub fn build(self) -> Result<KafkaProducer, ConfigErrors> {
        let (config, problems, extras) = self.take();
        KafkaProducer::build_with(config, problems, extras)
    }

    /// As [`KafkaProducer::connect`], with these settings.
    pub async fn connect(self) -> Result<KafkaProducer, ConnectError> {
        let (config, problems, extras) = self.take();
        KafkaProducer::connect_with(config, problems, extras).await
    }

    /// Takes a setting, or notes what is wrong with it.
    pub(crate) fn set<T>(mut self, name: &str, value: impl Setting<T>, put: impl FnOnce(&mut KafkaConfig, T)) -> Self {
        self.sets_longest_wait |= name == "retry_backoff_max";
        match value.setting() {
            Ok(value) => put(&mut self.config, value),
            Err(problem) => self.problems.push(format!("{name} {problem}")),
        }
        self
    }
}

/// What an option of the [`Builder`] can be set from: its own type, or its text as in a file.
pub trait Setting<T> {
    /// The option's value, or what is wrong: the value, and what is allowed.
    fn setting(self) -> Result<T, String>;
}

impl<T> Setting<T> for T {
    fn setting(self) -> Result<T, String> {
        Ok(self)
    }
}

/// The option's text, as in a file or variable.
impl<T: OptionValue> Setting<T> for &str {
    fn setting(self) -> Result<T, String> {
        T::read(self).map_err(|allowed| format!("is {}, which is not allowed: {allowed}", T::shown(self)))
    }
}

/// As [`&str`](str).
impl Setting<Vec<Endpoint>> for String {
    fn setting(self) -> Result<Vec<Endpoint>, String> {
        self.as_str().setting()
    }
}

impl Setting<Option<Self>> for Secret {
    fn setting(self) -> Result<Option<Self>, String> {
        Ok(Some(self))
    }
}

impl Setting<Option<Self>> for SaslMechanism {
    fn setting(self) -> Result<Option<Self>, String> {
        Ok(Some(self))
    }
}

impl KafkaConfig {
    /// A builder that begins with the defaults; [`Builder::config`] gives the configuration.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_come_at_the_end_those_of_text_included() {
        let errors = Builder::default().brokers("a:b").max_in_flight(6).flush_messages(0).config().unwrap_err();
        assert_eq!(errors.0.len(), 3, "{errors}");
        assert!(errors.to_string().contains("brokers is \"a:b\""), "{errors}");
    }

    #[test]
    fn what_is_set_is_there_and_the_rest_is_as_by_default() {
        let config = Builder::default().brokers("a:1,b:2").client_id("me").retry_max(9).config().unwrap();
        assert_eq!((config.brokers.len(), config.client_id.as_str(), config.retry_max), (2, "me", 9));
        let same = KafkaConfig {
            brokers: config.brokers.clone(),
            client_id: "me".into(),
            retry_max: 9,
            ..KafkaConfig::default()
        };
        assert_eq!(config, same);
    }

    #[test]
    fn a_first_wait_that_is_longer_than_the_default_longest_one_takes_that_with_it() {
        let lifted = Builder::default().retry_backoff("5s").config().unwrap();
        assert_eq!(lifted.retry_backoff_max, lifted.retry_backoff);
        let both = Builder::default().retry_backoff("5s").retry_backoff_max("2s").config().unwrap_err().to_string();
        assert!(both.starts_with("retry_backoff is 5s, more than retry_backoff_max (2s)"), "{both}");
        let own = KafkaConfig { retry_backoff: std::time::Duration::from_secs(5), ..KafkaConfig::default() };
        assert!(Builder::default().with_config(own).config().is_err(), "both are as they were given");
    }
}
