//! kproxy: a fault-injecting TCP proxy for Kafka brokers. See `USAGE`.
//!
//! Each direction of a connection has a task that reads and a task that writes. A bounded queue of time-stamped chunks
//! between them adds latency without a loss of throughput. The reader parses the headers of Kafka's frames, so that a
//! fault can aim at the response to a Produce request. A request has a 4-byte size, api key, version and correlation
//! id, and a response has a 4-byte size and the correlation id.
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::route::Route;

mod control;
mod frames;
mod relay;
mod route;

const USAGE: &str = "\
kproxy --control HOST:PORT ID=[HOST:]LISTEN:TARGET ...

Forwards 127.0.0.1:LISTEN to 127.0.0.1:TARGET for each broker ID and takes commands over HTTP on the
control address (GET or POST, all arguments in the query):

  /status                       JSON: faults in force and counters, per broker
  /set?broker=ID|all&K=V&...    set faults; they apply to open connections too
  /cut?broker=ID|all[&rst=1]    close all open connections now (rst=1: with a TCP reset)
  /clear?broker=ID|all          remove all faults (connections that lost bytes stay dead)

Lasting faults (0 or off removes one):
  latency_ms=N  jitter_ms=N     delay every chunk, in each direction; order is kept
  rate=N                        at most N bytes per second, per connection and direction
  stall=up|down|both            hold bytes back until the fault is removed (a network partition that heals)
  blackhole=up|down|both        drop bytes: a connection that lost bytes never carries bytes again
                                (up: client to broker; down: broker to client, i.e. lost responses)
  refuse=1                      reset new connections immediately

Faults that fire a number of times, each closing the connection it hits:
  drop_response=N               N responses: the request reaches the broker and is answered, but the
                                connection is cut before the client sees the answer
  drop_request=N                N requests: cut before any byte of the request reaches the broker
  api=K                         the api key of the requests for these two (default 0, Produce; -1: any)
  cut_after=BYTES  cut_times=N  cut N connections (default 1), each after BYTES more bytes of requests,
                                possibly in the middle of a request
  rst=1                         cut with a TCP reset instead of an orderly close

On encrypted connections kproxy cannot read requests and ignores api. There drop_response hits the next
bytes that a broker sends, and drop_request the next bytes that a client sends. Both spare the first
8 KiB, so that the handshake passes.
";

/// The pause after a failed accept, for example when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Routes = BTreeMap<String, Arc<Route>>;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || args.iter().any(|a| a == "-h" || a == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kproxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Result<(), String> {
    let mut control = None;
    let mut routes = Routes::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--control" {
            control = Some(words.next().ok_or("--control needs an address")?);
        } else {
            let (id, route) = open(word).await?;
            routes.insert(id, route);
        }
    }
    let control = control.ok_or("--control is required")?;
    let listener = bind(control).await?;
    let routes = Arc::new(routes);
    // The parent process waits for this line: all ports are bound now.
    println!("kproxy: commands on {control}");
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(control::serve(client, Arc::clone(&routes)))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Listens for one broker, given as `ID=[HOST:]LISTEN:TARGET`.
async fn open(word: &str) -> Result<(String, Arc<Route>), String> {
    let bad = || format!("{word:?} is not ID=LISTEN:TARGET");
    let (id, ports) = word.split_once('=').ok_or_else(bad)?;
    let (listen, target) = ports.rsplit_once(':').ok_or_else(bad)?;
    let listen = if listen.contains(':') { listen.to_owned() } else { format!("127.0.0.1:{listen}") };
    let target = format!("127.0.0.1:{target}").parse().map_err(|_| bad())?;
    let listener = bind(&listen).await?;
    let route = Arc::new(Route::new(target));
    drop(tokio::spawn(accept(listener, Arc::clone(&route))));
    Ok((id.to_owned(), route))
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| format!("{address}: {e}"))
}

async fn accept(listener: TcpListener, route: Arc<Route>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(relay::connection(client, Arc::clone(&route)))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
