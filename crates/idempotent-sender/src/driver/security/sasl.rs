//! The SASL exchange that opens a connection (KIP-43, KIP-152, KIP-368).
//!
//! Rules: a refusal is final, and is told with broker, mechanism and user; what a broker says is repeated in part, and
//! without our secret; a token that can't be had is no refusal.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rskafka::messenger::{Messenger, RequestError};
use zeroize::Zeroizing;

use super::SaslSettings;
use super::scram::{ClientFirst, ScramError, ScramHash};
use crate::core::{ErrorCode, Reason};
use crate::driver::stream::FrameStream;
use crate::secret::{HIDDEN, Secret};
use crate::wire::messenger::{Authenticated, Mechanisms};
use crate::wire::sasl::{authenticate, handshake};
use crate::wire::shown;

/// No broker's session lasts longer than this for us.
const LONGEST_SESSION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When a connection has to be replaced (KIP-368): brokers end one whose session is over. `None` is never.
pub(in crate::driver) type Session = Option<Instant>;

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
    pub(in crate::driver) async fn authenticate(
        &self,
        messenger: &Messenger<FrameStream>,
        broker: &str,
    ) -> Result<Session, Reason> {
        let exchange = Exchange { messenger, broker, mechanism: self.mechanism() };
        exchange.choose().await?;
        let last = match self {
            Self::Plain { username, password } => exchange.plain(username, password).await?,
            Self::Scram { hash, username, password } => exchange.scram(*hash, username, password).await?,
            Self::OAuthBearer(source) => {
                let token = source.token().await.map_err(|error| exchange.unavailable(&error.to_string()))?;
                exchange.bearer(&token).await?
            }
        };
        Ok(session_end(last.session_lifetime_ms, Instant::now()))
    }
}

/// When to replace a connection whose session lasts so long: after 85 % of it (as Java clients do at the earliest), so that what is under way then can
/// still be answered.
fn session_end(lifetime_ms: i64, now: Instant) -> Session {
    let lifetime = Duration::from_millis(u64::try_from(lifetime_ms).unwrap_or(0)).min(LONGEST_SESSION);
    (!lifetime.is_zero()).then(|| now + lifetime.mul_f64(0.85))
}

/// What to do where the broker does not know the mechanism, but these.
fn remedy(known: &str) -> String {
    if known.is_empty() {
        return "it knows none: is SASL on at this listener? Look at security_protocol and the port".to_owned();
    }
    format!("it knows {known}: set sasl_mechanism")
}

/// What an error of the exchange means, where the broker says no more.
fn explained(code: ErrorCode) -> String {
    match code {
        ErrorCode::ILLEGAL_SASL_STATE => {
            "this listener has no SASL: set security_protocol to PLAINTEXT or SSL, or give \
                                          brokers the port of the listener with SASL"
                .to_owned()
        }
        code => code.description().to_owned(),
    }
}

/// As many characters of a secret in a row are hidden.
const MASKED: usize = 8;

/// A broker's text without our secret: without the whole of it, and without parts of it, as text, hexadecimal or base64.
fn masked(text: &str, secret: &str) -> String {
    if secret.is_empty() {
        return text.to_owned();
    }
    let text: Vec<char> = text.replace(secret, HIDDEN).chars().collect();
    let forms = forms(secret);
    let is_part = |window: &[char]| forms.iter().any(|form| form.windows(MASKED).any(|part| part == window));
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

/// How a secret may be written.
fn forms(secret: &str) -> Vec<Vec<char>> {
    let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_owned(), hexadecimal.to_uppercase(), hexadecimal];
    for part in (0..3).filter_map(|from| secret.as_bytes().get(from..)) {
        forms.extend([STANDARD_NO_PAD.encode(part), URL_SAFE_NO_PAD.encode(part)]);
    }
    forms.iter().map(|form| form.chars().collect()).collect()
}

/// One exchange.
struct Exchange<'a> {
    messenger: &'a Messenger<FrameStream>,
    broker: &'a str,
    mechanism: &'static str,
}

