//! Clients with tokens or certificates, and their rights.
//!
//! Rules:
//! - The file has digests of tokens, never a token. Comparing takes the same time for each token.
//! - A file with an invalid line has no effect at all.
//!
//! A line is a name, the SHA-256 of a token in hex or `certificate=NAME`, and rights: `topics=a,b.*` (default: all topics), `floor=ACK`, `requests=N` and
//! `bytes=N` a second, and `manage` for statistics on the second listener. `#` begins a comment. Lines with the same name are one
//! client with several tokens.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::ack::Ack;
use super::certificate::CertificateNames;
use super::failure::Failure;
use super::problem::Problem;
use super::topic_pattern::TopicPattern;

type TokenDigest = [u8; 32];

/// A client with a token or a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// The client's name, in logs.
    pub name: String,
    /// The weakest acknowledgement that the client may ask for.
    pub floor: Option<Ack>,
    /// The most requests a second. `None` is the limit of all clients, 0 is no limit.
    pub max_requests: Option<u32>,
    /// The most bytes of bodies a second. `None` is the limit of all clients, 0 is no limit.
    pub max_bytes: Option<u32>,
    /// Whether the client may read statistics.
    pub may_manage: bool,
    credential: Credential,
    /// Topics and prefixes of topics. `None` allows all.
    topics: Option<Vec<TopicPattern>>,
}

/// The proof of a client's name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Credential {
    /// A token with this digest, as a bearer token or as the password of the client's name.
    Token(TokenDigest),
    /// A certificate with this name.
    Certificate(String),
}

/// The digest of the token of operators, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OperatorToken(Option<TokenDigest>);

impl OperatorToken {
    /// Parses a digest in hex. An empty text is no token.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self(None)),
            text => parse_digest(text).map(|digest| Self(Some(digest))),
        }
    }

    /// Returns whether the header `authorization` has the token.
    pub fn is_proved_by(&self, authorization: &[u8]) -> bool {
        let token = authorization.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let digest = token.map(|(_, token)| TokenDigest::from(Sha256::digest(token.trim_ascii())));
        matches!((self.0, digest), (Some(known), Some(digest)) if is_same(&known, &digest))
    }
}

impl fmt::Display for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().flatten().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// All clients of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Principals(Vec<Principal>);

/// Why a file of tokens is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: expected {expected}")]
pub struct PrincipalError {
    /// The number of the line, from 1.
    pub line: usize,
    /// The expected part of the line.
    pub expected: &'static str,
}

impl Principals {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// The first invalid line.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        let mut all: Vec<Principal> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let principal = Principal::parse(text).map_err(|expected| PrincipalError { line, expected })?;
            if all.iter().any(|known| known.credential == principal.credential) {
                return Err(PrincipalError { line, expected: "a digest or certificate that no other line has" });
            }
            all.push(principal);
        }
        match all.is_empty() {
            true => Err(PrincipalError { line: 1, expected: "the name of a client, in this or a later line" }),
            false => Ok(Self(all)),
        }
    }

    /// Returns whether a line has this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|principal| principal.name == name)
    }

    /// Finds the client of a request by its header `authorization`, else by the certificate of its connection.
    ///
    /// # Errors
    ///
    /// [`Problem::Unauthenticated`].
    pub fn find(
        &self,
        authorization: Option<&[u8]>,
        certificate: Option<&CertificateNames>,
    ) -> Result<&Principal, Failure> {
        match (authorization, certificate) {
            (Some(authorization), _) => self.find_token(authorization),
            (None, Some(names)) => self.find_certificate(names),
            (None, None) => Err(unauthenticated("send the header authorization: Bearer and a token")),
        }
    }

    fn find_token(&self, authorization: &[u8]) -> Result<&Principal, Failure> {
        let space = authorization.iter().position(|byte| *byte == b' ').unwrap_or(authorization.len());
        let (scheme, value) = authorization.split_at(space);
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.with_token(value.trim_ascii(), None);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(unauthenticated("use the scheme Bearer or Basic"));
        }
        let pair = Zeroizing::new(STANDARD.decode(value.trim_ascii()).unwrap_or_default());
        // A name has no colon (RFC 7617).
        let colon = pair.iter().position(|byte| *byte == b':');
        match colon.and_then(|colon| pair.split_at_checked(colon)) {
            Some((name, password)) => self.with_token(password.get(1..).unwrap_or_default(), Some(name)),
            None => Err(unauthenticated("the scheme Basic has the base64 of NAME:TOKEN")),
        }
    }

    /// Returns the client with this token, and with this name if one is given.
    fn with_token(&self, token: &[u8], name: Option<&[u8]>) -> Result<&Principal, Failure> {
        let digest: TokenDigest = Sha256::digest(token).into();
        let mut found = None;
        for principal in &self.0 {
            // Every digest is compared whole.
            if matches!(&principal.credential, Credential::Token(known) if is_same(known, &digest))
                && name.is_none_or(|name| name == principal.name.as_bytes())
            {
                found = Some(principal);
            }
        }
        found.ok_or_else(|| unauthenticated("the token is not known"))
    }

    fn find_certificate(&self, names: &CertificateNames) -> Result<&Principal, Failure> {
        let is_named =
            |principal: &&Principal| matches!(&principal.credential, Credential::Certificate(name) if names.has(name));
        let found = self.0.iter().find(is_named);
        found.ok_or_else(|| unauthenticated("no line of tokens_file has a name of the client's certificate"))
    }
}

