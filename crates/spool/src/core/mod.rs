//! The journal's decisions, without IO.
//!
//! Rule: no file, clock, thread or random number. The same bytes give the same result.

pub mod encoding;
pub mod entry;
pub mod frame;
pub mod ids;
pub mod inputs;
pub mod keys;
pub mod ranges;
pub mod recover;
pub mod segment;
pub mod stamps;
pub mod table;
