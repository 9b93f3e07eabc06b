//! The client side of SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), without channel binding, as Kafka does
//! it.
//!
//! Rules:
//! - Pure: messages in, messages out. The nonce is an argument.
//! - The server's messages are checked: they must continue the client's nonce, ask for a bounded number of
//!   iterations, and prove that the server knows the password too.
//! - The password is its UTF-8 bytes without SASLprep, as in Kafka's own clients and servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The iterations that a server may ask for: RFC 7677's minimum up to about one second of work.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// The longest first message of a server, in bytes: a nonce, a salt and a number.
const LONGEST_FIRST: usize = 4096;

/// The GS2 header without channel binding and without an authorization identity.
const GS2_HEADER: &str = "n,,";

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScramHash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Why a server's message is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ScramError {
    #[error("the broker's {0} message is malformed")]
    Malformed(&'static str),
    #[error("the broker's nonce does not continue the client's")]
    Nonce,
    #[error(
        "the broker asks for {0} iterations, outside of {min} to {max}",
        min = ITERATIONS.start(),
        max = ITERATIONS.end()
    )]
    Iterations(u64),
    #[error("the broker requires an unknown extension")]
    Extension,
    #[error("{0}")]
    Refused(String),
    #[error("the broker does not prove that it knows the password: check that brokers names the right cluster")]
    ServerSignature,
}

/// The client's first message.
#[derive(Debug)]
pub(crate) struct ClientFirst {
    bare: String,
    nonce: String,
}

/// The client's final message with its proof, and the expected proof of the server.
pub(crate) struct ClientFinal {
    pub(crate) message: String,
    hash: ScramHash,
    server_key: Zeroizing<Vec<u8>>,
    auth_message: String,
}

/// A server's first message.
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl ClientFirst {
    /// Creates the first message. `nonce` must be printable ASCII without a comma, and must be used once only.
    pub(crate) fn new(username: &str, nonce: String) -> Self {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        Self { bare: format!("n={name},r={nonce}"), nonce }
    }

    pub(crate) fn message(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare)
    }

    /// Answers the server's first message. The iterations take up to a second.
    pub(crate) fn answer(&self, hash: ScramHash, password: &Secret, server: &[u8]) -> Result<ClientFinal, ScramError> {
        let text = std::str::from_utf8(server).ok().filter(|text| text.len() <= LONGEST_FIRST);
        let text = text.ok_or(ScramError::Malformed("first"))?;
        let first = ServerFirst::parse(text)?;
        let continued = first.nonce.strip_prefix(&self.nonce);
        if continued.is_none_or(str::is_empty) {
            return Err(ScramError::Nonce);
        }
        let salted = hash.salt(password, &first.salt, first.iterations);
        let client_key = hash.mac(&salted, b"Client Key");
        let server_key = hash.mac(&salted, b"Server Key");
        let without_proof = format!("c={},r={}", BASE64.encode(GS2_HEADER), first.nonce);
        let auth_message = format!("{},{text},{without_proof}", self.bare);
        let signature = hash.mac(&hash.digest(&client_key), auth_message.as_bytes());
        let proof: Zeroizing<Vec<u8>> =
            Zeroizing::new(client_key.iter().zip(&*signature).map(|(a, b)| a ^ b).collect());
        let message = format!("{without_proof},p={}", BASE64.encode(&*proof));
        Ok(ClientFinal { message, hash, server_key, auth_message })
    }
}

impl<'a> ServerFirst<'a> {
    fn parse(text: &'a str) -> Result<Self, ScramError> {
        const MALFORMED: ScramError = ScramError::Malformed("first");
        let mut parts = text.split(',');
        let mut part = || parts.next().unwrap_or_default();
        let nonce = part();
        if nonce.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let nonce = nonce.strip_prefix("r=").ok_or(MALFORMED)?;
        let salt = part().strip_prefix("s=").ok_or(MALFORMED)?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty()).ok_or(MALFORMED)?;
        let iterations = part().strip_prefix("i=").ok_or(MALFORMED)?;
        let iterations: u64 = iterations.parse().map_err(|_| MALFORMED)?;
        let accepted = u32::try_from(iterations).ok().filter(|n| ITERATIONS.contains(n));
        Ok(Self { nonce, salt, iterations: accepted.ok_or(ScramError::Iterations(iterations))? })
    }
}

impl ClientFinal {
    /// Checks the server's proof that it knows the password.
    pub(crate) fn verify(&self, server: &[u8]) -> Result<(), ScramError> {
        const MALFORMED: ScramError = ScramError::Malformed("final");
        let text = std::str::from_utf8(server).map_err(|_| MALFORMED)?;
        let first = text.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ScramError::Refused(error.to_owned()));
        }
        let claimed = BASE64.decode(first.strip_prefix("v=").ok_or(MALFORMED)?).map_err(|_| MALFORMED)?;
        let signed = self.hash.is_mac(&self.server_key, self.auth_message.as_bytes(), &claimed);
        if signed { Ok(()) } else { Err(ScramError::ServerSignature) }
    }
}

