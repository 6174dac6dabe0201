//! The laws of termination, checked for every public item through the public API: data in, data out. No test
//! sleeps or reads a wall clock.

mod accessors;
mod blocking_generator;
mod breakers;
mod cancel_on_drop;
mod convert;
#[cfg(feature = "tokio")]
mod deadline_cause;
mod depth;
#[cfg(feature = "tokio")]
mod drain_for;
mod drop_on_cancel;
mod exact;
mod future;
mod generator;
mod growth;
mod hold;
mod holders;
mod laws;
mod linked;
mod map_stop;
#[cfg(feature = "tokio")]
mod merges;
mod model;
mod on_cancel;
mod on_end;
mod residue;
mod run_blocking;
mod run_until_cancelled;
#[cfg(feature = "tokio")]
mod runtimes;
mod script;
mod sequences;
mod settled;
mod signal;
#[cfg(feature = "tokio")]
mod spawn_generator;
mod stacks;
mod stop_at_end;
mod stop_location;
mod stop_reason;
mod stress;
mod support;
mod take_until_cancelled;
mod testing;
mod token;
#[cfg(feature = "tokio")]
mod token_deadline;
mod traits;
#[cfg(feature = "tokio")]
mod with_deadline;
#[cfg(feature = "tokio")]
mod with_idle_timeout;
mod yield_every;
