//! [`Builder`]: options set in code, one method each.
//!
//! The rules of this module:
//!  - Every option of the table has a method of the same name.
//!  - No setter fails. `build`, `connect` and `config` report all problems together.

use std::sync::Arc;

use kafka_courier_client::Secret;
use kafka_courier_client::security::TokenSource;
use kafka_courier_dlq::DeadLetterStore;
use kafka_courier_producer::TraceContextSource;

use crate::config::{ConfigErrors, ConfigProblem, Endpoint, InvalidValue, KafkaConfig, OptionValue, SaslMechanism};

/// Builds a [`KafkaProducer`](crate::KafkaProducer): starts with the defaults, and has one method for each option, with the option's name.
///
/// # Examples
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
    pub(crate) problems: Vec<ConfigProblem>,
    /// Whether `retry_backoff_max` was set. If not, a higher `retry_backoff` raises it.
    sets_longest_wait: bool,
    extras: Extras,
}

/// Settings that have no text form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// The application's own store of dead letters.
    pub(crate) letters: Option<Arc<dyn DeadLetterStore>>,
    pub(crate) trace: Option<TraceContextSource>,
    pub(crate) tokens: Option<TokenSource>,
}

impl Builder {
    /// Replaces all settings with `config`. Earlier calls of the builder's methods have no effect.
    pub fn with_config(mut self, config: KafkaConfig) -> Self {
        self.config = config;
        self.sets_longest_wait = true;
        self
    }

    /// Keeps dead letters in `store`, which takes precedence over `dlq_file` and `dlq_topic`.
    pub fn dead_letter_store(mut self, store: Arc<dyn DeadLetterStore>) -> Self {
        self.extras.letters = Some(store);
        self
    }

    /// Adds the trace context of the originating spans to records.
    ///
    /// # Examples
    ///
    /// A source for the crates `opentelemetry` and `tracing-opentelemetry`:
    ///
    /// ```no_run
    /// # // Stands for the two crates, with the methods that are used.
    /// # trait OpenTelemetrySpanExt { fn context(&self) -> Context; }
    /// # impl OpenTelemetrySpanExt for tracing::Span { fn context(&self) -> Context { Context } }
    /// # #[derive(Clone)]
    /// # struct Context;
    /// # impl Context {
    /// #     fn span(&self) -> &Self { self }
    /// #     fn span_context(&self) -> &Self { self }
    /// #     fn trace_id(&self) -> &'static str { "4bf92f3577b34da6a3ce929d0e0e4736" }
    /// #     fn span_id(&self) -> &'static str { "00f067aa0ba902b7" }
    /// #     fn trace_flags(&self) -> u8 { 1 }
    /// #     fn trace_state(&self) -> &Self { self }
    /// #     fn header(&self) -> String { String::new() }
    /// # }
    /// use kafka_courier::events::TraceContext;
    /// use kafka_courier::{KafkaProducer, TraceContextSource};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let source = TraceContextSource::new(|span| {
    ///     let context = span.context(); // OpenTelemetrySpanExt
    ///     let context = context.span().span_context().clone();
    ///     let parent = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags());
    ///     TraceContext::new(&parent, Some(&context.trace_state().header())).ok()
    /// });
    /// let producer = KafkaProducer::builder().trace_context(source).build()?;
    /// # drop(producer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn trace_context(mut self, source: TraceContextSource) -> Self {
        self.extras.trace = Some(source);
        self
    }

    /// Sets the source of OAUTHBEARER tokens. The producer requests a token for each new connection.
    ///
    /// A token source together with another mechanism, or with `sasl_oauthbearer_token_location`, is an error.
    ///
    /// # Examples
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

    /// Returns the settings.
    ///
    /// # Errors
    ///
    /// All problems of the settings together.
    pub fn config(self) -> Result<KafkaConfig, ConfigErrors> {
        let (config, mut problems, _) = self.take();
        add_problems(&config, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems.into()) }
    }

    pub(crate) fn take(mut self) -> (KafkaConfig, Vec<ConfigProblem>, Extras) {
        if !self.sets_longest_wait {
            self.config.raise_backoff_max();
        }
        (self.config, self.problems, self.extras)
    }

    /// Stores a setting, or notes its problem.
    pub(crate) fn set<T>(
        mut self,
        name: &'static str,
        value: impl Setting<T>,
        put: impl FnOnce(&mut KafkaConfig, T),
    ) -> Self {
        self.sets_longest_wait |= name == "retry_backoff_max";
        match value.setting() {
            Ok(value) => put(&mut self.config, value),
            Err(error) => self.problems.push(ConfigProblem::of_text(name, error)),
        }
        self
    }
}

