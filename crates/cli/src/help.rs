//! Examples and exit codes at the end of each `--help`.
//!
//! Rules: every command has an example, and lists the exit codes that it can return.

const COURIER: &str = "\
Examples:
  courier demo
  export KAFKA_BROKERS=localhost:9092
  courier sample --count 1000 | courier publish";

const PUBLISH: &str = "\
Examples:
  courier publish --brokers localhost:9092 events.ndjson
  courier sample --count 1000 | courier publish --brokers localhost:9092
  courier publish --topic orders --receipts receipts.ndjson --strict events.json
  courier publish --spool /var/lib/app/spool events.ndjson   (run it again after a crash)";

const SERVE: &str = "\
Examples:
  courier serve --embedded-broker
  courier serve --brokers localhost:9092 --spool /var/lib/app/spool
  courier serve --config courier.toml --log-format json --log-level info
  courier serve --listen 127.0.0.1:8080 --ack-floor disk --spool /var/lib/app/spool";

const HEALTH: &str = "\
Examples:
  courier health
  courier health --url http://127.0.0.1:9090/livez";

const DLQ: &str = "\
Examples:
  courier dlq list --since 1h
  courier dlq replay --all --dry-run
  courier dlq replay --all --verify";

const LIST: &str = "\
Examples:
  courier dlq list
  courier dlq list --since 1h --for-topic orders
  courier dlq list --error-code MESSAGE_TOO_LARGE --json | jq .failure_reason";

const SHOW: &str = "\
Example:
  courier dlq show 0190163d-8694-739b-aea5-966c26f8ad91";

const STATS: &str = "\
Examples:
  courier dlq stats
  courier dlq stats --store-topic dead-letters --json";

const REPLAY: &str = "\
Examples:
  courier dlq replay --all --dry-run
  courier dlq replay --all --verify
  courier dlq replay --for-topic ordrs --to-topic orders";

const PURGE: &str = "\
Examples:
  courier dlq purge --error-code MESSAGE_TOO_LARGE
  courier dlq purge --until 30d --yes";

const EXPORT: &str = "\
Examples:
  courier dlq export dead-letters.ndjson
  courier dlq export --for-topic orders | courier dlq import --file other.redb";

const IMPORT: &str = "\
Examples:
  courier dlq import dead-letters.ndjson
  courier dlq import --replace edited.ndjson";

const SPOOL: &str = "\
Examples:
  courier spool stats /var/lib/app/spool
  courier spool drain /var/lib/app/spool --brokers localhost:9092";

const SPOOL_STATS: &str = "\
Examples:
  courier spool stats /var/lib/app/spool
  courier spool stats /var/lib/app/spool --json | jq .events";

const SPOOL_LIST: &str = "\
Examples:
  courier spool list /var/lib/app/spool --topic orders --limit 20
  courier spool list /var/lib/app/spool --json | jq 'select(.may_be_sent)'";

const SPOOL_CHECK: &str = "\
Example:
  courier spool check /var/lib/app/spool";

const SPOOL_EXPORT: &str = "\
Example:
  courier spool export /var/lib/app/spool events.ndjson
  courier dlq import --file exported.redb events.ndjson
  courier dlq replay --file exported.redb --all --verify";

const SPOOL_DRAIN: &str = "\
Examples:
  courier spool drain /var/lib/app/spool --brokers localhost:9092
  courier spool drain /var/lib/app/spool --timeout 60";

const SPOOL_ADOPT: &str = "\
Example:
  courier spool adopt /var/lib/app/spool";

const CONFIG: &str = "\
Examples:
  courier config --explain
  courier config --set flush_timeout=5ms > courier.toml";

const DEMO: &str = "\
Examples:
  courier demo
  courier demo --events 1000000 --seed 7";

const SAMPLE: &str = "\
Examples:
  courier sample --count 1000 --type user.logged_in
  courier sample --count 1000000 | courier publish";

const ALL_CODES: &str = "\
Exit codes:
  0    everything was done, and every event was delivered
  1    some events or dead letters were not delivered, edited dead letters were not imported, or a
       spool is damaged
  64   the command line is invalid, or names one file twice
  65   some input is not an event or a dead letter, or the input or the spool does not exist
  69   no broker could be reached
  73   a file could not be created
  74   reading or writing failed
  75   another process holds or replays the dead letters, or has the spool, or events are left in
       the spool: try again later
  77   the brokers refused the client (SASL, authorization), or their TLS certificate is not trusted
  78   the configuration is invalid, or a topic of the command line does not exist
  130  Ctrl-C interrupted the command
  143  SIGTERM or SIGHUP interrupted the command";

const PUBLISH_CODES: &str = "\
Exit codes:
  0    every event was delivered
  1    some events were not delivered
  64   the command line is invalid, or names one file twice
  65   some input is not an event, or the input does not exist
  69   no broker could be reached
  73   a file could not be created
  74   reading or writing failed, receipts included
  75   try again later: events are left in the spool, or lines in the file, or another process has
       the spool
  77   the brokers refused the client (SASL), or every failed event (authorization), or their TLS
       certificate is not trusted
  78   the configuration is invalid, or the topic of --topic does not exist
  130  Ctrl-C before the end of the input, or a second Ctrl-C before all verdicts
  143  SIGTERM or SIGHUP, in the same cases
