//! A schedule drawn from a seed: settings, load and faults. Each kind of fault occurs in some schedules only, so the
//! combinations vary.
//!
//! Rule: a schedule has at least 200 events and 3 faults, 3 brokers and 6 partitions.

use std::time::Duration;

use kafka_courier_idempotent_sender::core::{Backoff, Config};

use crate::cluster::{BROKERS, Forced, MS, Micros, PARTITIONS, SECOND, topic_of};
use crate::faults::Fault;
use crate::lives::LifeEnd;
use crate::log::SequenceRules;
use crate::plan::Reading::{Allowed, Forbidden, StateOnly};
use crate::plan::{BatchPlan, Plan, RecordPlan, Rules};
use crate::rng::Rng;

const EVENTS: usize = 200;

pub(crate) fn random_plan(seed: u64) -> Plan {
    let mut rng = Rng::new(seed.wrapping_mul(0xA076_1D64_78BD_642F));
    let config = config(&mut rng, seed);
    let aged = rng.percent(6);
    let idle = rng.percent(8);
    let mut rules = rules(&mut rng, &config, aged || idle);
    let length = rng.range(2..25) * SECOND;
    let mut batches = batches(&mut rng, length, aged);
    let mut length = length;
    if idle {
        let middle = length / 2;
        let gap = rng.range(70..300) * SECOND;
        batches.iter_mut().filter(|batch| batch.at > middle).for_each(|batch| batch.at += gap);
        length += gap;
    }
    let faults = faults(&mut rng, length, &batches);
    let last = faults.iter().map(|fault| fault.0).max().unwrap_or(0);
    let heal_at = last.max(length) + rng.range(0..15) * SECOND;
    let close_at = rng.percent(7).then(|| rng.range(length / 2..heal_at));
    if close_at.is_some() {
        // A producer's close waits for the threads that seal batches.
        rules.sealed_late = 0;
    }
    Plan {
        seed,
        config,
        rules,
        batches,
        faults,
        heal_at,
        close_at,
        lives: Vec::new(),
        suspensions: Vec::new(),
        starts_with_wrong_clock: false,
        renumbers: false,
    }
}