/// HMAC over `text`. The key is a hash's output, which is shorter than the hash's block. It is padded with zeros to
/// the block, as HMAC does it (RFC 2104).
macro_rules! keyed {
    ($hash:ty, $key:expr, $text:expr) => {{
        let mut block = Zeroizing::new(hmac::digest::Key::<Hmac<$hash>>::default().to_vec());
        block.iter_mut().zip($key).for_each(|(to, from)| *to = *from);
        <Hmac<$hash> as Mac>::new(hmac::digest::Key::<Hmac<$hash>>::from_slice(&block)).chain_update($text)
    }};
}

impl ScramHash {
    fn salt(self, password: &Secret, salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        let mut salted = Zeroizing::new(vec![0; self.len()]);
        match self {
            Self::Sha256 => pbkdf2_hmac::<Sha256>(password.expose().as_bytes(), salt, iterations, &mut salted),
            Self::Sha512 => pbkdf2_hmac::<Sha512>(password.expose().as_bytes(), salt, iterations, &mut salted),
        }
        salted
    }

    const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn mac(self, key: &[u8], text: &[u8]) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Sha256 => Zeroizing::new(keyed!(Sha256, key, text).finalize().into_bytes().to_vec()),
            Self::Sha512 => Zeroizing::new(keyed!(Sha512, key, text).finalize().into_bytes().to_vec()),
        }
    }

    /// Returns whether `claimed` is the MAC, in constant time.
    fn is_mac(self, key: &[u8], text: &[u8], claimed: &[u8]) -> bool {
        match self {
            Self::Sha256 => keyed!(Sha256, key, text).verify_slice(claimed).is_ok(),
            Self::Sha512 => keyed!(Sha512, key, text).verify_slice(claimed).is_ok(),
        }
    }

    fn digest(self, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Sha256 => Zeroizing::new(Sha256::digest(bytes).to_vec()),
            Self::Sha512 => Zeroizing::new(Sha512::digest(bytes).to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn answer(hash: ScramHash, server: &str) -> Result<ClientFinal, ScramError> {
        ClientFirst::new("user", NONCE.to_owned()).answer(hash, &Secret::new("pencil"), server.as_bytes())
    }

    #[test]
    fn rfc_7677_exchange_is_reproduced() {
        assert_eq!(ClientFirst::new("user", NONCE.to_owned()).message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = answer(ScramHash::Sha256, SERVER_FIRST).unwrap();
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last.message, format!("c=biws,r={SERVER_NONCE},p={proof}"));
        assert_eq!(last.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    #[test]
    fn server_must_prove_the_password() {
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            let last = answer(hash, SERVER_FIRST).unwrap();
            for claimed in [vec![], vec![0; 32], vec![0; 64]] {
                let message = format!("v={}", BASE64.encode(claimed));
                assert_eq!(last.verify(message.as_bytes()), Err(ScramError::ServerSignature));
            }
            assert_eq!(last.verify(b"e=invalid-proof"), Err(ScramError::Refused("invalid-proof".to_owned())));
        }
    }

    #[test]
    fn iterations_are_bounded() {
        for iterations in ["0", "1", "4095", "1000001", "4294967295", "18446744073709551615"] {
            let server = SERVER_FIRST.replace("4096", iterations);
            let error = answer(ScramHash::Sha512, &server).err();
            assert_eq!(error, Some(ScramError::Iterations(iterations.parse().unwrap())), "{iterations}");
        }
    }

    #[test]
    fn foreign_nonce_is_refused() {
        for nonce in ["", NONCE, "another", "rOprNGfwEbeRWgbNEkq"] {
            let server = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
            assert_eq!(answer(ScramHash::Sha256, &server).err(), Some(ScramError::Nonce), "{nonce}");
        }
    }

    #[test]
    fn malformed_messages_are_errors() {
        for server in
            ["", ",", "r", "r=", "m=x,r=a", "r=x,s", "r=x,s=*,i=4096", "r=x,s=,i=-1", "r=x,,", "s=,r=,i=", "\u{e9}"]
        {
            assert!(answer(ScramHash::Sha256, server).is_err(), "{server}");
        }
        let last = answer(ScramHash::Sha256, SERVER_FIRST).unwrap();
        for server in [&b""[..], b"v", b"v=", b"v=*", b",v=", b"\xff\xfe", b"e="] {
            assert!(last.verify(server).is_err(), "{server:?}");
        }
    }

    #[test]
    fn salt_is_required_and_length_bounded() {
        let malformed = Some(ScramError::Malformed("first"));
        let unsalted = SERVER_FIRST.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "");
        assert_eq!(answer(ScramHash::Sha256, &unsalted).err(), malformed);
        let long = format!("{SERVER_FIRST},{}", "x".repeat(LONGEST_FIRST));
        assert_eq!(answer(ScramHash::Sha256, &long).err(), malformed);
    }

    #[test]
    fn commas_and_equals_signs_are_escaped() {
        assert_eq!(ClientFirst::new("a=b,c", "n".to_owned()).message(), "n,,n=a=3Db=2Cc,r=n");
    }
}
