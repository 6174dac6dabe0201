//! Whole programs on the real clock, with real sockets, files, threads and signals. Each checks itself, and fails if
//! something that it has stopped is still there.
#![cfg(feature = "tokio")]

mod leak_free_generator;
mod legacy_blocking;
mod line_server;
mod worker_tree;
