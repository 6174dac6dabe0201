//! The laws of termination, each a function that holds a stream against it.
//!
//! They take how to wrap a [`Source`](super::Source) so that a [`Stop`](super::Stop) stops it, and run it by hand: over **all** scripts of up to
//! four steps with **all** points at which it can be stopped, dropped, and moved to another waker, then over longer
//! ones at random, the same at each run. A law that is broken is a panic that names it, with the smallest run that
//! breaks it as a diagram, and what was expected there.
//!
//! | laws of | functions | all of them |
//! |---|---|---|
//! | any stream | [`fused`], [`size_hint`], [`wakes`], [`dropping`], [`lazy`] | [`check_stream`] |
//! | one that can be stopped | [`prefix`], [`identity`], [`nothing_early`], [`nothing_late`], [`nothing_lost`], [`ends`], [`left_alone`], [`dropped_first`], [`released`], [`fair`], [`on_time`], [`panics`] | [`check_stop`], with those above |
//! | one that can say why: [`Stoppable`](super::Stoppable) | [`one_outcome`], [`honest`] | [`check_all`], with those above |
//!
//! The numbers that [the laws](crate::guide::laws) of the crate give them are [listed](super#which-law-is-which).
//!
//! Some streams promise more, or something else, and each of these laws is asked for by itself:
//!
//! | laws of one that | functions |
//! |---|---|
//! | reports its stop as an error | [`stop_is_reported`] |
//! | is dropped by the canceller | [`drop_on_cancel`] |
#![cfg_attr(
    feature = "tokio",
    doc = "| is stopped after a grace | [`drains`]; [`drains_and_says_why`] of a [`Stoppable`](super::Stoppable) one |"
)]
#![cfg_attr(
    feature = "tokio",
    doc = "| ends when its source gives nothing | [`ends_when_idle`] |"
)]
//!
//! A stream with a grace is not stopped until the grace is over, so of the laws above only those of any stream apply to it.
//!
//! A function for any stream takes no stop, so that none is fired: what its law says of stops is seen by [`check`] and
//! [`check_stop`], and what it says of `is_terminated()` by [`check_all`]. [`fair`] and [`panics`] are promises of this
//! crate more than of streams: an adapter may well do without, and [`check`] asks for some laws only. Code that panics
//! although its source does not breaks [`panics`] whichever law is asked for.
//!
//! Each function has a form that returns a [`Report`] in place of a panic, for a table: [`report`], [`report_stream`],
//! [`report_stop`], [`report_all`]. Panics that the laws catch are not printed; what is broken by them has the message.
//!
//! A stream that gets stuck inside of a poll, in a deadlock or an endless loop, cannot be made to fail: after ten seconds in
//! which nothing has happened, the law, the plan and the diagram are printed, and the process is aborted. The environment
//! variable `STOPCOCK_TESTING_PATIENCE_MS` has another time, and `0` is forever, as under a debugger.
//!
//! # What they cannot see
//!
//! The laws see the source, the stream, and the wakers. A stream between the source and an adapter that takes items ahead,
//! such as `chunks`, `buffered` or a channel, hides one from the other: the end of the source is not the end of that
//! stream, and an item that was taken from the source is not one that was given to the adapter. So of
//! `source.chunks(2).take_until_cancelled(..)` the laws say that an item is lost at a stop, and that is true of the stack,
//! although neither of the two has lost one. Hold the adapter against the laws by itself, and of the stack ask for those
//! that it keeps.
//!
//! They run on one thread, so that they see no race, and only such orders of events as their plans have. Of a stream that
//! waits for something else than its source
#![cfg_attr(
    feature = "tokio",
    doc = "[`check_stream_over_time`] knows timers and tasks of tokio; it does not wait for other threads."
)]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "`check_stream_over_time` knows timers and tasks of tokio; it does not wait for other threads."
)]
//!
//! # A stop
//!
//! A stop is a token or a point in time, whichever the wrapper takes from its [`Stop`](super::Stop). At a point in time a run of
//! ready items may go on for a while, as the clock is not read for each item; [`on_time`] says for how long.
//! An adapter that takes any future for a stop is held against the token: a `Sleep` whose time is past is pending at its
//! first poll, so that a stream which reads no clock cannot be exact.

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
