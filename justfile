# Every check of the project by name; `.ci/run` runs them all and needs no just.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Lists the recipes.
default:
    @just --list

# Everything that needs only Rust and the platform's linker.
test *args:
    cargo test --workspace {{ args }}

# The suite on a real Apache Kafka: Java 17, Maven (once) and Python 3; fetches Kafka itself.
test-kafka *args:
    tests/kafka/run-suite {{ args }}

# Older releases of Kafka, under faults, and what is in their logs afterwards: JDK 17, Maven (once for each) and Python 3.
nightly *versions="2.8.2 0.11.0.3":
    cargo build --locked --release -p kafka-courier-cli
    tests/kafka/releases {{ versions }}

# Tries every security mode of the real cluster with Kafka's own console tools (3 minutes).
test-kafka-tool:
    tests/kafka/selftest

# Formatting and clippy, warnings are errors.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features kafka-courier-tests/kafka -- -D warnings

# Bans, licences and sources of each shipped crate, and no C in any graph.
deny:
    .ci/deny

# courier as one static file, built where no C compiler compiles anything, and run in an empty root (as root; needs openssl and
# qemu-user): just static aarch64-unknown-linux-musl for another CPU.
static *targets:
    .ci/static {{ targets }}

# The library's features in every combination, but for ring's, which needs a C compiler (needs cargo-hack).
hack:
    cargo hack check --feature-powerset --exclude-features tls-ring -p kafka-courier -p kafka-courier-idempotent-sender

# Known vulnerabilities; fetches RustSec's database.
audit:
    cargo deny check advisories

# The API documentation, warnings are errors.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Writes the tables in docs/CONFIGURATION.md and docs/METRICS.md from the code.
config-docs:
    UPDATE_DOCS=1 cargo test -q -p kafka-courier --test configuration_doc --test metrics_doc

# The concurrent parts through random schedules of threads (shuttle), the shipped modules themselves.
shuttle:
    RUSTFLAGS='--cfg shuttle' CARGO_TARGET_DIR=target/shuttle cargo test -p kafka-courier --lib shuttle

# kcat and Kafka's Java client on the broker inside the process, and courier on librdkafka's mock cluster: kcat, JDK 17 and Python 3;
# fetches the rest itself.
test-interop:
    tests/interop/run

# How long a fault of the cluster is felt, beside Kafka's Java producer: medians of five runs (half an hour).
gaps *args:
    cargo run --release -p kafka-courier-tests --bin gaps -- {{ args }}

# The criterion benchmarks: just bench --save-baseline before; change something; just bench --baseline before (or a name's part).
bench *args:
    cargo bench -p kafka-courier-benches --bench '*' -- {{ args }}

# What each stage of the hot path asks of memory, by record.
bench-allocations:
    cargo run --release -p kafka-courier-benches --bin allocations

# Instructions of each stage of the hot path against the recorded ones (needs valgrind): just callgrind --record writes them.
callgrind *args:
    benches/callgrind {{ args }}

# Instructions of a producer with and without whoever records its metrics or spans (needs valgrind).
bench-watched:
    benches/watched

# How cost and memory grow with partitions, records and threads, on the broker of the tests (some 5 minutes).
bench-growth:
    cargo run --release -p kafka-courier-benches --bin growth

# Load generators of Kafka clients side by side on a real Kafka, with ratios: C and C++ compilers, CMake, Go, JDK 17, Python 3.
bench-peers *args:
    benches/peers/run {{ args }}

# So many random schedules of the sender against the model cluster, and how often each rule was reached.
simulate schedules="100000":
    SIM_SCHEDULES={{ schedules }} cargo test --release -p kafka-courier-idempotent-sender --test simulation random_schedules -- --nocapture

# Plants each known mistake into a copy of the last commit: the simulation must find every one.
plants *names:
    crates/idempotent-sender/tests/plants/run {{ names }}

# Fuzzes one target, for example: just fuzz broker_answer -max_total_time=60 (needs nightly and cargo-fuzz).
fuzz target *args:
    mkdir -p fuzz/corpus/{{ target }}
    cargo +nightly fuzz run {{ target }} fuzz/corpus/{{ target }} fuzz/seeds/{{ target }} -- -rss_limit_mb=512 -malloc_limit_mb=64 {{ args }}

# What CI runs.
ci:
    .ci/run
