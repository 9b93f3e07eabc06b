//! `courier health`: asks a probe of `courier serve`.
//!
//! Rule: the answer is one exit code, for a container's health check without a shell and without curl.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use crate::argument::ArgumentError;
use crate::exit::Exit;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Ask whether a service is healthy
///
/// Asks a probe of `courier serve`, and exits with 0 if the answer is 200, else with 1.
#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    /// Ask this address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090/readyz", value_parser = probe)]
    url: Probe,
    /// Wait for the answer for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = crate::whole_number::<u32>)]
    timeout: u32,
}

/// The address of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Probe {
    authority: String,
    path: String,
}

fn probe(text: &str) -> Result<Probe, ArgumentError> {
    let rest = text.strip_prefix("http://").ok_or(ArgumentError::NotAProbe)?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/readyz"),
    };
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
    let has_port =
        authority.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match has_port && is_plain(rest) && !authority.contains('@') {
        true => Ok(Probe { authority: authority.to_owned(), path: path.to_owned() }),
        false => Err(ArgumentError::NotAProbe),
    }
}

/// Runs the command.
pub(crate) fn run(args: &HealthArgs) -> Exit {
    let timeout = Duration::from_secs(u64::from(args.timeout).max(1));
    match ask(&args.url, timeout) {
        Ok(answer) if status(&answer) == Some(200) => Exit::Ok,
        Ok(answer) => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let status = status(&answer).map_or_else(|| "no status".to_owned(), |status| status.to_string());
            crate::say(&format!("{}{}: {status}\n{body}", args.url.authority, args.url.path));
            Exit::SomeFailed
        }
        Err(error) => {
            crate::say(&format!("{}: {error}: start the service, or fix --url", args.url.authority));
            Exit::SomeFailed
        }
    }
}

fn ask(probe: &Probe, timeout: Duration) -> io::Result<String> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in probe.authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return exchange(stream, probe, timeout),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, probe: &Probe, timeout: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let Probe { authority, path } = probe;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_names_host_and_port() {
        let probe_of = |text: &str| probe(text).map(|probe| (probe.authority, probe.path));
        assert_eq!(probe_of("http://[::1]:9090/livez"), Ok(("[::1]:9090".to_owned(), "/livez".to_owned())));
        assert_eq!(probe_of("http://h:1"), Ok(("h:1".to_owned(), "/readyz".to_owned())));
        for text in ["https://h:1/", "h:1", "http://h/", "http://:1/", "http://u:p@h:1/", "http://h:1/a b"] {
            assert!(probe(text).is_err(), "{text}");
        }
    }

    #[test]
    fn status_line_is_read() {
        assert_eq!(status("HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status("SSH-2.0"), None);
    }
}