/// Adds the problems of the configuration. A rejected setting left its option as it was, so problems of such an option are
/// left out.
pub(crate) fn add_problems(config: &KafkaConfig, problems: &mut Vec<ConfigProblem>) {
    let mut found = config.problems();
    let rejected =
        |problem: &ConfigProblem| problems.iter().filter_map(ConfigProblem::option).any(|it| problem.concerns(it));
    found.retain(|problem| !rejected(problem));
    problems.extend(found);
}

/// A value for an option of the [`Builder`]: the option's own type, or its text as in a configuration file.
pub trait Setting<T> {
    /// Returns the option's value.
    ///
    /// # Errors
    ///
    /// The value and the values that the option allows.
    fn setting(self) -> Result<T, InvalidValue>;
}

impl<T> Setting<T> for T {
    fn setting(self) -> Result<T, InvalidValue> {
        Ok(self)
    }
}

/// Reads the option's text, as in a configuration file or an environment variable.
impl<T: OptionValue> Setting<T> for &str {
    fn setting(self) -> Result<T, InvalidValue> {
        T::parse(self)
    }
}

/// Reads the text as [`&str`](str) does.
impl Setting<Vec<Endpoint>> for String {
    fn setting(self) -> Result<Vec<Endpoint>, InvalidValue> {
        self.as_str().setting()
    }
}

impl Setting<Option<Self>> for Secret {
    fn setting(self) -> Result<Option<Self>, InvalidValue> {
        Ok(Some(self))
    }
}

impl Setting<Option<Self>> for u64 {
    fn setting(self) -> Result<Option<Self>, InvalidValue> {
        Ok(Some(self))
    }
}

impl Setting<Option<Self>> for SaslMechanism {
    fn setting(self) -> Result<Option<Self>, InvalidValue> {
        Ok(Some(self))
    }
}

impl KafkaConfig {
    /// Returns a builder that starts with the defaults. [`Builder::config`] returns the configuration.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_together() {
        let errors = Builder::default().brokers("a:b").max_in_flight(6).flush_messages(0).config().unwrap_err();
        assert_eq!(errors.problems().len(), 3, "{errors}");
        assert!(errors.to_string().contains("brokers is \"a:b\""), "{errors}");
    }

    #[test]
    fn rejected_setting_has_one_problem() {
        let builder = Builder::default().security_protocol("SASL_SSL").sasl_mechanism("NONE");
        let errors = builder.config().unwrap_err();
        assert_eq!(errors.problems().len(), 1, "{errors}");
        assert!(errors.to_string().starts_with("sasl_mechanism is \"NONE\""), "{errors}");
    }

    #[test]
    fn set_options_differ_from_defaults() {
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
    fn retry_backoff_raises_default_maximum() {
        let lifted = Builder::default().retry_backoff("5s").config().unwrap();
        assert_eq!(lifted.retry_backoff_max, lifted.retry_backoff);
        let both = Builder::default().retry_backoff("5s").retry_backoff_max("2s").config().unwrap_err().to_string();
        assert!(both.starts_with("retry_backoff is 5s, more than retry_backoff_max (2s)"), "{both}");
        let own = KafkaConfig { retry_backoff: std::time::Duration::from_secs(5), ..KafkaConfig::default() };
        assert!(Builder::default().with_config(own).config().is_err(), "with_config raises nothing");
    }
}