/// Compares digests in a time that does not depend on their bytes.
fn is_same(one: &TokenDigest, other: &TokenDigest) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

fn unauthenticated(why: &str) -> Failure {
    Failure::new(Problem::Unauthenticated, why)
}

impl Principal {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(credential)) = (words.next(), words.next()) else {
            return Err("a name, and the SHA-256 of a token or certificate=NAME");
        };
        let credential = match credential.strip_prefix("certificate=") {
            Some("") => return Err("certificate=NAME with a DNS name, a URI or a common name"),
            Some(name) => Credential::Certificate(name.to_owned()),
            None => Credential::Token(
                parse_digest(credential).ok_or("the SHA-256 of a token as 64 hex digits, or certificate=NAME")?,
            ),
        };
        let mut principal = Self {
            name: name.to_owned(),
            floor: None,
            max_requests: None,
            max_bytes: None,
            may_manage: false,
            credential,
            topics: None,
        };
        for word in words {
            match word.split_once('=') {
                Some(("topics", topics)) => {
                    let topics = topics.split(',').map(TopicPattern::parse).collect::<Option<_>>();
                    principal.topics = Some(topics.ok_or("topics=TOPIC,PREFIX*")?);
                }
                Some(("floor", floor)) => {
                    principal.floor = Some(Ack::parse(floor).ok_or("floor=broker, disk or memory")?);
                }
                Some(("requests", limit)) => principal.max_requests = Some(rate(limit)?),
                Some(("bytes", limit)) => principal.max_bytes = Some(rate(limit)?),
                None if word == "manage" => principal.may_manage = true,
                _ => return Err("topics=.., floor=.., requests=.., bytes=.. or manage"),
            }
        }
        Ok(principal)
    }

    /// Returns the client of a certificate if no file names the clients. It has all rights of a publisher.
    pub fn of_certificate(names: &CertificateNames) -> Self {
        Self {
            name: names.first().to_owned(),
            floor: None,
            max_requests: None,
            max_bytes: None,
            may_manage: false,
            credential: Credential::Certificate(names.first().to_owned()),
            topics: None,
        }
    }

    /// Checks that the client may publish to a topic.
    ///
    /// # Errors
    ///
    /// [`Problem::TopicNotAllowed`].
    pub fn check_topic(&self, topic: &str) -> Result<(), Failure> {
        match self.topics.as_ref().is_none_or(|topics| topics.iter().any(|pattern| pattern.has(topic))) {
            true => Ok(()),
            false => {
                let why = format!("client {} may not publish to topic {topic:?}", self.name);
                Err(Failure::new(Problem::TopicNotAllowed, why))
            }
        }
    }
}

fn rate(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "requests=N or bytes=N, a whole number a second, 0 for no limit")
}

