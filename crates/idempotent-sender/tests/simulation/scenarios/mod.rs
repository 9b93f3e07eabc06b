//! The named scenarios.