/// Draws a schedule in which the process ends several times. No topic is deleted in it.
pub(crate) fn random_lives(seed: u64) -> Plan {
    let mut plan = random_plan(seed);
    let mut rng = Rng::new(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    plan.close_at = None;
    if plan.rules.sequence.first_must_be_zero {
        // Such a leader refuses the first batch of an id in the same way as a batch that it has appended long ago.
        plan.config.first_sequence = 0;
    }
    plan.faults.retain(|(_, fault)| !matches!(fault, Fault::DeleteTopic { .. } | Fault::CreateTopic { .. }));
    if plan.rules.reading == Forbidden && !plan.rules.sequence.first_must_be_zero {
        plan.rules.sequence.old_codes |= seed.is_multiple_of(2);
    }
    if plan.rules.reading == Forbidden || plan.config.first_sequence != 0 {
        // A client without the right to read can't tell a leader that refuses at random from one that has the batch. A
        // leader that knows nothing of an id refuses only numbers other than 0, and late requests as well.
        plan.faults.retain(|(_, fault)| !matches!(fault, Fault::Force { forced: Forced { code: 45, .. }, .. }));
    }
    if let Some(expiration) = plan.rules.id_expiration_ms {
        plan.config.id_memory = Duration::from_millis(expiration.unsigned_abs() / 2);
        plan.config.renews_timestamps = rng.percent(60);
    }
    let mut at = 0;
    for _ in 0..rng.range(1..6) {
        at = match rng.range(0..100) {
            0..40 => rng.range(0..plan.heal_at),
            40..75 => plan.batches[rng.index(plan.batches.len())].at + rng.range(0..60 * MS),
            // Shortly after the start of the next process, or in its recovery.
            _ => at + rng.range(0..400 * MS),
        };
        let down = match rng.range(0..100) {
            0..60 => rng.range(0..100 * MS),
            60..90 => rng.range(0..20 * SECOND),
            _ => rng.range(60..300) * SECOND,
        };
        at = at.min(plan.heal_at);
        plan.lives.push(LifeEnd { at, down, is_orderly: rng.percent(15) });
    }
    for end in plan.lives.clone() {
        if rng.percent(40) {
            hinder_restart(&mut rng, &mut plan, end);
        }
        if rng.percent(15) {
            forget_at_restart(&mut rng, &mut plan, end);
        }
        if rng.percent(15) {
            keep_former_leader(&mut rng, &mut plan, end);
        }
    }
    plan.renumbers = rng.percent(30);
    plan.starts_with_wrong_clock = rng.percent(20);
    if plan.rules.id_expiration_ms.is_some() && rng.percent(60) {
        suspend(&mut rng, &mut plan);
    }
    plan
}

/// Adds faults to the end of a process and the start of the next one, in a partition that has batches in flight: their
/// requests arrive late, and meanwhile the leader rejects, splits or fences the batches, or changes.
fn hinder_restart(rng: &mut Rng, plan: &mut Plan, end: LifeEnd) {
    let last = plan.batches.iter().rev().find(|batch| batch.at <= end.at);
    let restart = end.at + end.down + rng.range(0..200 * MS);
    let Some(partition) = last.map(|batch| batch.partition).filter(|_| restart < plan.heal_at) else { return };
    let broker = partition % BROKERS;
    let before = rng.range(5 * MS..150 * MS).min(end.at);
    let by = rng.pick(&[50 * MS, 600 * MS, 3 * SECOND, 9 * SECOND]);
    let mut add = |at: Micros, fault: Fault| plan.faults.push((at, fault));
    if rng.percent(80) {
        add(end.at - before, Fault::Slow { broker, time: before, by });
    }
    if rng.percent(40) {
        add(end.at - before, Fault::LimitMessage { partition, bytes: rng.pick(&[150, 400]), time: before + end.down });
    }
    let time = rng.range(20..2000) * MS;
    for _ in 0..rng.range(1..3) {
        let fault = match rng.range(0..100) {
            0..30 => Fault::LimitMessage { partition, bytes: rng.pick(&[70, 70, 150]), time },
            30..45 => Fault::LimitAge { partition, ms: rng.pick(&[5, 40, 500]), time },
            45..60 => Fault::Compact { partition, names_rejected: rng.percent(80), time },
            60..80 => Fault::FenceId { partition },
            _ => Fault::Elect { partition, to: rng.index(BROKERS) },
        };
        add(restart + rng.range(0..100 * MS), fault);
    }
}

/// Suspends the machine of the process shortly after a batch has left, for longer than leaders remember. The answer to the
/// batch is lost.
fn suspend(rng: &mut Rng, plan: &mut Plan) {
    let batch = &plan.batches[rng.index(plan.batches.len())];
    let (at, broker) = (batch.at, batch.partition % BROKERS);
    plan.faults.push((at, Fault::LoseAnswers { broker, time: SECOND }));
    let time = rng.range(150..500) * SECOND;
    plan.suspensions.push((at + rng.range(0..30 * MS), time));
    plan.heal_at += time;
}

/// Deletes the records of a partition at the end of a process, and stops all brokers. They forget the partition's producer
/// ids, unless something was appended meanwhile.
fn forget_at_restart(rng: &mut Rng, plan: &mut Plan, end: LifeEnd) {
    let last = plan.batches.iter().rev().find(|batch| batch.at <= end.at);
    let Some(partition) = last.map(|batch| batch.partition) else { return };
    let at = end.at + rng.range(0..40 * MS);
    plan.faults.push((at, Fault::DeleteRecords { partition }));
    let down = rng.pick(&[20, 200, 900]) * MS;
    plan.faults.extend((0..BROKERS).map(|broker| (at + MS, Fault::Kill { broker, down })));
}

/// Gives a partition another leader before the process ends. The former leader does not notice, and the next process asks it
/// first.
fn keep_former_leader(rng: &mut Rng, plan: &mut Plan, end: LifeEnd) {
    let last = plan.batches.iter().rev().find(|batch| batch.at <= end.at);
    let Some(partition) = last.map(|batch| batch.partition) else { return };
    let broker = partition % BROKERS;
    let before = rng.range(5 * MS..300 * MS).min(end.at);
    plan.faults.push((end.at - before, Fault::LateUpdates { broker, by: end.down + rng.range(200..5000) * MS }));
    let fault = match rng.percent(50) {
        true => Fault::Elect { partition, to: (broker + 1) % BROKERS },
        false => Fault::FailDisk { broker, partition, time: 120 * MS },
    };
    plan.faults.push((end.at - before + MS, fault));
}

fn config(rng: &mut Rng, seed: u64) -> Config {
    let default = Config { seed, ..Config::default() };
    let mut config = Config {
        max_in_flight: rng.pick(&[5, 5, 5, 5, 4, 3, 2, 1]),
        retry_max: rng.pick(&[3, 3, 3, 1, 0, 8]),
        delivery_timeout: Duration::from_secs(rng.pick(&[30, 30, 30, 12, 5])),
        request_timeout: Duration::from_secs(rng.pick(&[10, 10, 10, 4, 2])),
        connections_per_broker: rng.pick(&[4, 4, 2, 1]),
        max_request_bytes: rng.pick(&[8 << 20, 8 << 20, 4096, 1024]),
        ..default
    };
    if rng.percent(20) {
        // A backoff as long as delivery_timeout would leave no second attempt, even on a healthy cluster.
        let cap = Duration::from_millis(rng.pick(&[10, 50, 5000])).min(config.delivery_timeout / 4);
        config.backoff = Backoff { base: Duration::from_millis(10), cap };
    }
    if rng.percent(10) {
        config.first_epoch = i16::MAX - rng.range(40..200) as i16;
    }
    if rng.percent(15) {
        config.first_sequence = i32::MAX - rng.range(0..150) as i32;
    }
    config
}

fn rules(rng: &mut Rng, config: &Config, forgets: bool) -> Rules {
    let first_must_be_zero = rng.percent(20);
    let sequence = SequenceRules { first_must_be_zero, old_codes: !first_must_be_zero && rng.percent(15) };
    let request_timeout = config.request_timeout.as_micros() as Micros;
    Rules {
        sequence,
        by_id: rng.percent(75),
        produce_timeout: (request_timeout - 2 * SECOND).max(request_timeout / 2),
        replica_lag_max: rng.pick(&[3, 10, 30]) * SECOND,
        session_timeout: rng.pick(&[9, 9, 3]) * SECOND,
        id_expiration_ms: forgets.then(|| rng.pick(&[120_000, 180_000])),
        id_check: rng.pick(&[2, 2, 600]) * SECOND,
        waits_for_min_isr: rng.percent(70),
        log_append_time: rng.percent(15),
        reading: rng.pick(&[Allowed, Allowed, Allowed, Allowed, Allowed, Allowed, StateOnly, Forbidden]),
        sealed_late: rng.pick(&[0, 0, 10, 40]),
        request_max_bytes: if rng.percent(3) { 2000 } else { usize::MAX },
        failing_ids: rng.pick(&[0, 0, 1, 3]),
        latency: rng.pick(&[(200, 1500), (50, 300), (5 * MS, 40 * MS), (100, 80 * MS)]),
        idle_max: rng.pick(&[600, 600, 600, 20]) * SECOND,
        late_arrival_percent: rng.pick(&[60, 90, 100, 0]),
        session: rng.percent(15).then(|| rng.range(SECOND..20 * SECOND)),
    }
}

/// Draws the load: bursts of batches, some on a single partition.
fn batches(rng: &mut Rng, length: Micros, aged: bool) -> Vec<BatchPlan> {
    let mut batches = Vec::new();
    let mut events = 0;
    let keyless = rng.percent(30);
    while events < EVENTS {
        let burst_at = rng.range(0..length);
        let hot = rng.percent(60).then(|| rng.index(PARTITIONS));
        for _ in 0..rng.range(1..12) {
            let partition = hot.unwrap_or_else(|| rng.index(PARTITIONS));
            let at = burst_at + rng.range(0..20 * MS);
            let batch = batch(rng, at, partition, keyless, aged);
            events += batch.records.len();
            batches.push(batch);
        }
    }
    batches.sort_by_key(|batch| batch.at);
    batches
}

fn batch(rng: &mut Rng, at: Micros, partition: usize, keyless: bool, aged: bool) -> BatchPlan {
    let count = rng.range(1..9) as usize;
    let records =
        (0..count).map(|_| RecordPlan { has_key: !(keyless && rng.percent(8)), padding: rng.pick(&[0, 20, 60, 200]) });
    let records = records.collect();
    let age_ms = if aged && rng.percent(30) { 400_000 } else { 0 };
    BatchPlan { at, partition, records, age_ms, lingered: rng.range(0..20) * MS }
}

/// The time and place of a fault.
#[derive(Clone, Copy)]
struct FaultTarget {
    at: Micros,
    broker: usize,
    partition: usize,
}

fn faults(rng: &mut Rng, length: Micros, batches: &[BatchPlan]) -> Vec<(Micros, Fault)> {
    let kinds: Vec<u64> = (0..KINDS).filter(|_| rng.percent(30)).collect();
    let kinds = if kinds.is_empty() { (0..KINDS).collect() } else { kinds };
    let mut faults = Vec::new();
    let mut target = random_target(rng, length);
    for _ in 0..rng.range(3..12) {
        target = next_target(rng, target, length, batches);
        let kind = rng.pick(&kinds);
        let fault = fault(rng, kind, target);
        if let Fault::DeleteTopic { topic } = fault {
            let partitions = rng.pick(&[3, 3, 1, 2, 4]);
            faults.push((target.at + rng.range(0..6) * SECOND / 2, Fault::CreateTopic { topic, partitions }));
        }
        faults.push((target.at, fault));
    }
    if rng.percent(6) {
        let (at, time) = (rng.range(0..length), rng.range(1..50) * SECOND);
        faults.extend((0..BROKERS).map(|broker| (at, Fault::Kill { broker, down: time })));
    }
    faults.sort_by_key(|fault| fault.0);
    faults
}

fn random_target(rng: &mut Rng, length: Micros) -> FaultTarget {
    FaultTarget { at: rng.range(0..length), broker: rng.index(BROKERS), partition: rng.index(PARTITIONS) }
}

/// Draws the target of the next fault. Most faults hit a batch in flight, or the target of the previous fault.
fn next_target(rng: &mut Rng, before: FaultTarget, length: Micros, batches: &[BatchPlan]) -> FaultTarget {
    let mut target = match rng.range(0..100) {
        0..30 => random_target(rng, length),
        30..65 => {
            let batch = &batches[rng.index(batches.len())];
            let at = batch.at + rng.range(0..25 * MS);
            FaultTarget { at, broker: batch.partition % BROKERS, partition: batch.partition }
        }
        65..85 => FaultTarget { at: before.at + rng.range(0..30 * MS), ..before },
        _ => FaultTarget { at: before.at + rng.range(0..12) * SECOND, ..before },
    };
    if rng.percent(25) {
        target.broker = rng.index(BROKERS);
    }
    target
}

const KINDS: u64 = 25;

fn fault(rng: &mut Rng, kind: u64, target: FaultTarget) -> Fault {
    let FaultTarget { broker, partition, .. } = target;
    let short = rng.range(1..3000) * MS;
    let long = rng.pick(&[short, short, rng.clone().range(1..45) * SECOND]);
    match kind {
        0 => Fault::Kill { broker, down: long },
        1 => Fault::CleanRestart { broker, down: long },
        2 => Fault::Pause { broker, time: long },
        3 => Fault::Elect { partition, to: rng.index(BROKERS) },
        4 => Fault::CutConnections { broker },
        5 => Fault::LoseAnswers { broker, time: short },
        6 => Fault::StallRequests { broker, time: long },
        7 => Fault::Slow { broker, time: long, by: rng.pick(&[50 * MS, 600 * MS, 3 * SECOND]) },
        8 => Fault::RefuseConnections { broker, time: long },
        9 => Fault::Throttle { broker, time: long },
        10 => Fault::LateUpdates { broker, by: long },
        11 => Fault::OmitParts { broker, time: short / 4 },
        12 => Fault::Force { partition, forced: forced(rng), times: rng.range(1..6) as usize },
        13 => Fault::Refuse { partition, code: rng.pick(&[2, 29, 32, 44, 17, 19]), time: short },
        14 => Fault::LimitMessage { partition, bytes: rng.pick(&[70, 150, 400, 900]), time: long },
        15 => Fault::LimitSegment { partition, bytes: rng.pick(&[150, 400, 900]), time: short },
        16 => Fault::SlowReplication { partition, by: rng.pick(&[100 * MS, 2 * SECOND, 9 * SECOND]), time: long },
        17 => Fault::FailDisk { broker, partition, time: short },
        18 => Fault::Compact { partition, names_rejected: rng.percent(80), time: long },
        19 => Fault::GrowTopic { topic: topic_of(partition) },
        20 => Fault::ElectUncleanly { partition, to: broker },
        21 => Fault::RefuseCredentials { broker, time: short },
        22 => Fault::FenceId { partition },
        23 => Fault::LimitAge { partition, ms: rng.pick(&[5, 40, 500]), time: short },
        _ => Fault::DeleteTopic { topic: topic_of(partition) },
    }
}

/// Draws an error before or after the append, with or without an offset, as brokers answer.
fn forced(rng: &mut Rng) -> Forced {
    const BEFORE: [i16; 20] = [2, 3, 5, 6, 7, 13, 14, 15, 16, 19, 20, 45, 47, 56, 74, 75, 100, 103, -1, 89];
    const FINAL: [i16; 11] = [17, 21, 29, 31, 32, 35, 42, 43, 44, 48, 76];
    const AFTER: [(i16, bool); 9] =
        [(7, true), (6, true), (3, true), (56, true), (20, true), (-1, false), (-1, true), (7, false), (999, false)];
    match rng.range(0..100) {
        0..50 => return Forced { code: rng.pick(&BEFORE), appended: None },
        50..60 => return Forced { code: rng.pick(&FINAL), appended: None },
        _ => {}
    }
    let (code, with_offset) = rng.pick(&AFTER);
    Forced { code, appended: Some(with_offset) }
}
