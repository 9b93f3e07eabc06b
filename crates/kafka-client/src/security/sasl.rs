//! The SASL exchange at the start of a connection (KIP-43, KIP-152, KIP-368).
//!
//! Rules:
//! - A refusal is permanent. Its error names the broker, the mechanism and the user.
//! - A broker's message is shortened, and the client's secret is masked in it.
//! - An unavailable token is not a refusal.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rskafka::messenger::{Messenger, RequestError};
use zeroize::Zeroizing;

use super::scram::{ClientFirst, ScramError, ScramHash};
use super::settings::SaslSettings;
use crate::error_code::ErrorCode;
use crate::reason::Reason;
use crate::secret::{HIDDEN, Secret};
use crate::stream::FrameStream;
use crate::wire::displayable;
use crate::wire::messenger::{Authenticated, Mechanisms};
use crate::wire::sasl::{authenticate, handshake};

/// The longest session that counts.
const LONGEST_SESSION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The time to replace a connection, or `None` for never. A broker closes a connection whose session is over (KIP-368).
pub(crate) type ReplaceAt = Option<Instant>;

impl SaslSettings {
    fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::Scram { hash: ScramHash::Sha256, .. } => "SCRAM-SHA-256",
            Self::Scram { hash: ScramHash::Sha512, .. } => "SCRAM-SHA-512",
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }

    /// Authenticates a connection to `broker` (host:port).
    pub(crate) async fn authenticate(
        &self,
        messenger: &Messenger<FrameStream>,
        broker: &str,
    ) -> Result<ReplaceAt, Reason> {
        let exchange = SaslExchange { messenger, broker, mechanism: self.mechanism() };
        exchange.select_mechanism().await?;
        let last = match self {
            Self::Plain { username, password } => exchange.plain(username, password).await?,
            Self::Scram { hash, username, password } => exchange.scram(*hash, username, password).await?,
            Self::OAuthBearer(source) => {
                let token = source.token().await.map_err(|error| exchange.unavailable(&error.to_string()))?;
                exchange.bearer(&token).await?
            }
        };
        Ok(replace_at(last.session_lifetime_ms, Instant::now()))
    }
}

/// Returns when to replace a connection with this session lifetime: after 85 % of it, the earliest time of Java
/// clients. Requests in flight can still be answered then.
fn replace_at(lifetime_ms: i64, now: Instant) -> ReplaceAt {
    let lifetime = Duration::from_millis(u64::try_from(lifetime_ms).unwrap_or(0)).min(LONGEST_SESSION);
    (!lifetime.is_zero()).then(|| now + lifetime.mul_f64(0.85))
}

/// Returns the remedy when the broker offers only these mechanisms.
fn mechanism_remedy(offered: &str) -> String {
    if offered.is_empty() {
        return "it offers no mechanism: check that the listener has SASL, security_protocol and the port".to_owned();
    }
    format!("it offers {offered}: set sasl_mechanism to one of these")
}

/// Describes an error code of the exchange, for brokers that send no message.
fn describe_code(code: ErrorCode) -> String {
    match code {
        ErrorCode::ILLEGAL_SASL_STATE => {
            "this listener has no SASL: set security_protocol to PLAINTEXT or SSL, or use the port of the listener \
             with SASL in brokers"
                .to_owned()
        }
        code => code.description().to_owned(),
    }
}

/// The length of a masked part of a secret, in characters.
const MASKED: usize = 8;

/// Masks the secret in a broker's text: the whole secret, and parts of it, as text, hexadecimal or base64.
fn masked(text: &str, secret: &str) -> String {
    if secret.is_empty() {
        return text.to_owned();
    }
    let text: Vec<char> = text.replace(secret, HIDDEN).chars().collect();
    let encodings = encodings(secret);
    let is_part =
        |window: &[char]| encodings.iter().any(|encoding| encoding.windows(MASKED).any(|part| part == window));
    let mut parts = text.windows(MASKED).map(is_part);
    let (mut shown, mut hidden_to) = (String::new(), 0);
    for (at, c) in text.iter().enumerate() {
        if parts.next() == Some(true) {
            if at >= hidden_to {
                shown += HIDDEN;
            }
            hidden_to = at + MASKED;
        }
        if at >= hidden_to {
            shown.push(*c);
        }
    }
    shown
}

/// Returns the secret in each encoding that is masked.
fn encodings(secret: &str) -> Vec<Vec<char>> {
    let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut encodings = vec![secret.to_owned(), hexadecimal.to_uppercase(), hexadecimal];
    for part in (0..3).filter_map(|from| secret.as_bytes().get(from..)) {
        encodings.extend([STANDARD_NO_PAD.encode(part), URL_SAFE_NO_PAD.encode(part)]);
    }
    encodings.iter().map(|encoding| encoding.chars().collect()).collect()
}

/// One SASL exchange.
struct SaslExchange<'a> {
    messenger: &'a Messenger<FrameStream>,
    broker: &'a str,
    mechanism: &'static str,
}