impl Exchange<'_> {
    async fn choose(&self) -> Result<(), Reason> {
        let asked = self.messenger.request(handshake::Request { mechanism: self.mechanism }).await;
        let Mechanisms((code, known)) = asked.map_err(|error| self.failed(&error))?;
        match ErrorCode(code) {
            ErrorCode(0) => Ok(()),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let known: Vec<&str> = known.iter().map(|name| &**name).take(8).collect();
                Err(self.refused(ErrorCode::UNSUPPORTED_SASL_MECHANISM, "", &remedy(&shown(&known.join(", "))), None))
            }
            code => Err(self.refused(code, "", &explained(code), None)),
        }
    }

    async fn plain(&self, username: &str, password: &Secret) -> Result<authenticate::Answer, Reason> {
        let message = [b"\0", username.as_bytes(), b"\0", password.expose().as_bytes()].concat();
        self.say(message, username, Some(password)).await
    }

    async fn scram(&self, hash: ScramHash, user: &str, password: &Secret) -> Result<authenticate::Answer, Reason> {
        let nonce = fresh_nonce().map_err(|error| self.unavailable(&format!("no random numbers: {error}")))?;
        let first = ClientFirst::new(user, nonce);
        let answer = self.say(first.message().into_bytes(), user, Some(password)).await?;
        let (copy, server) = (password.clone(), answer.message);
        // The server says how long this takes.
        let computed = tokio::task::spawn_blocking(move || first.answer(hash, &copy, &server)).await;
        let computed = computed.map_err(|error| self.unavailable(&error.to_string()))?;
        let not_believed = |error: ScramError| {
            self.refused(ErrorCode::SASL_AUTHENTICATION_FAILED, user, &error.to_string(), Some(password))
        };
        let last = computed.map_err(not_believed)?;
        let answer = self.say(last.message.clone().into_bytes(), user, Some(password)).await?;
        last.verify(&answer.message).map_err(not_believed)?;
        Ok(answer)
    }

    async fn bearer(&self, token: &Secret) -> Result<authenticate::Answer, Reason> {
        let message = [b"n,,\x01auth=Bearer ", token.expose().as_bytes(), b"\x01\x01"].concat();
        let answer = self.say(message, "", Some(token)).await?;
        if answer.message.is_empty() {
            return Ok(answer);
        }
        // The broker tells why not, and says so with a code once we have taken note (RFC 7628, 3.2.3); if it ends the
        // connection instead, it has refused us all the same.
        let why = String::from_utf8_lossy(&answer.message).into_owned();
        match self.say(vec![1], "", Some(token)).await {
            Err(refused @ Reason::Broker { .. }) => Err(refused),
            _ => Err(self.refused(ErrorCode::SASL_AUTHENTICATION_FAILED, "", &why, Some(token))),
        }
    }

    /// Sends one message of the mechanism.
    async fn say(&self, message: Vec<u8>, user: &str, secret: Option<&Secret>) -> Result<authenticate::Answer, Reason> {
        let request = authenticate::Request { message: Zeroizing::new(message) };
        let Authenticated(answer) = self.messenger.request(request).await.map_err(|error| self.failed(&error))?;
        if answer.code == 0 {
            return Ok(answer);
        }
        let code = ErrorCode(answer.code);
        let given = answer.error.as_deref().filter(|why| !why.is_empty());
        let why = given.map_or_else(|| explained(code), str::to_owned);
        Err(self.refused(code, user, &why, secret))
    }

    fn refused(&self, code: ErrorCode, user: &str, why: &str, secret: Option<&Secret>) -> Reason {
        // A broker could send our own secret back to us.
        let why = secret.map_or_else(|| why.to_owned(), |secret| masked(why, secret.expose()));
        let why = shown(&why);
        let who = if user.is_empty() { String::new() } else { format!(" user {user}") };
        let Self { broker, mechanism, .. } = self;
        Reason::Broker { code, message: Some(format!("{broker} refuses{who} by {mechanism}: {why}").into()) }
    }

    fn failed(&self, error: &RequestError) -> Reason {
        self.unavailable(&error.to_string())
    }

    fn unavailable(&self, why: &str) -> Reason {
        Reason::NotAvailable(format!("{}: authenticating by {}: {why}", self.broker, self.mechanism).into())
    }
}

/// 24 random bytes in base64.
fn fresh_nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)?;
    Ok(STANDARD_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_without_mechanisms_is_not_said_to_know_some() {
        assert_eq!(remedy("PLAIN, SCRAM-SHA-512"), "it knows PLAIN, SCRAM-SHA-512: set sasl_mechanism");
        assert!(remedy("").contains("is SASL on at this listener?"));
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
    fn a_connection_is_replaced_before_its_session_ends_and_never_where_there_is_no_end() {
        let now = Instant::now();
        assert_eq!(session_end(10_000, now), Some(now + Duration::from_millis(8500)));
        assert_eq!(session_end(0, now), None);
        assert_eq!(session_end(-5, now), None);
        assert_eq!(session_end(i64::MAX, now), Some(now + LONGEST_SESSION.mul_f64(0.85)));
    }
}
