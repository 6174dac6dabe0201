//! The laws of termination, as functions that check a stream.
//!
//! A function takes a closure that wraps a [`Source`](super::Source) so that a [`Stop`](super::Stop) stops it. It runs
//! the stream by hand, over **all** scripts of up to four steps, with **all** points at which it can be stopped,
//! dropped, or moved to another waker; then over longer random ones, which are the same in each run of the test. If the
//! law is broken, the function panics with the name of the law, the smallest run that breaks it as a diagram, and what
//! was expected there.
//!
//! | laws of | functions | all of them |
//! |---|---|---|
//! | any stream | [`fused`], [`size_hint`], [`wakes`], [`dropping`], [`lazy`] | [`check_stream`] |
//! | a stream that can be stopped | [`prefix`], [`identity`], [`nothing_early`], [`nothing_late`], [`nothing_lost`], [`ends`], [`left_alone`], [`dropped_first`], [`released`], [`fair`], [`on_time`], [`panics`] | [`check_stop`], with those above |
//! | a stream that reports why it was stopped: [`Stoppable`](super::Stoppable) | [`one_outcome`], [`honest`] | [`check_all`], with those above |
//!
//! [A table](super#which-law-is-which) gives their numbers in [the laws](crate::guide::laws) of the crate.
//!
//! Some streams promise more, or something else. These laws are checked by their own functions only:
//!
//! | laws of a stream that | functions |
//! |---|---|
//! | reports its stop as an error | [`stop_is_reported`] |
//! | is dropped by the thread that cancels | [`drop_on_cancel`] |
#![cfg_attr(
    feature = "tokio",
    doc = "| is stopped after a grace period | [`drains`]; for a [`Stoppable`](super::Stoppable) one [`drains_and_says_why`] |"
)]
#![cfg_attr(
    feature = "tokio",
    doc = "| ends when its source is idle | [`ends_when_idle`] |"
)]
//!
//! A stream with a grace period is not stopped until that is over, so of the laws above only those of any stream apply
//! to it.
//!
//! The functions for any stream take no stop and fire none. What their laws require at a stop is checked by [`check()`]
//! and [`check_stop`], and what they require of `is_terminated()` by [`check_all`]. [`fair`] and [`panics`] are
//! promises of this crate rather than of streams in general: for an adapter without them, [`check()`] takes a list of laws.
//! If code panics although its source does not, every check reports [`panics`] as broken.
//!
//! Each check also has a form that returns a [`Report`] instead of panicking: [`report()`], [`report_stream`],
//! [`report_stop`], [`report_all`]. Panics that a check catches are not printed; the report has their messages.
//!
//! A stream that is stuck inside a poll, in a deadlock or an endless loop, cannot be made to fail. After ten seconds
//! without any event, the law, the plan and the diagram are printed, and the process is aborted. The environment
//! variable `STOPCOCK_TESTING_PATIENCE_MS` sets another time; `0` waits forever, as under a debugger.
//!
//! # What they cannot check
//!
//! The laws observe the source, the stream, and the wakers. If a stream between the source and the adapter takes items
//! ahead, such as `chunks`, `buffered` or a channel, the end of the source is not the end of that stream, and an item that
//! was taken from the source may not have reached the adapter. So for `source.chunks(2).take_until_cancelled(..)` the laws
//! report that an item is lost at a stop. That is true of the two together, although neither has lost one. Check the
//! adapter alone against all laws, and the combination against those that it keeps.
//!
//! They run on one thread, so they cannot find races, and they see only the orders of events that are in their plans. For
//! a stream that waits for something other than its source,
#![cfg_attr(
    feature = "tokio",
    doc = "[`check_stream_over_time`] runs the timers and tasks of tokio; it does not wait for other threads."
)]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "`check_stream_over_time` runs the timers and tasks of tokio; it does not wait for other threads."
)]
//!
//! # A stop
//!
//! A stop is a token or a point in time, whichever the closure takes from its [`Stop`](super::Stop). At a point in time
//! a run of ready items may continue for a while, as the clock is not read for each item; [`on_time`] limits that.
//! Check an adapter that takes any future with the token: a `Sleep` whose time has passed is still pending at its first
//! poll, so a stream that does not read the clock cannot be exact.

mod check;
mod each;
mod law;
mod report;
mod search;
mod trace;

#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use check::check_stream_over_time;
pub use check::{
    check, check_all, check_plans, check_stop, check_stream, report, report_all, report_stop,
    report_stream, try_plan,
};
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use each::{drains, drains_and_says_why, ends_when_idle};
pub use each::{
    drop_on_cancel, dropped_first, dropping, ends, fair, fused, honest, identity, lazy, left_alone,
    nothing_early, nothing_late, nothing_lost, on_time, one_outcome, panics, prefix, released,
    size_hint, stop_is_reported, wakes,
};
pub use law::Law;
pub use report::{Broken, Report};
