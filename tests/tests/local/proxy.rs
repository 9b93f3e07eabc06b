//! Tests of each fault of kproxy, against a small server with Kafka's framing.
//!
//! The server answers every request (api key, version, correlation id, payload) with a response of the same payload,
//! and records each complete request. Each test has its own proxy and server. A test bounds durations from below if the
//! fault must take time, and from above only by a wide margin.
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The maximum wait of a read for expected bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after which a read counts as silent.
const SILENCE: Duration = Duration::from_millis(300);

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;

type Applied = Arc<Mutex<Vec<(i16, i32)>>>;

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn id_at(body: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(body[at..at + 4].try_into().unwrap())
}

/// Answers requests until the connection ends.
fn serve(mut stream: TcpStream, applied: &Applied) {
    while let Ok(body) = read_frame(&mut stream) {
        let api = i16::from_be_bytes([body[0], body[1]]);
        applied.lock().unwrap().push((api, id_at(&body, 4)));
        let mut answer = i32::try_from(body.len() - 4).unwrap().to_be_bytes().to_vec();
        answer.extend_from_slice(&body[4..]);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn spare_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A proxy in front of a server. Both end with the test.
struct Setup {
    proxy: Child,
    port: u16,
    control: u16,
    applied: Applied,
}

impl Setup {
    fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap().port();
        let applied = Applied::default();
        let seen = Arc::clone(&applied);
        std::thread::spawn(move || {
            for stream in server.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        Self::start_proxy(target, applied)
    }

    /// Starts a proxy to `target` and waits until the proxy accepts commands.
    fn start_proxy(target: u16, applied: Applied) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (port, control) = (spare_port(), spare_port());
            let mut proxy = Command::new(env!("CARGO_BIN_EXE_kproxy"))
                .args(["--control", &format!("127.0.0.1:{control}")])
                .arg(format!("1={port}:{target}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = String::new();
            BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut ready).unwrap();
            let setup = Self { proxy, port, control, applied: Arc::clone(&applied) };
            // The proxy ends without output if another process has taken one of the ports.
            if ready.starts_with("kproxy: commands on ") {
                return setup;
            }
            assert!(Instant::now() < deadline, "kproxy does not start");
        }
    }

    /// Sends a command to the proxy, and returns the status of its only route.
    fn command(&self, command: &str) -> Value {
        let (status, body) = self.http(command);
        assert!(status.contains("200"), "{command}: {status} {body}");
        serde_json::from_str::<Value>(&body).unwrap()["1"].clone()
    }

    /// Sends a command, and returns the status line and the body of the answer.
    fn http(&self, command: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control)).unwrap();
        // One write sends the whole request. The proxy could answer a partial request and close the connection.
        stream.write_all(format!("GET /{command} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let status = lines.next().unwrap();
        let body = lines.skip_while(|line| !line.is_empty()).collect::<Vec<_>>().concat();
        (status, body)
    }

    fn client(&self) -> ProxyClient {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ProxyClient(stream)
    }

    fn applied(&self) -> Vec<(i16, i32)> {
        self.applied.lock().unwrap().clone()
    }

    /// Waits until the status meets the condition. Panics after `PATIENCE`.
    fn wait_for_status(&self, condition: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.command("status");
            if condition(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "the status does not meet the condition in time: {status}");
            std::thread::yield_now();
        }
    }

    /// Asserts that the server gets a request, or that it gets none within `SILENCE`.
    fn assert_reaches_server(&self, reaches: bool, side: &str) {
        let deadline = Instant::now() + if reaches { PATIENCE } else { SILENCE };
        while self.applied().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(!self.applied().is_empty(), reaches, "{side}");
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.proxy.kill().unwrap();
        self.proxy.wait().unwrap();
    }
}

struct ProxyClient(TcpStream);

fn frame(id: i32, api: i16, payload: usize) -> Vec<u8> {
    let mut frame = i32::try_from(8 + payload).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(&api.to_be_bytes());
    frame.extend_from_slice(&9_i16.to_be_bytes());
    frame.extend_from_slice(&id.to_be_bytes());
    frame.resize(frame.len() + payload, b'p');
    frame
}

impl ProxyClient {
    fn send(&mut self, id: i32, api: i16, payload: usize) {
        self.0.write_all(&frame(id, api, payload)).unwrap();
    }

    /// Returns the correlation id of the next response.
    fn receive(&mut self) -> io::Result<i32> {
        read_frame(&mut self.0).map(|body| id_at(&body, 0))
    }

    /// Sends a request, and returns the time until the response.
    fn request(&mut self, id: i32, api: i16, payload: usize) -> Duration {
        let started = Instant::now();
        self.send(id, api, payload);
        assert_eq!(self.receive().unwrap(), id);
        started.elapsed()
    }

    /// Asserts that the connection ended with one of these errors.
    fn assert_ended(&mut self, kinds: &[ErrorKind]) {
        let error = self.receive().expect_err("the connection is still open");
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }

    fn assert_silent(&mut self) {
        self.0.set_read_timeout(Some(SILENCE)).unwrap();
        self.assert_ended(&[ErrorKind::WouldBlock, ErrorKind::TimedOut]);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

const CLOSED: [ErrorKind; 1] = [ErrorKind::UnexpectedEof];
const RESET: [ErrorKind; 1] = [ErrorKind::ConnectionReset];
const CLOSED_OR_RESET: [ErrorKind; 2] = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];

#[test]
fn without_faults_everything_passes() {
    let setup = Setup::new();
    let mut client = setup.client();
    for id in 0..100 {
        client.request(id, PRODUCE, usize::try_from(id).unwrap() * 1000);
    }
    assert_eq!(setup.command("status")["produce_requests"], 100);
}

#[test]
fn latency_keeps_throughput_and_order() {
    let setup = Setup::new();
    let mut client = setup.client();
    setup.command("set?latency_ms=200&jitter_ms=5");
    assert!(client.request(1, PRODUCE, 20) >= Duration::from_millis(400));
    let started = Instant::now();
    for id in 0..50 {
        client.send(id, PRODUCE, 5000);
    }
    let ids: Vec<i32> = (0..50).map(|_| client.receive().unwrap()).collect();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    // Without pipelining, the requests would take 20 s.
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn rate_bounds_bytes_per_second() {
    let setup = Setup::new();
    setup.command("set?rate=100000");
    assert!(setup.client().request(1, PRODUCE, 50_000) >= Duration::from_millis(500));
}

#[test]
fn cut_closes_open_connections() {
    let setup = Setup::new();
    let (mut one, mut other) = (setup.client(), setup.client());
    one.request(1, PRODUCE, 20);
    other.request(1, PRODUCE, 20);
    setup.command("cut");
    one.assert_ended(&CLOSED);
    other.assert_ended(&CLOSED);
    let mut third = setup.client();
    third.request(1, PRODUCE, 20);
    setup.command("cut?rst=1");
    third.assert_ended(&RESET);
    assert_eq!(setup.command("status")["cuts"], 3);
}

#[test]
fn dropped_response_was_still_applied() {
    let setup = Setup::new();
    setup.command("set?drop_response=1&api=0");
    let mut client = setup.client();
    client.request(1, METADATA, 20); // another api key
    let frames = [frame(2, METADATA, 20), frame(3, PRODUCE, 20), frame(4, METADATA, 20)];
    client.0.write_all(&frames.concat()).unwrap();
    assert_eq!(client.receive().unwrap(), 2);
    client.assert_ended(&CLOSED);
    assert!(setup.applied().contains(&(PRODUCE, 3)));
    setup.client().request(5, PRODUCE, 20); // one shot only
}

#[test]
fn fault_hits_header_in_pieces() {
    let setup = Setup::new();
    setup.command("set?drop_response=1");
    let mut client = setup.client();
    let frame = frame(7, PRODUCE, 20);
    for piece in [&frame[..3], &frame[3..9], &frame[9..]] {
        let before = setup.command("status")["up_bytes"].as_u64().unwrap();
        client.0.write_all(piece).unwrap();
        // The proxy must have read this piece before the test sends the next one.
        setup.wait_for_status(|status| status["up_bytes"].as_u64().unwrap() > before);
    }
    client.assert_ended(&CLOSED);
    assert_eq!(setup.command("status")["dropped_responses"], 1);
}

#[test]
fn dropped_request_never_reaches_broker() {
    let setup = Setup::new();
    setup.command("set?drop_request=1&api=0");
    let mut client = setup.client();
    client.request(1, METADATA, 20);
    client.send(2, PRODUCE, 20);
    client.assert_ended(&CLOSED_OR_RESET);
    setup.client().request(3, PRODUCE, 20);
    assert_eq!(setup.applied(), [(METADATA, 1), (PRODUCE, 3)]);
}

#[test]
fn cut_after_hits_mid_request() {
    let setup = Setup::new();
    setup.command("set?cut_after=1000");
    let mut client = setup.client();
    client.request(1, PRODUCE, 500);
    client.send(2, PRODUCE, 5000);
    client.assert_ended(&CLOSED_OR_RESET);
    assert_eq!(setup.command("status")["cut_times"], 0);
    setup.client().request(3, PRODUCE, 5000);
    assert_eq!(setup.applied(), [(PRODUCE, 1), (PRODUCE, 3)]);
}

#[test]
fn stalled_bytes_arrive_later() {
    for (side, reaches) in [("up", false), ("down", true), ("both", false)] {
        let setup = Setup::new();
        setup.command(&format!("set?stall={side}"));
        let mut client = setup.client();
        client.send(1, PRODUCE, 20);
        client.assert_silent();
        setup.assert_reaches_server(reaches, side);
        setup.command("clear");
        assert_eq!(client.receive().unwrap(), 1);
        client.request(2, PRODUCE, 20);
    }
}

#[test]
fn blackholed_connection_stays_dead() {
    for (side, reaches) in [("up", false), ("down", true), ("both", false)] {
        let setup = Setup::new();
        setup.command(&format!("set?blackhole={side}"));
        let mut client = setup.client();
        client.send(1, PRODUCE, 20);
        client.assert_silent();
        setup.assert_reaches_server(reaches, side);
        setup.command("clear");
        client.send(2, PRODUCE, 20);
        client.assert_silent();
        setup.client().request(3, PRODUCE, 20);
    }
}

#[test]
fn refuse_resets_new_connections_only() {
    let setup = Setup::new();
    let mut older = setup.client();
    older.request(1, PRODUCE, 20);
    setup.command("set?refuse=1");
    setup.client().assert_ended(&CLOSED_OR_RESET);
    older.request(2, PRODUCE, 20);
}

#[test]
fn one_shot_faults_spare_tls_handshake() {
    let setup = Setup::new();
    setup.command("set?drop_request=1");
    let mut client = setup.client();
    client.0.write_all(&[0x16, 3, 1, 0, 0, 0, 0, 0]).unwrap();
    setup.wait_for_status(|status| status["up_bytes"] == 8);
    assert_eq!(setup.command("status")["drop_request"], 1);
    client.0.write_all(&[0; 16 * 1024]).unwrap();
    client.assert_ended(&CLOSED_OR_RESET);
    assert_eq!(setup.command("status")["dropped_requests"], 1);
}

#[test]
fn unreachable_broker_resets_client() {
    let setup = Setup::start_proxy(spare_port(), Applied::default());
    setup.client().assert_ended(&CLOSED_OR_RESET);
}

#[test]
fn invalid_commands_are_refused() {
    let setup = Setup::new();
    for command in ["set?nonsense=1", "set?rate=-1", "set?stall=left", "cut?broker=9", "nothing"] {
        let (status, body) = setup.http(command);
        assert!(status.contains("400"), "{command}: {status} {body}");
    }
}
