//! One connection through the proxy. Each direction has a reader, which applies faults, and a writer, which applies
//! latency and rate. Bytes are never reordered.
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::frames::Frames;
use crate::route::{Conn, Direction, End, Faults, Route, count, take_shot};

/// The maximum number of bytes of one read.
const CHUNK: usize = 64 * 1024;
/// The maximum number of queued chunks per direction. Under latency, up to CHUNK * QUEUE bytes are on the way.
const QUEUE: usize = 512;
/// The number of bytes from an encrypted client that one-shot faults spare.
const HANDSHAKE: u64 = 8 * 1024;

/// A part of the stream that a reader passes to its writer.
struct Chunk {
    due: Instant,
    data: Bytes,
    /// Whether the connection ends after these bytes.
    last: bool,
}

/// Relays one client's connection until the connection ends.
pub(crate) async fn connection(client: TcpStream, route: Arc<Route>) {
    count(&route.counts.accepted, 1);
    if route.faults.borrow().refuse {
        return reset(&client);
    }
    // A stopped broker refuses the connection. The client's connection is then reset.
    let Ok(broker) = TcpStream::connect(route.target).await else {
        return reset(&client);
    };
    if client.set_nodelay(true).and(broker.set_nodelay(true)).is_err() {
        return reset(&client);
    }
    let (id, conn) = route.register();
    let (client_in, client_out) = client.into_split();
    let (broker_in, broker_out) = broker.into_split();
    let (up_tx, up_rx) = mpsc::channel(QUEUE);
    let (down_tx, down_rx) = mpsc::channel(QUEUE);
    let side = |dir| Side { route: Arc::clone(&route), conn: Arc::clone(&conn), dir };
    tokio::join!(
        Reader::new(side(Direction::Up)).run(client_in, up_tx),
        side(Direction::Up).write(broker_out, up_rx),
        Reader::new(side(Direction::Down)).run(broker_in, down_tx),
        side(Direction::Down).write(client_out, down_rx),
    );
    route.forget(id);
}

