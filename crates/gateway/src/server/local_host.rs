//! Whether a request names this machine as its host.
//!
//! Rule: a page of another site reaches a loopback address under the name of that site (DNS rebinding), and its browser sends
//! that name. A request without a name is not local either.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Uri};

/// Returns whether the header `Host` and `:authority` (HTTP/2) name this machine.
pub(super) fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let mut hosts = hosts.chain(uri.authority().map(|authority| authority.as_str().as_bytes())).peekable();
    hosts.peek().is_some() && hosts.all(is_local_host)
}

/// Returns whether a host is a loopback address or localhost.
fn is_local_host(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090"] {
            assert!(is_local_host(host.as_bytes()), "{host}");
        }
        for host in ["", "evil.example", "127.0.0.1.evil.example:9090", "10.0.0.1", "localhost.evil", "localhost@evil"]
        {
            assert!(!is_local_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn every_name_must_be_local() {
        let headers = |host: &'static str| HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        let (path, local, other) = ("/stats", "http://localhost/stats", "http://evil.example/stats");
        for (uri, headers, expected) in [
            (path, headers("localhost"), true),
            (path, headers("evil.example"), false),
            (path, HeaderMap::new(), false),
            (local, HeaderMap::new(), true), // HTTP/2
            (other, HeaderMap::new(), false),
            (other, headers("localhost"), false),
            (local, headers("evil.example"), false),
        ] {
            assert_eq!(is_local(&Uri::from_static(uri), &headers), expected, "{uri} {headers:?}");
        }
    }
}
