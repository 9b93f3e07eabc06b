# Every check of the project by name. `.ci/run` runs all of them without just.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes
default:
    @just --list

# Run all tests that need only Rust and the platform's linker
test *args:
    cargo test --workspace {{ args }}

# Run the suite on a real Apache Kafka, which it fetches (needs Java 17, Python 3 and, once, Maven)
test-kafka *args:
    tests/kafka/run-suite {{ args }}

# Publish to older releases of Kafka under faults, and check their logs (needs JDK 17, Python 3 and, once a release, Maven)
nightly *versions="2.8.2 0.11.0.3":
    cargo build --locked --release -p kafka-courier-cli
    tests/kafka/releases {{ versions }}

# Try every security mode of the real cluster with Kafka's own console tools (3 minutes)
test-kafka-tool:
    tests/kafka/selftest

# Check formatting and run clippy, with warnings as errors
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features kafka-courier-tests/kafka -- -D warnings

# Check licences and sources of each shipped crate, and that no graph compiles C
deny:
    .ci/deny

# Build courier as one static file without a C compiler, and run it in an empty root (as root, needs openssl and qemu-user)
static *targets:
    .ci/static {{ targets }}

# Check the library's features in every combination, except tls-ring, which compiles C (needs cargo-hack)
hack:
    cargo hack check --feature-powerset --exclude-features tls-ring -p kafka-courier -p kafka-courier-client

# Check for known vulnerabilities in RustSec's database, which it fetches
audit:
    cargo deny check advisories

# Build the API documentation, with warnings as errors
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Write the tables in docs/CONFIGURATION.md, docs/EVENTS.md, docs/HTTP.md and docs/OPERATIONS.md from the code
config-docs:
    UPDATE_DOCS=1 cargo test -q -p kafka-courier -p kafka-courier-event-model -p kafka-courier-gateway \
        --test configuration --test events --test observability --test service document

# Run the concurrent parts through random schedules of threads (shuttle)
shuttle:
    RUSTFLAGS='--cfg shuttle' CARGO_TARGET_DIR=target/shuttle cargo test -p kafka-courier-producer --lib shuttle

# Run kcat and the Java client on the test broker, and courier on librdkafka's mock cluster (needs kcat, JDK 17, Python 3)
test-interop:
    tests/interop/run

# Follow "Adding an event type" in CONTRIBUTING.md in a copy of the project
recipe:
    .ci/recipe

# Measure the gaps in delivery that faults cause, beside Kafka's Java producer: medians of five runs (half an hour)
gaps *args:
    cargo run --release -p kafka-courier-tests --bin gaps -- {{ args }}

# Run the criterion benchmarks, for example with --save-baseline before, then with --baseline before, or with a part of a name
bench *args:
    cargo bench -p kafka-courier-benches --bench '*' -- {{ args }}

# Count the allocations of each stage of the hot path
bench-allocations:
    cargo run --release -p kafka-courier-benches --bin allocations

# Compare instruction counts of the hot path with the recorded ones, or write them with --record (needs valgrind)
callgrind *args:
    benches/callgrind {{ args }}

# Count a producer's instructions with and without recorders of metrics and spans (needs valgrind)
bench-watched:
    benches/watched

# Measure how cost and memory grow with partitions, records and threads, on the test broker (5 minutes)
bench-growth:
    cargo run --release -p kafka-courier-benches --bin growth

# Measure how fast events become durable in a spool, beside a bare loop of write and sync in a folder (a minute)
bench-spool folder=".":
    cargo run --release -p kafka-courier-benches --bin spool -- {{ folder }}

# Compare Kafka clients on a real Kafka (needs C and C++ compilers, CMake, Go, JDK 17, Python 3)
bench-peers *args:
    benches/peers/run {{ args }}

# Run random schedules of the sender against the model cluster, with and without processes that die, and count what they reached
simulate schedules="100000":
    SIM_SCHEDULES={{ schedules }} cargo test --release -p kafka-courier-idempotent-sender --test simulation random -- --nocapture

# Run all property tests on new random cases. A failure can be repeated with PROPTEST_RNG_SEED and the printed seed
properties runs="20":
    #!/usr/bin/env bash
    set -euo pipefail
    for run in $(seq {{ runs }}); do
        export PROPTEST_RNG_SEED=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
        echo "-- run $run: PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"
        cargo test -q -p kafka-courier-event-model -p kafka-courier-batcher -p kafka-courier-dlq -p kafka-courier-spool \
            -p kafka-courier-recovery --lib --test events --test batches --test letters
    done

# Plant each known defect into a copy of the last commit: the simulation must find every one
plants *names:
    .ci/plants kafka-courier-idempotent-sender crates/idempotent-sender/tests/plants {{ names }}

# Plant each known defect of the journal, and demand that the simulation of crashes finds it (5 minutes)
plants-spool *names:
    .ci/plants kafka-courier-spool crates/spool/tests/plants {{ names }}

# Fuzz one target, for example: just fuzz broker_answer -max_total_time=60 (needs nightly and cargo-fuzz)
fuzz target *args:
    mkdir -p fuzz/corpus/{{ target }}
    cargo +nightly fuzz run {{ target }} fuzz/corpus/{{ target }} fuzz/seeds/{{ target }} -- -rss_limit_mb=512 -malloc_limit_mb=64 {{ args }}

# Run everything that CI runs
ci:
    .ci/run
