//! The clients of `tokens_file`, and their rates.
//!
//! Rule: a file that becomes unreadable or invalid changes nothing. The clients of the last valid file stay, with a warning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::limits::rate::{Exceeded, RateLimits, RateUnit, Rates};
use crate::options::GatewayConfig;
use crate::shapes::certificate::CertificateNames;
use crate::shapes::failure::Failure;
use crate::shapes::principal::{Principal, Principals};
use crate::shapes::problem::Problem;

/// The clients of a file, or of none.
#[derive(Debug)]
pub(super) struct Clients {
    path: String,
    current: RwLock<FileContent>,
    /// The limits of clients without their own.
    limits: RateLimits,
    rates: Mutex<Rates>,
}

#[derive(Debug, Default)]
struct FileContent {
    /// The content that was read last, valid or not. It has digests of tokens only.
    text: String,
    principals: Arc<Principals>,
}

impl Clients {
    /// Reads the file. An empty path is no file: every client is accepted.
    ///
    /// # Errors
    ///
    /// The reason why the file is unreadable or invalid.
    pub(super) fn open(config: &GatewayConfig) -> Result<Self, String> {
        let GatewayConfig { tokens_file, rate_requests, rate_bytes, .. } = config;
        let clients = Self {
            path: tokens_file.clone(),
            current: RwLock::default(),
            limits: RateLimits { requests: limit(*rate_requests), bytes: limit(*rate_bytes) },
            rates: Mutex::default(),
        };
        if !tokens_file.is_empty() {
            clients.read()?;
        }
        Ok(clients)
    }

    /// Reads the file again, if there is one. Blocks.
    pub(super) fn reload(&self) {
        if self.path.is_empty() {
            return;
        }
        match self.read() {
            Ok(true) => tracing::info!(path = self.path, "clients changed"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(path = self.path, error, "tokens_file is invalid, and the former clients stay")
            }
        }
    }

    /// Reads the file. Returns whether it changed.
    fn read(&self) -> Result<bool, String> {
        let text = std::fs::read_to_string(&self.path).map_err(|error| format!("{}: {error}", self.path))?;
        if self.current.read().text == text {
            return Ok(false);
        }
        let principals = Principals::parse(&text).map_err(|error| format!("{}: {error}", self.path))?;
        self.rates.lock().retain(|name| principals.has(name));
        *self.current.write() = FileContent { text, principals: Arc::new(principals) };
        Ok(true)
    }

    /// Returns the client of a request. `None` if no file names the clients, and the client has no certificate.
    pub(super) fn find(
        &self,
        authorization: Option<&[u8]>,
        certificate: Option<&CertificateNames>,
    ) -> Result<Option<Principal>, Failure> {
        if self.path.is_empty() {
            return Ok(certificate.map(Principal::of_certificate));
        }
        let principals = self.current.read().principals.clone();
        principals.find(authorization, certificate).cloned().map(Some)
    }

    /// Counts a request of a client.
    ///
    /// # Errors
    ///
    /// [`Problem::RateExceeded`].
    pub(super) fn count_request(&self, client: Option<&Principal>) -> Result<(), Failure> {
        let limits = self.limits_of(client);
        if limits == RateLimits::default() {
            return Ok(());
        }
        let counted = self.rates.lock().request(name(client), limits, Instant::now());
        counted.map_err(|exceeded| too_fast(&exceeded))
    }

    /// Counts bytes of a body, and returns the time after which the client has paid for them.
    pub(super) fn count_bytes(&self, client: Option<&Principal>, bytes: usize) -> Duration {
        match self.limits_of(client) {
            RateLimits { bytes: None, .. } => Duration::ZERO,
            limits => self.rates.lock().bytes(name(client), limits, bytes, Instant::now()),
        }
    }

    fn limits_of(&self, client: Option<&Principal>) -> RateLimits {
        let own = |limit_of: fn(&Principal) -> Option<u32>| client.and_then(limit_of);
        RateLimits {
            requests: own(|client| client.max_requests).map_or(self.limits.requests, limit),
            bytes: own(|client| client.max_bytes).map_or(self.limits.bytes, limit),
        }
    }
}

fn name(client: Option<&Principal>) -> Option<&str> {
    client.map(|client| client.name.as_str())
}

/// Returns a limit. 0 is none.
fn limit(limit: u32) -> Option<u32> {
    Some(limit).filter(|limit| *limit > 0)
}

fn too_fast(exceeded: &Exceeded) -> Failure {
    let (unit, option) = match exceeded.unit {
        RateUnit::Requests => ("requests", "rate_requests"),
        RateUnit::Bytes => ("bytes of bodies", "rate_bytes"),
    };
    let seconds = exceeded.retry_after();
    let why = format!(
        "the client may send {} {unit} a second: repeat the request after {seconds} s, or raise {option} or the client's own limit",
        exceeded.limit
    );
    Failure::new(Problem::RateExceeded, why).retry_in(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn open(path: &str) -> Result<Clients, String> {
        Clients::open(&GatewayConfig { tokens_file: path.to_owned(), ..GatewayConfig::default() })
    }

    #[test]
    fn invalid_file_keeps_former_clients() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("a zz");
        assert!(open(&path.display().to_string()).is_err());
        write(&format!("a {SECRET}"));
        let clients = open(&path.display().to_string()).unwrap();
        let name = || clients.find(Some(b"Bearer secret"), None).map(|client| client.unwrap().name);
        assert_eq!(name().as_deref(), Ok("a"));
        write("a zz");
        clients.reload();
        assert_eq!(name().as_deref(), Ok("a"));
        write(&format!("b {SECRET}"));
        clients.reload();
        assert_eq!(name().as_deref(), Ok("b"));
        std::fs::remove_file(&path).unwrap();
        clients.reload();
        assert_eq!(name().as_deref(), Ok("b"));
    }

    #[test]
    fn no_file_accepts_every_client() {
        assert_eq!(open("").unwrap().find(None, None), Ok(None));
    }

    #[test]
    fn own_limit_precedes_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, format!("a {SECRET} bytes=0 requests=7")).unwrap();
        let tokens_file = path.display().to_string();
        let config = GatewayConfig { tokens_file, rate_requests: 1, rate_bytes: 2, ..GatewayConfig::default() };
        let clients = Clients::open(&config).unwrap();
        let client = clients.find(Some(b"Bearer secret"), None).unwrap();
        assert_eq!(clients.limits_of(client.as_ref()), RateLimits { requests: Some(7), bytes: None });
        assert_eq!(clients.limits_of(None), RateLimits { requests: Some(1), bytes: Some(2) });
    }
}
