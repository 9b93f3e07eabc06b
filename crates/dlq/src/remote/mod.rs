//! A store that another process holds, through a Unix socket beside its file.
//!
//! - The holder serves ([`FileStore::serve`](crate::FileStore::serve)); its lock file says where. Others use
//!   [`RemoteStore`], a store like any.
//! - Socket and folder are their owner's alone: who may read the file may come in, nobody else.
//! - A replay's claim ends with its connection, however that ends.

mod client;
mod protocol;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use client::RemoteStore;
pub use server::Service;
