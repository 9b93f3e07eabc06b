//! The commands over HTTP. A command with an invalid argument stops at the first route that refuses the argument.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Routes;
use crate::route::{Directions, End, Faults, Route, count};

/// The maximum length of an HTTP request.
const MAX_REQUEST: usize = 16 * 1024;

pub(crate) async fn serve(mut client: TcpStream, routes: Arc<Routes>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match client.read(&mut buffer).await {
            Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&request);
    let target = text.split_whitespace().nth(1).unwrap_or("/");
    let (status, body) = match execute(target, &routes) {
        Ok(body) => ("200 OK", body),
        Err(error) => ("400 Bad Request", error),
    };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        body.len() + 1
    );
    // The client may have closed the connection already.
    if client.write_all(reply.as_bytes()).await.is_ok() {
        drop(client.shutdown().await);
    }
}

fn execute(target: &str, routes: &Routes) -> Result<String, String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<(&str, &str)> =
        query.split('&').filter(|s| !s.is_empty()).map(|s| s.split_once('=').unwrap_or((s, "1"))).collect();
    let broker = match pairs.iter().position(|(k, _)| *k == "broker") {
        Some(i) => pairs.remove(i).1,
        None => "all",
    };
    let chosen: Vec<(&String, &Arc<Route>)> =
        routes.iter().filter(|(id, _)| broker == "all" || broker == *id).collect();
    if chosen.is_empty() {
        return Err(format!("no broker {broker:?}"));
    }
    for (_, route) in &chosen {
        match path {
            "/" | "/status" => {}
            "/set" => set(route, &pairs)?,
            "/clear" => clear(route),
            "/cut" => cut(route, pairs.contains(&("rst", "1"))),
            _ => {
                return Err(format!("no such command {path:?}: /status, /set, /cut, /clear"));
            }
        }
    }
    let each: Vec<String> = chosen.iter().map(|(id, route)| format!("\"{id}\":{}", describe(route))).collect();
    Ok(format!("{{{}}}", each.join(",")))
}

fn clear(route: &Route) {
    route.faults.send_replace(Faults::default());
    for left in [&route.shots.drop_response, &route.shots.drop_request, &route.shots.cut_times] {
        left.store(0, Relaxed);
    }
}

fn cut(route: &Route, reset: bool) {
    let how = if reset { End::Reset } else { End::Close };
    for conn in route.open.lock().values() {
        count(&route.counts.cuts, u64::from(conn.finish(how)));
    }
}

fn set(route: &Route, pairs: &[(&str, &str)]) -> Result<(), String> {
    let mut f = route.faults.borrow().clone();
    let mut shots: Vec<(&AtomicI64, i64)> = Vec::new();
    for &(key, value) in pairs {
        match key {
            "latency_ms" => f.latency_ms = natural(key, value)?,
            "jitter_ms" => f.jitter_ms = natural(key, value)?,
            "rate" => f.rate = natural(key, value)?,
            "stall" => f.stall = Directions::parse(value)?,
            "blackhole" => f.blackhole = Directions::parse(value)?,
            "refuse" => f.refuse = natural(key, value)? > 0,
            "rst" => f.rst = natural(key, value)? > 0,
            "api" => f.api = number(key, value)?,
            "drop_response" => shots.push((&route.shots.drop_response, number(key, value)?)),
            "drop_request" => shots.push((&route.shots.drop_request, number(key, value)?)),
            "cut_times" => shots.push((&route.shots.cut_times, number(key, value)?)),
            "cut_after" => {
                f.cut_after = natural(key, value)?;
                if !pairs.iter().any(|(k, _)| *k == "cut_times") {
                    shots.push((&route.shots.cut_times, i64::from(f.cut_after > 0)));
                }
            }
            _ => return Err(format!("no such fault {key:?}; see kproxy --help")),
        }
    }
    // The api key is set before the shots, so that a shot never hits a request of the earlier api key.
    route.faults.send_replace(f);
    for (left, n) in shots {
        left.store(n, Relaxed);
    }
    Ok(())
}

fn number(key: &str, value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| format!("{key}={value}: not a number"))
}

fn natural(key: &str, value: &str) -> Result<u64, String> {
    u64::try_from(number(key, value)?).map_err(|_| format!("{key}={value}: negative"))
}

fn describe(route: &Route) -> String {
    let f = route.faults.borrow();
    let (shots, counts) = (&route.shots, &route.counts);
    let n = |a: &AtomicU64| a.load(Relaxed);
    serde_json::json!({
        "latency_ms": f.latency_ms,
        "jitter_ms": f.jitter_ms,
        "rate": f.rate,
        "stall": f.stall.name(),
        "blackhole": f.blackhole.name(),
        "refuse": f.refuse,
        "rst": f.rst,
        "api": f.api,
        "drop_response": shots.drop_response.load(Relaxed),
        "drop_request": shots.drop_request.load(Relaxed),
        "cut_after": f.cut_after,
        "cut_times": shots.cut_times.load(Relaxed),
        "open": route.open.lock().len(),
        "accepted": n(&counts.accepted),
        "up_bytes": n(&counts.up_bytes),
        "down_bytes": n(&counts.down_bytes),
        "produce_requests": n(&counts.produce_requests),
        "dropped_responses": n(&counts.dropped_responses),
        "dropped_requests": n(&counts.dropped_requests),
        "cuts": n(&counts.cuts),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_connection_is_not_cut_again() {
        let route = Route::new("127.0.0.1:1".parse().unwrap());
        // The connection stays listed until all of its tasks have ended.
        let (_, conn) = route.register();
        cut(&route, false);
        cut(&route, true);
        assert!(*conn.end.borrow() == End::Close, "the second cut changed the end");
        assert_eq!(route.counts.cuts.load(Relaxed), 1);
    }
}
