//! The thread of what blocks.
//!
//! Each body and each call has one of its own. Neither tokio's blocking pool nor a shared pool, such as the crate
//! `blocking`, can keep what is promised here:
//!
//! - A call that was given up may never return. In a pool it keeps a place forever: once all are taken, the blocking
//!   work of all other callers waits for calls whose result is not needed. A runtime also waits for its pool when it
//!   shuts down.
//! - Work that waits in a queue keeps its captures. A thread of its own begins at once, or not at all.
//! - When the system has no more threads, tokio's pool panics, and `blocking` waits for one without a word. Here it is
//!   an error, and the caller gets it.
//!
//! The price is a new thread per call, some tens of microseconds: the bench has it beside `spawn_blocking`. Whoever
//! makes many short calls is better off with the pool, which this crate's tokens can stop as well: as a future, by
//! `spawn_blocking(..).with_cancellation(&token)`.

use crate::StopReason;
use std::thread;

/// The name of the threads, as the system shows it.
const NAME: &str = "stopcock";

/// Runs `work` on a thread of its own.
///
/// # Errors
///
/// The error of the system if it has no more threads; `work` has been dropped then.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), StopReason> {
    let thread = thread::Builder::new().name(NAME.to_owned());
    thread.spawn(work).map(drop).map_err(StopReason::custom)
}
