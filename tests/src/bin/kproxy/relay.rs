//! One connection through the proxy: a reader that decides which faults hit, and a writer that keeps to time and rate, in
//! each direction. Bytes are never reordered.
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

/// The most read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks queued per direction, at most: room for CHUNK * QUEUE bytes "on the wire" under latency.
const QUEUE: usize = 512;
/// Bytes that pass untouched on an encrypted connection before one-shot faults may hit it.
const HANDSHAKE: u64 = 8 * 1024;

/// What a reader hands to its writer.
struct Chunk {
    due: Instant,
    data: Bytes,
    /// After these bytes the connection ends.
    last: bool,
}

/// Carries one client's connection to its end.
pub(crate) async fn connection(client: TcpStream, route: Arc<Route>) {
    count(&route.counts.accepted, 1);
    if route.faults.borrow().refuse {
        return reset(&client);
    }
    // A broker that is down refuses here; the client then sees its connection reset.
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
    let both = |dir| Side { route: Arc::clone(&route), conn: Arc::clone(&conn), dir };
    tokio::join!(
        Reader::new(both(Direction::Up)).run(client_in, up_tx),
        both(Direction::Up).write(broker_out, up_rx),
        Reader::new(both(Direction::Down)).run(broker_in, down_tx),
        both(Direction::Down).write(client_out, down_rx),
    );
    route.forget(id);
}

fn reset(socket: &TcpStream) {
    // If the system refuses, the socket is closed in order: also an end.
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

/// Resolves when the connection is to end.
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

/// What the faults leave of a chunk.
struct Forwarding {
    /// Bytes of it that pass.
    keep: usize,
    /// Whether the connection ends after them.
    last: bool,
}

/// Reads one direction, decides which faults hit, and queues what is to be forwarded.
struct Reader {
    side: Side,
    faults: watch::Receiver<Faults>,
    end: watch::Receiver<End>,
    frames: Frames,
    /// The `cut_after` in force, and the bytes left of it.
    budget: Option<(u64, u64)>,
    first: bool,
    /// Bytes were swallowed: silent from now on.
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
            buffer.reserve(CHUNK); // reuses the space of chunks that have been written
            let got = tokio::select! {
                biased;
                _ = ended(&mut self.end) => return,
                got = from.read_buf(&mut buffer) => got,
            };
            if !matches!(got, Ok(n) if n > 0) {
                return; // closed or failed: dropping `to` lets the writer finish and pass the close on
            }
            let data = buffer.split().freeze();
            if !self.wait_for_stall().await {
                return;
            }
            let now = Instant::now();
            let faults = self.faults.borrow_and_update().clone();
            let verdict = self.decide(&faults, &data);
            self.doomed |= faults.blackhole.has(self.side.dir);
            if self.doomed {
                if verdict.last {
                    self.side.conn.finish(self.side.route.end());
                    return;
                }
                continue;
            }
            if !self.forward(now, &faults, data, &verdict, &to).await {
                return;
            }
        }
    }

    /// Holds bytes back, in order, until the stall is over; false when the connection ends meanwhile.
    async fn wait_for_stall(&mut self) -> bool {
        while self.faults.borrow_and_update().stall.has(self.side.dir) {
            tokio::select! {
                _ = ended(&mut self.end) => return false,
                changed = self.faults.changed() => if changed.is_err() { return false },
            }
        }
        true
    }

    /// Counts the chunk and finds the byte at which a fault ends the connection.
    fn decide(&mut self, faults: &Faults, data: &[u8]) -> Forwarding {
        let (route, conn) = (&self.side.route, &self.side.conn);
        if self.side.dir == Direction::Up {
            count(&route.counts.up_bytes, data.len() as u64);
            count(&conn.up_seen, data.len() as u64);
            if self.first && data.first() == Some(&0x16) {
                conn.opaque.store(true, Relaxed); // a TLS handshake record; a request's size starts with 0
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

    /// `cut_after`: the byte at which its budget is used up, if that is among the next `length`.
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

    /// Queues what is kept of the chunk; false when nothing more is to follow.
    async fn forward(
        &mut self,
        now: Instant,
        faults: &Faults,
        mut data: Bytes,
        verdict: &Forwarding,
        to: &mpsc::Sender<Chunk>,
    ) -> bool {
        data.truncate(verdict.keep);
        let mut delay = faults.latency_ms;
        if faults.jitter_ms > 0 {
            self.jitter ^= self.jitter << 13;
            self.jitter ^= self.jitter >> 7;
            self.jitter ^= self.jitter << 17;
            delay += self.jitter % (faults.jitter_ms + 1);
        }
        self.last_due = self.last_due.max(now + Duration::from_millis(delay)); // never overtakes
        let chunk = Chunk { due: self.last_due, data, last: verdict.last };
        let sent = tokio::select! {
            biased;
            _ = ended(&mut self.end) => return false,
            sent = to.send(chunk) => sent,
        };
        sent.is_ok() && !verdict.last
    }
}

/// On an encrypted connection: the next bytes after the handshake.
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
    /// Writes what the reader queued, when it is due and as fast as the rate allows.
    async fn write(self, mut to: OwnedWriteHalf, from: mpsc::Receiver<Chunk>) {
        let mut end = self.conn.end.subscribe();
        let finished = tokio::select! {
            biased;
            how = ended(&mut end) => Some(how),
            done = self.write_queue(&mut to, from) => done,
        };
        let Some(how) = finished else { return };
        self.conn.finish(how);
        // Only the client's side is reset: the broker must still get what was forwarded.
        if how == End::Reset && self.dir == Direction::Down {
            reset(to.as_ref());
            to.forget(); // dropping it would first send an orderly end
        }
    }

    /// How the connection is to end; none when the other side closed and that was passed on.
    async fn write_queue(&self, to: &mut OwnedWriteHalf, mut from: mpsc::Receiver<Chunk>) -> Option<End> {
        let faults = self.route.faults.subscribe();
        let mut paced = Instant::now(); // when the bytes written so far have passed the throttle
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
        drop(to.shutdown().await); // it may be gone already
        None
    }
}

/// The bytes of about 50 ms at this rate.
fn fifty_ms(rate: u64) -> usize {
    usize::try_from(rate / 20).unwrap_or(CHUNK).clamp(64, CHUNK)
}
