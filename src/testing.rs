//! Tools to test that a stream ends when and how it should: a stream of this crate, of another crate, or your own.
//!
//! - [`laws`] test a stream against the laws of termination, over all short scripts and all points at which it can be
//!   stopped.
//! - A [`Source`] plays a [`Script`], which is a marble diagram in one line of text, and keeps a [`Record`] of
//!   everything that happens to it. A [`Probe`] records the same of any stream, and a [`DropProbe`] records the drop of
//!   its owner. [`assert_no_leak`] checks that they have been dropped.
//! - A [`Harness`] drives a stream by hand: poll by poll, with a [`Stop`] to be fired in between, and with a paused
//!   clock. A run is printed as a diagram.
//! - With the feature `proptest`, `strategy` has strategies for scripts and stops.
//!
//! Nothing here sleeps, reads a wall clock, or has state that two tests could share. A paused clock does not wait for
//! the thread of a blocking body or call: [`blocking_generator`](crate::blocking_generator()#paused-clock) shows how to
//! hold the clock for one.
//!
//! ```toml
//! [dependencies]
//! stopcock = "0.1"
//!
//! [dev-dependencies]
//! stopcock = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # An adapter of your own
//!
//! A law takes a closure that wraps a [`Source`] so that a [`Stop`] stops it. From the stop, take the one thing that
//! the adapter needs: its token, a future or a callback of the token, or a point in time. [`laws::check_stop`] tests
//! the adapter against all laws. This is a whole test, of an adapter of another crate:
//!
//! ```should_panic
//! use futures::StreamExt;
//! use stopcock::testing::laws;
//!
//! // #[test]
//! fn take_until_keeps_the_laws() {
//!     laws::check_stop(|source, stop| source.take_until(stop.token().cancelled_owned()));
//! }
//! # take_until_keeps_the_laws();
//! ```
//!
//! It fails. For each broken law it reports the law, the smallest run that breaks it, and what was expected there:
//!
//! ```text
//! the law `dropped_first` is broken: the source is dropped before the stream ends
//!
//!     source   ......
//!     stop     X.....
//!     woken    ......
//!     output   .||||/
//!     dropped  .....D
//!
//! script "", stopped before it is made
//! expected the source to be dropped before poll 0 returns the end
//! ```
//!
//! A column is a poll, or an event between two polls. The letters are those of the diagrams of
//! [`CancelStreamExt`](crate::CancelStreamExt), with some more for what only a test sees:
//!
//! | in a diagram | meaning |
//! |---|---|
//! | `a`, `b`, `c` | an item |
//! | `-` | pending |
//! | `X` | the stop: where it is fired, and in an output the `Err` that reports it |
//! | <code>&#124;</code> | the end |
//! | `D` | the source is dropped |
//! | `/` | the stream is dropped |
//! | `~` | pending, and never woken |
//! | `!` | a panic |
//! | `w` | the stream is woken |
//! | `.` | nothing |
//!
//! Here the stop was fired. The first poll returned the end, as it should, but the source was dropped only with the
//! stream.
//!
//! If an adapter does not keep all laws, check those that it keeps:
//!
//! ```
//! use futures::StreamExt;
//! use stopcock::testing::laws::{self, Law};
//!
//! laws::check(&[Law::NothingLate, Law::NothingLost, Law::Wakes], |source, stop| {
//!     source.take_until(stop.token().cancelled_owned())
//! });
//! // Some laws apply to any stream.
//! laws::wakes(|source| source.map(|item| item));
//! ```
//!
//! # A stream of your application
//!
//! Such a stream makes its own items, so there is no script to wrap; a [`Harness`] drives it instead. This test checks
//! that it **stops with its token**, and works until then:
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use futures::Stream;
//! use std::time::Duration;
//! use stopcock::{CancellationToken, generator, testing::Harness};
//!
//! fn ticks(token: CancellationToken) -> impl Stream<Item = u32> {
//!     generator(token, async |mut y| {
//!         let mut interval = tokio::time::interval(Duration::from_secs(1));
//!         for n in 0.. {
//!             interval.tick().await;
//!             y.yield_item(n).await;
//!         }
//!     })
//! }
//!
//! // #[test]
//! fn ticks_until_it_is_stopped() {
//!     let mut harness = Harness::new(|stop| ticks(stop.token()));
//!     assert_eq!(harness.run(), [0]);
//!     assert_eq!(harness.run_for(Duration::from_secs(2)), [1, 2]);
//!     harness.stop();
//!     assert_eq!(harness.run(), []);
//!     assert!(harness.is_over());
//! }
//! # ticks_until_it_is_stopped();
//! ```
//!
//! This one checks that **nothing is leaked** when the consumer drops the stream at any point:
//!
//! ```
//! use futures::{Stream, stream};
//! use stopcock::{CancelStreamExt, CancellationToken, testing::{Harness, assert_no_leak}};
//!
//! /// The stream owns its connection.
//! fn rows<C>(connection: C, token: &CancellationToken) -> impl Stream<Item = u32> + use<C> {
//!     stream::unfold((0, connection), async |(n, connection)| Some((n, (n + 1, connection))))
//!         .take_until_cancelled(token)
//! }
//!
//! // #[test]
//! fn the_connection_is_closed_when_the_client_hangs_up() {
//!     for polls in 0..3 {
//!         assert_no_leak(|probes| {
//!             let connection = probes.drop_probe();
//!             let mut harness = Harness::new(|stop| rows(connection, &stop.token()));
//!             for _ in 0..polls {
//!                 let _ = harness.poll();
//!             }
//!             harness.drop_stream();
//!             // Dropping the harness drops its tasks. Returned, so that it lives until the drops have been checked.
//!             harness
//!         });
//!     }
//! }
//! # the_connection_is_closed_when_the_client_hangs_up();
//! ```
//!
//! This one checks, with a paused clock, that **a timeout is reported**, even if the source is stuck:
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use futures::Stream;
//! use std::time::Duration;
//! use stopcock::{CancelStreamExt, StopReason, testing::Harness};
//!
//! fn answer(upstream: impl Stream<Item = char>) -> impl Stream<Item = Result<char, StopReason>> {
//!     upstream.with_timeout(Duration::from_secs(30))
//! }
//!
//! // #[test]
//! fn a_truncated_answer_ends_with_an_error() {
//!     let mut harness = Harness::scripted("a-b~", |upstream, _| answer(upstream));
//!     assert_eq!(harness.run().len(), 2);
//!     let rest = harness.run_for(Duration::from_secs(30));
//!     assert!(matches!(rest[..], [Err(StopReason::DeadlineExceeded)]));
//!     assert!(harness.record().is_dropped());
//! }
//! # a_truncated_answer_ends_with_an_error();
//! ```
//!
//! # Which law is which
//!
//! [The laws](crate::guide::laws) of the crate have numbers.
//!
//! | law | function |
//! |---|---|
//! | S1 prefix, S2 identity, S3 nothing late | [`prefix`](laws::prefix), [`identity`](laws::identity), [`nothing_late`](laws::nothing_late) and [`ends`](laws::ends) |
//! | S4 nothing lost, S5 left alone, S6 dropped first | [`nothing_lost`](laws::nothing_lost), [`left_alone`](laws::left_alone), [`dropped_first`](laws::dropped_first) |
//! | S7 fused, S8 no lost wake-up, S9 dropping | [`fused`](laws::fused), [`wakes`](laws::wakes), [`dropping`](laws::dropping) |
//! | S10 size hint, S11 fair, S12 one outcome, S13 panics | [`size_hint`](laws::size_hint), [`fair`](laws::fair), [`one_outcome`](laws::one_outcome), [`panics`](laws::panics) |
//! | S14 a stop is reported | [`stop_is_reported`](laws::stop_is_reported) |
//! | D2 exact, D3 in the past or never | [`nothing_early`](laws::nothing_early), and [`nothing_late`](laws::nothing_late), [`ends`](laws::ends), [`left_alone`](laws::left_alone), [`identity`](laws::identity) at a point in time |
//! | D4 honest, D5 released, D6 on time, D7 deterministic | [`honest`](laws::honest), [`released`](laws::released), [`on_time`](laws::on_time), all of them |
//! | G1 no run-ahead, G2 drops its body, G3 loses nothing | [`lazy`](laws::lazy), [`dropping`](laws::dropping) and [`dropped_first`](laws::dropped_first), [`prefix`](laws::prefix) and [`nothing_lost`](laws::nothing_lost) |
//!
//! Some features have a law of their own: `drop_on_cancel` has [`drop_on_cancel`](laws::drop_on_cancel),
#![cfg_attr(
    feature = "tokio",
    doc = "`drain_for` has [`drains`](laws::drains), `with_idle_timeout` has [`ends_when_idle`](laws::ends_when_idle)."
)]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "`drain_for` has `drains`, `with_idle_timeout` has `ends_when_idle`."
)]
//!
//! D1 is about tokens, and G4 about what safe code may do with a generator: no run of a stream can test them.

pub mod laws;
#[cfg(feature = "proptest")]
#[cfg_attr(docsrs, doc(cfg(feature = "proptest")))]
pub mod strategy;

mod clock;
mod diagram;
mod harness;
mod leak;
mod plan;
mod probe;
mod quiet;
mod record;
mod script;
mod source;
mod stop;
mod subject;
mod watch;

pub use harness::Harness;
pub use leak::{DropProbe, Probes, assert_no_leak};
pub use plan::Plan;
pub use probe::{Moment, Probe};
pub use record::{Event, Output, Record, View};
pub use script::{ParseScriptError, Script, Step};
pub use source::Source;
pub use stop::{Stop, StopPoint};
pub use subject::{Letter, Stoppable};