impl SaslExchange<'_> {
    async fn select_mechanism(&self) -> Result<(), Reason> {
        let asked = self.messenger.request(handshake::Request { mechanism: self.mechanism }).await;
        let Mechanisms((code, known)) = asked.map_err(|error| self.failed(&error))?;
        match ErrorCode(code) {
            ErrorCode::NONE => Ok(()),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let known: Vec<&str> = known.iter().map(|name| &**name).take(8).collect();
                Err(self.refused(
                    ErrorCode::UNSUPPORTED_SASL_MECHANISM,
                    "",
                    &mechanism_remedy(&displayable(&known.join(", "))),
                    None,
                ))
            }
            code => Err(self.refused(code, "", &describe_code(code), None)),
        }
    }

    async fn plain(&self, username: &str, password: &Secret) -> Result<authenticate::Answer, Reason> {
        let message = [b"\0", username.as_bytes(), b"\0", password.expose().as_bytes()].concat();
        self.send(message, username, Some(password)).await
    }

    async fn scram(&self, hash: ScramHash, user: &str, password: &Secret) -> Result<authenticate::Answer, Reason> {
        let nonce =
            random_nonce().map_err(|error| self.unavailable(&format!("no random numbers for a nonce: {error}")))?;
        let first = ClientFirst::new(user, nonce);
        let answer = self.send(first.message().into_bytes(), user, Some(password)).await?;
        let (copy, server) = (password.clone(), answer.message);
        // The server chooses the number of iterations, and with it the duration.
        let computed = tokio::task::spawn_blocking(move || first.answer(hash, &copy, &server)).await;
        let computed = computed.map_err(|error| self.unavailable(&error.to_string()))?;
        let not_believed = |error: ScramError| {
            self.refused(ErrorCode::SASL_AUTHENTICATION_FAILED, user, &error.to_string(), Some(password))
        };
        let last = computed.map_err(not_believed)?;
        let answer = self.send(last.message.clone().into_bytes(), user, Some(password)).await?;
        last.verify(&answer.message).map_err(not_believed)?;
        Ok(answer)
    }

    async fn bearer(&self, token: &Secret) -> Result<authenticate::Answer, Reason> {
        let message = [b"n,,\x01auth=Bearer ", token.expose().as_bytes(), b"\x01\x01"].concat();
        let answer = self.send(message, "", Some(token)).await?;
        if answer.message.is_empty() {
            return Ok(answer);
        }
        // The broker explains the refusal, and sends the code after a confirmation (RFC 7628, 3.2.3). A broker that
        // closes the connection instead has refused the client too.
        let why = String::from_utf8_lossy(&answer.message).into_owned();
        match self.send(vec![1], "", Some(token)).await {
            Err(refused @ Reason::Broker { .. }) => Err(refused),
            _ => Err(self.refused(ErrorCode::SASL_AUTHENTICATION_FAILED, "", &why, Some(token))),
        }
    }

    /// Sends one message of the mechanism.
    async fn send(
        &self,
        message: Vec<u8>,
        user: &str,
        secret: Option<&Secret>,
    ) -> Result<authenticate::Answer, Reason> {
        let request = authenticate::Request { message: Zeroizing::new(message) };
        let Authenticated(answer) = self.messenger.request(request).await.map_err(|error| self.failed(&error))?;
        if answer.code == ErrorCode::NONE.0 {
            return Ok(answer);
        }
        let code = ErrorCode(answer.code);
        let given = answer.error.as_deref().filter(|why| !why.is_empty());
        let why = given.map_or_else(|| describe_code(code), str::to_owned);
        Err(self.refused(code, user, &why, secret))
    }

    fn refused(&self, code: ErrorCode, user: &str, why: &str, secret: Option<&Secret>) -> Reason {
        // A broker could repeat the client's secret.
        let why = secret.map_or_else(|| why.to_owned(), |secret| masked(why, secret.expose()));
        let why = displayable(&why);
        let who = if user.is_empty() { String::new() } else { format!(" user {user}") };
        let Self { broker, mechanism, .. } = self;
        Reason::Broker { code, message: Some(format!("{broker} refused{who} with {mechanism}: {why}").into()) }
    }

    fn failed(&self, error: &RequestError) -> Reason {
        self.unavailable(&error.to_string())
    }

    fn unavailable(&self, why: &str) -> Reason {
        Reason::NotAvailable(format!("{}: authentication with {} failed: {why}", self.broker, self.mechanism).into())
    }
}

/// Returns 24 random bytes in base64.
fn random_nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)?;
    Ok(STANDARD_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_names_the_offered_mechanisms() {
        assert_eq!(
            mechanism_remedy("PLAIN, SCRAM-SHA-512"),
            "it offers PLAIN, SCRAM-SHA-512: set sasl_mechanism to one of these"
        );
        assert!(mechanism_remedy("").contains("check that the listener has SASL"));
    }

    #[test]
    fn parts_of_a_secret_are_hidden() {
        let secret = "correct horse battery staple";
        let base64 = STANDARD_NO_PAD.encode(&secret[1..]);
        for (text, expected) in [
            ("user alice: correct horse battery staple!", "user alice: ***!"),
            ("began with correct horse b..", "began with ***.."),
            ("63 6f 72", "63 6f 72"),
            ("0x636f727265637420686f", "0x***"),
            (&*format!("<{base64}>"), "<***>"),
            ("correct", "correct"),
        ] {
            assert_eq!(masked(text, secret), expected, "{text}");
        }
        assert_eq!((masked("a", ""), masked("the cat", "cat")), ("a".to_owned(), "the ***".to_owned()));
    }

    #[test]
    fn connection_is_replaced_before_session_end() {
        let now = Instant::now();
        assert_eq!(replace_at(10_000, now), Some(now + Duration::from_millis(8500)));
        assert_eq!(replace_at(0, now), None);
        assert_eq!(replace_at(-5, now), None);
        assert_eq!(replace_at(i64::MAX, now), Some(now + LONGEST_SESSION.mul_f64(0.85)));
    }
}