fn reset(socket: &TcpStream) {
    // Without this option, dropping the socket closes the connection in order.
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

/// Resolves when a fault or an error ends the connection.
async fn ended(end: &mut watch::Receiver<End>) -> End {
    loop {
        let how = *end.borrow_and_update();
        if how != End::No || end.changed().await.is_err() {
            return how;
        }
    }
}

/// One direction of a connection.
struct Side {
    route: Arc<Route>,
    conn: Arc<Conn>,
    dir: Direction,
}

/// The part of a chunk that is forwarded.
struct Forwarding {
    /// The number of bytes.
    keep: usize,
    /// Whether the connection ends after these bytes.
    last: bool,
}

/// Reads one direction, applies faults, and queues chunks for the writer.
struct Reader {
    side: Side,
    faults: watch::Receiver<Faults>,
    end: watch::Receiver<End>,
    frames: Frames,
    /// The current `cut_after`, and the rest of it in bytes.
    budget: Option<(u64, u64)>,
    first: bool,
    /// Whether bytes were dropped. The direction then stays silent.
    doomed: bool,
    jitter: u64,
    last_due: Instant,
}

impl Reader {
    fn new(side: Side) -> Self {
        Self {
            faults: side.route.faults.subscribe(),
            end: side.conn.end.subscribe(),
            frames: Frames::default(),
            budget: None,
            first: true,
            doomed: false,
            jitter: 0x9e37_79b9_7f4a_7c15,
            last_due: Instant::now(),
            side,
        }
    }

    async fn run(mut self, mut from: OwnedReadHalf, to: mpsc::Sender<Chunk>) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK); // reuses the space of written chunks
            let got = tokio::select! {
                biased;
                _ = ended(&mut self.end) => return,
                got = from.read_buf(&mut buffer) => got,
            };
            if !matches!(got, Ok(n) if n > 0) {
                return; // closed or failed: after the drop of `to` the writer finishes and forwards the close
            }
            let data = buffer.split().freeze();
            if !self.wait_for_stall().await {
                return;
            }
            let now = Instant::now();
            let faults = self.faults.borrow_and_update().clone();
            let forwarding = self.decide(&faults, &data);
            self.doomed |= faults.blackhole.has(self.side.dir);
            if self.doomed {
                if forwarding.last {
                    self.side.conn.finish(self.side.route.end());
                    return;
                }
                continue;
            }
            if !self.forward(now, &faults, data, &forwarding, &to).await {
                return;
            }
        }
    }

    /// Waits until the stall is over. Returns false if the connection ends meanwhile.
    async fn wait_for_stall(&mut self) -> bool {
        while self.faults.borrow_and_update().stall.has(self.side.dir) {
            tokio::select! {
                _ = ended(&mut self.end) => return false,
                changed = self.faults.changed() => if changed.is_err() { return false },
            }
        }
        true
    }

    /// Counts the chunk, and decides how much of it is forwarded.
    fn decide(&mut self, faults: &Faults, data: &[u8]) -> Forwarding {
        let (route, conn) = (&self.side.route, &self.side.conn);
        if self.side.dir == Direction::Up {
            count(&route.counts.up_bytes, data.len() as u64);
            count(&conn.up_seen, data.len() as u64);
            if self.first && data.first() == Some(&0x16) {
                conn.opaque.store(true, Relaxed); // a TLS handshake record, because a request's size starts with 0
            }
        } else {
            count(&route.counts.down_bytes, data.len() as u64);
        }
        self.first = false;
        let hit = match (conn.opaque.load(Relaxed), self.side.dir) {
            (true, dir) => opaque_shot(route, conn, dir),
            (false, Direction::Up) => request_shot(&mut self.frames, route, conn, faults, data),
            (false, Direction::Down) => response_shot(&mut self.frames, route, conn, faults, data),
        };
        if let Some(keep) = hit {
            return Forwarding { keep, last: true };
        }
        if let Some(keep) = self.cut(faults, data.len()) {
            return Forwarding { keep, last: true };
        }
        Forwarding { keep: data.len(), last: false }
    }

    /// Applies `cut_after`. Returns the position of the cut if it is within the next `length` bytes.
    fn cut(&mut self, faults: &Faults, length: usize) -> Option<usize> {
        let shots = &self.side.route.shots;
        let off = faults.cut_after == 0 || shots.cut_times.load(Relaxed) <= 0;
        if self.side.dir == Direction::Down || off {
            self.budget = None;
            return None;
        }
        let (total, left) = self.budget.get_or_insert((faults.cut_after, faults.cut_after));
        if *total != faults.cut_after {
            (*total, *left) = (faults.cut_after, faults.cut_after);
        }
        if (length as u64) < *left {
            *left -= length as u64;
            return None;
        }
        let at = usize::try_from(*left).unwrap_or(length);
        take_shot(&shots.cut_times).then(|| {
            count(&self.side.route.counts.cuts, 1);
            at
        })
    }

    /// Queues the forwarded part of the chunk. Returns false if no chunk may follow.
    async fn forward(
        &mut self,
        now: Instant,
        faults: &Faults,
        mut data: Bytes,
        forwarding: &Forwarding,
        to: &mpsc::Sender<Chunk>,
    ) -> bool {
        data.truncate(forwarding.keep);
        let mut delay = faults.latency_ms;
        if faults.jitter_ms > 0 {
            self.jitter ^= self.jitter << 13;
            self.jitter ^= self.jitter >> 7;
            self.jitter ^= self.jitter << 17;
            delay += self.jitter % (faults.jitter_ms + 1);
        }
        self.last_due = self.last_due.max(now + Duration::from_millis(delay)); // keeps the order of chunks
        let chunk = Chunk { due: self.last_due, data, last: forwarding.last };
        let sent = tokio::select! {
            biased;
            _ = ended(&mut self.end) => return false,
            sent = to.send(chunk) => sent,
        };
        sent.is_ok() && !forwarding.last
    }
}

