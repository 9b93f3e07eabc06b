//! The examples stand in `examples/`; run one with `cargo run -p kafka-courier-examples --example quickstart`.