If some events fail and other input is not an event, the code is 1 or 77. 130 and 143 take
precedence over all others. 75 takes precedence over 1 and 65.";

const SERVE_CODES: &str = "\
Exit codes:
  0    a signal ended the service, and every accepted event was delivered, or is in the spool or a
       dead letter
  64   the command line is invalid, or names one file twice
  73   the file of dead letters or the spool could not be created
  74   an address could not be listened on, or reading or writing failed
  75   another process has the spool or an address: try again later
  78   the configuration is invalid
  130  a second Ctrl-C ended the service before all verdicts
  143  SIGTERM or SIGHUP, in the same case";

const HEALTH_CODES: &str = "\
Exit codes:
  0    the service is healthy
  1    the service is not healthy, or does not answer
  64   the command line is invalid";

const DLQ_CODES: &str = "\
Exit codes:
  0    everything was done
  1    some dead letters were not delivered, or edited ones were not imported
  64   the command line is invalid, or names one file twice
  65   some input is not a dead letter, or the input or the file of dead letters does not exist
  69   no broker could be reached
  73   a file could not be created
  74   reading or writing failed
  75   another process holds or replays the dead letters: try again later
  77   the brokers refused the client (SASL, authorization), or their TLS certificate is not trusted
  78   the configuration is invalid, or the topic of --store-topic does not exist or is compacted
  130  Ctrl-C stopped a replay or an import
  143  SIGTERM or SIGHUP stopped a replay or an import";

const SPOOL_CODES: &str = "\
Exit codes:
  0    everything was done. After drain, no event is left in the spool
  1    the spool is damaged (check), or some events became dead letters or are lost (drain)
  64   the command line is invalid, or names one file twice
  65   the folder holds no spool, or an event in it can't be read
  73   a file could not be created
  74   reading or writing failed
  75   a process has the spool (export), or wrote it meanwhile, or events are left in it (drain): try
       again later
  77   the brokers refused the client (SASL, authorization), or their TLS certificate is not trusted
  78   the configuration is invalid, or the brokers belong to another cluster than the events
  130  Ctrl-C stopped a drain
  143  SIGTERM or SIGHUP stopped a drain";

const CONFIG_CODES: &str = "\
Exit codes:
  0    the settings were printed
  64   the command line is invalid, or names one file twice
  74   standard output could not be written
  78   the configuration is invalid";

const DEMO_CODES: &str = "\
Exit codes:
  0    every verdict agrees with the brokers' logs
  1    some verdict does not
  64   the command line is invalid
  74   the cluster inside the process failed";

const SAMPLE_CODES: &str = "\
Exit codes:
  0    all events were printed, or the reader of standard output ended early
  64   the command line is invalid
  74   standard output could not be written";

pub(crate) fn courier() -> String {
    join(COURIER, ALL_CODES)
}

pub(crate) fn publish() -> String {
    join(PUBLISH, PUBLISH_CODES)
}

pub(crate) fn serve() -> String {
    join(SERVE, SERVE_CODES)
}

pub(crate) fn health() -> String {
    join(HEALTH, HEALTH_CODES)
}

pub(crate) fn dlq() -> String {
    join(DLQ, DLQ_CODES)
}

pub(crate) fn dlq_list() -> String {
    join(LIST, DLQ_CODES)
}

pub(crate) fn dlq_show() -> String {
    join(SHOW, DLQ_CODES)
}

pub(crate) fn dlq_stats() -> String {
    join(STATS, DLQ_CODES)
}

pub(crate) fn dlq_replay() -> String {
    join(REPLAY, DLQ_CODES)
}

pub(crate) fn dlq_purge() -> String {
    join(PURGE, DLQ_CODES)
}

pub(crate) fn dlq_export() -> String {
    join(EXPORT, DLQ_CODES)
}

pub(crate) fn dlq_import() -> String {
    join(IMPORT, DLQ_CODES)
}

pub(crate) fn spool() -> String {
    join(SPOOL, SPOOL_CODES)
}

pub(crate) fn spool_stats() -> String {
    join(SPOOL_STATS, SPOOL_CODES)
}

pub(crate) fn spool_list() -> String {
    join(SPOOL_LIST, SPOOL_CODES)
}

pub(crate) fn spool_check() -> String {
    join(SPOOL_CHECK, SPOOL_CODES)
}

pub(crate) fn spool_export() -> String {
    join(SPOOL_EXPORT, SPOOL_CODES)
}

pub(crate) fn spool_drain() -> String {
    join(SPOOL_DRAIN, SPOOL_CODES)
}

pub(crate) fn spool_adopt() -> String {
    join(SPOOL_ADOPT, SPOOL_CODES)
}

pub(crate) fn config() -> String {
    join(CONFIG, CONFIG_CODES)
}

pub(crate) fn demo() -> String {
    join(DEMO, DEMO_CODES)
}

pub(crate) fn sample() -> String {
    join(SAMPLE, SAMPLE_CODES)
}

fn join(examples: &str, codes: &str) -> String {
    format!("{examples}\n\n{codes}")
}
