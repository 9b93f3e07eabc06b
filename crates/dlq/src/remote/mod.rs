//! A store in another process, through a Unix socket beside its file.
//!
//! Rules:
//! - The holder serves the store with [`FileStore::serve`](crate::FileStore::serve), and names the socket in its lock file.
//!   Other processes use [`RemoteStore`].
//! - Socket and folder have the permissions of the file: their owner alone can connect.
//! - The claim of a replay ends with its connection.

mod client;
mod protocol;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use client::RemoteStore;
pub use server::Service;
