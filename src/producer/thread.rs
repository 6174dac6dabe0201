//! The threads of blocking bodies and calls.
//!
//! Each body and each call has its own thread. Neither tokio's blocking pool nor a shared pool, such as that of the
//! crate `blocking`, can keep these promises:
//!
//! - An abandoned call may never return. In a pool it occupies a thread forever: once all are occupied, the blocking
//!   work of all other callers waits for calls whose result is not needed. A runtime also waits for its pool when it
//!   shuts down.
//! - Work that waits in a queue keeps its captures. On its own thread it begins at once, or not at all.
//! - When the system cannot start a thread, tokio's pool panics, and `blocking` waits without an error. Here the caller
//!   gets the error.
//!
//! The cost is a new thread per call, some tens of microseconds: the bench measures it beside `spawn_blocking`. For
//! many short calls the pool is better. Tokens stop its calls as well: `spawn_blocking(..).with_cancellation(&token)`.

use crate::StopReason;
use std::thread;

/// The name of the threads, as the system shows it.
const NAME: &str = "stopcock";

/// Runs `work` on a thread of its own.
///
/// # Errors
///
/// The error of the system if it cannot start a thread; `work` has been dropped then.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), StopReason> {
    let thread = thread::Builder::new().name(NAME.to_owned());
    thread.spawn(work).map(drop).map_err(StopReason::custom)
}