fn parse_digest(hex: &str) -> Option<TokenDigest> {
    let mut digest = [0; 32];
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `secret` and of `other`.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

    #[test]
    fn token_finds_its_client() {
        let file = format!(
            "# clients\nbilling {SECRET} topics=orders,logs.* floor=disk requests=5 bytes=0 # main\n\nops {OTHER} manage\n"
        );
        let all = Principals::parse(&file).unwrap();
        let billing = all.find(Some(b"Bearer secret"), None).unwrap();
        assert_eq!((billing.name.as_str(), billing.floor, billing.may_manage), ("billing", Some(Ack::Disk), false));
        assert_eq!((billing.max_requests, billing.max_bytes), (Some(5), Some(0)));
        for (topic, is_allowed) in [("orders", true), ("logs.web", true), ("orders2", false), ("users", false)] {
            assert_eq!(billing.check_topic(topic).is_ok(), is_allowed, "{topic}");
        }
        let ops = all.find(Some(b"bearer other"), None).unwrap();
        assert!(ops.may_manage && ops.check_topic("any").is_ok());
    }

    #[test]
    fn other_tokens_are_refused() {
        let all = Principals::parse(&format!("billing {SECRET}")).unwrap();
        for header in [None, Some(&b""[..]), Some(b"Bearer"), Some(b"Bearer secret2"), Some(b"Basic secret")] {
            assert_eq!(all.find(header, None).unwrap_err().problem, Problem::Unauthenticated, "{header:?}");
        }
        assert!(Principals::default().find(Some(b"Bearer secret"), None).is_err());
    }

    #[test]
    fn operator_has_the_token() {
        let token = OperatorToken::parse(SECRET).unwrap();
        assert!(token.is_proved_by(b"Bearer secret") && token.to_string() == SECRET);
        assert!(
            !token.is_proved_by(b"Bearer other") && !token.is_proved_by(b"secret") && !token.is_proved_by(b"Bearer ")
        );
        let none = OperatorToken::parse("").unwrap();
        assert!(!none.is_proved_by(b"Bearer ") && none.to_string().is_empty() && OperatorToken::parse("zz").is_none());
    }

    #[test]
    fn password_belongs_to_its_name() {
        let all = Principals::parse(&format!("billing {SECRET}\nops {OTHER}\ncert certificate=a.example\n")).unwrap();
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair)).into_bytes();
        assert_eq!(all.find(Some(&basic("billing:secret")), None).unwrap().name, "billing");
        for pair in ["ops:secret", "billing:other", "billing:", "billing", "", ":secret", "billing:secret:", "cert:"] {
            let refused = all.find(Some(&basic(pair)), None).unwrap_err();
            assert_eq!(refused.problem, Problem::Unauthenticated, "{pair}");
        }
        assert!(all.find(Some(b"Basic %"), None).is_err() && all.find(Some(b"Basic"), None).is_err());
    }

    #[test]
    fn certificate_finds_its_client() {
        let all = Principals::parse("one certificate=server manage\ntwo certificate=localhost\n").unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kafka-courier/tests/tls/");
        let names = |file: &str| {
            use rustls::pki_types::pem::PemObject;
            let certificate = rustls::pki_types::CertificateDer::from_pem_file(format!("{folder}{file}")).unwrap();
            CertificateNames::read(&certificate).unwrap()
        };
        assert_eq!(all.find(None, Some(&names("server.pem"))).unwrap().name, "one", "the first line counts");
        assert!(all.find(None, Some(&names("client.pem"))).is_err());
        let header = all.find(Some(b"Bearer secret"), Some(&names("server.pem")));
        assert!(header.is_err(), "a header takes precedence over the certificate");
    }

    #[test]
    fn invalid_line_is_named() {
        for line in [
            "a",
            "a zz",
            "a certificate=",
            &format!("a {SECRET} admin"),
            &format!("a {SECRET} topics=a*b"),
            &format!("a {SECRET} floor=x"),
            &format!("a {SECRET} requests=-1"),
            &format!("a {SECRET} bytes=1k"),
        ] {
            let error = Principals::parse(&format!("x {OTHER}\n{line}")).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
        assert_eq!(Principals::parse(&format!("a {SECRET}\nb {SECRET}")).unwrap_err().line, 2);
        assert!(Principals::parse("").is_err() && Principals::parse("# none\n").is_err(), "no client is an error");
    }
}
