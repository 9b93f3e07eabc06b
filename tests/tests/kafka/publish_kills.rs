//! `courier publish --spool`, killed at random moments while it publishes a file.
//!
//! Rule: `PUBLISH_KILLS` is the number of kills. The seed is printed, and `PUBLISH_KILLS_SEED` repeats it.
use std::fs::File;
use std::io::BufReader;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::courier::{Courier, binary};
use kafka_courier_tests::ledger::Ledger;
use kafka_courier_tests::publish::create_topics;
use kafka_courier_tests::settings::number;

use crate::broker_faults::Rng;

/// Events of the file.
const EVENTS: &str = "100000";
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn killed_publish_delivers_once() -> Result<()> {
    let seed = number("PUBLISH_KILLS_SEED", 1)?;
    println!("replay: PUBLISH_KILLS_SEED={seed} tests/kafka/run-suite killed_publish_delivers_once");
    let mut rng = Rng(seed);
    let cluster = Cluster::start(1)?;
    create_topics(&cluster, 6, 1)?;
    let folder = tempfile::tempdir()?;
    let (events, spool) = (folder.path().join("events.ndjson"), folder.path().join("spool"));
    let sample = Command::new(binary()?).args(["sample", "--count", EVENTS]).stdout(File::create(&events)?).status()?;
    ensure!(sample.success(), "courier sample ended with {sample}");
    let (events_name, spool_name) = (events.display().to_string(), spool.display().to_string());
    let arguments = ["publish", "--brokers", cluster.bootstrap(), "--spool", &spool_name, &events_name];
    let (mut continued, mut killed) = (0, 0);
    for life in 0..number("PUBLISH_KILLS", 20)? {
        let log = folder.path().join("log");
        let mut command = Command::new(binary()?);
        command.args(arguments).env("XDG_STATE_HOME", folder.path()).stdin(Stdio::null());
        let mut child = command.stderr(File::create(&log)?).spawn()?;
        // Every fifth run is killed while it opens the spool.
        let time = if life % 5 == 4 { rng.below(40) } else { 100 + rng.below(1_900) };
        std::thread::sleep(Duration::from_millis(time));
        killed += u64::from(child.try_wait()?.is_none());
        child.kill()?;
        child.wait()?;
        continued += u64::from(std::fs::read_to_string(&log)?.contains("continues at line"));
    }
    println!("{killed} runs were killed, {continued} continued within the file");
    ensure!(continued > 0, "no run continued within the file");
    let last = Courier::new(&[&arguments[..], &["--wait"]].concat())?.within(PATIENCE).run()?.expect_code(0)?;
    println!("{}", last.stderr);
    let mut ledger = Ledger::read(BufReader::new(File::open(&events)?), None)?;
    for (topic, count) in ledger.check(&cluster)? {
        println!("{topic}: {count} records");
    }
    let again = Courier::new(&arguments)?.run()?.expect_code(0)?;
    again.expect_stderr(&["items are stored or delivered already: --again publishes them again"])?;
    Ok(())
}