/// Applies a one-shot fault to an encrypted connection: it hits the next bytes after the handshake.
fn opaque_shot(route: &Route, conn: &Conn, dir: Direction) -> Option<usize> {
    if conn.up_seen.load(Relaxed) <= HANDSHAKE {
        return None;
    }
    let (left, counter) = match dir {
        Direction::Up => (&route.shots.drop_request, &route.counts.dropped_requests),
        Direction::Down => (&route.shots.drop_response, &route.counts.dropped_responses),
    };
    take_shot(left).then(|| {
        count(counter, 1);
        0
    })
}

fn request_shot(frames: &mut Frames, route: &Route, conn: &Conn, faults: &Faults, data: &[u8]) -> Option<usize> {
    let hit = frames.requests(data, |header| {
        let api = header.api_key();
        if api == 0 {
            count(&route.counts.produce_requests, 1);
        }
        if faults.aims_at(api) && take_shot(&route.shots.drop_request) {
            return true;
        }
        conn.awaited.lock().insert(header.request_id(), api);
        false
    });
    hit.inspect(|_| count(&route.counts.dropped_requests, 1))
}

fn response_shot(frames: &mut Frames, route: &Route, conn: &Conn, faults: &Faults, data: &[u8]) -> Option<usize> {
    let hit = frames.responses(data, |header| {
        let api = conn.awaited.lock().remove(&header.response_id());
        api.is_some_and(|api| faults.aims_at(api)) && take_shot(&route.shots.drop_response)
    });
    hit.inspect(|_| count(&route.counts.dropped_responses, 1))
}

impl Side {
    /// Writes the queued chunks at their due times, within the rate.
    async fn write(self, mut to: OwnedWriteHalf, from: mpsc::Receiver<Chunk>) {
        let mut end = self.conn.end.subscribe();
        let finished = tokio::select! {
            biased;
            how = ended(&mut end) => Some(how),
            done = self.write_queue(&mut to, from) => done,
        };
        let Some(how) = finished else { return };
        self.conn.finish(how);
        // Only the client's side is reset, because the broker must still get the forwarded bytes.
        if how == End::Reset && self.dir == Direction::Down {
            reset(to.as_ref());
            to.forget(); // a drop would send an orderly close first
        }
    }

    /// Writes all chunks. Returns how to end the connection, or none if the other side closed and the close was
    /// forwarded.
    async fn write_queue(&self, to: &mut OwnedWriteHalf, mut from: mpsc::Receiver<Chunk>) -> Option<End> {
        let faults = self.route.faults.subscribe();
        let mut paced = Instant::now(); // the time at which all written bytes have passed under the rate
        while let Some(chunk) = from.recv().await {
            if chunk.due > Instant::now() {
                sleep_until(chunk.due).await;
            }
            let mut rest = &chunk.data[..];
            while !rest.is_empty() {
                let rate = faults.borrow().rate;
                let piece = if rate == 0 { rest.len() } else { fifty_ms(rate).min(rest.len()) };
                if rate > 0 {
                    let took = Duration::from_secs_f64(piece as f64 / rate as f64);
                    paced = paced.max(Instant::now()) + took;
                    sleep_until(paced).await;
                }
                if to.write_all(&rest[..piece]).await.is_err() {
                    return Some(End::Close);
                }
                rest = &rest[piece..];
            }
            if chunk.last {
                return Some(self.route.end());
            }
        }
        drop(to.shutdown().await); // fails if the connection has already ended
        None
    }
}

/// Returns the number of bytes in about 50 ms at this rate.
fn fifty_ms(rate: u64) -> usize {
    usize::try_from(rate / 20).unwrap_or(CHUNK).clamp(64, CHUNK)
}
