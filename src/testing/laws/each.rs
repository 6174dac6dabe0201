//! One function for each law.

use super::{
    Law,
    search::{report_of, report_of_stoppable},
    trace::Tier,
};
use crate::testing::{Letter, Source, Stop, Stoppable};
use futures_core::Stream;

#[cfg(feature = "tokio")]
use super::search::examine_in_time;
#[cfg(feature = "tokio")]
use crate::testing::subject::Lettered;
#[cfg(feature = "tokio")]
use std::time::Duration;

/// After `None` every poll returns `None`, even if the stop is fired later, and `is_terminated()` is `true`.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn fused<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Fused], Tier::Stream, |source, _| wrap(source)).assert();
}

/// `size_hint()` is correct at every moment, and after the end its lower bound is 0. For a stream that can be stopped the
/// lower bound is always 0, and after the end the hint is `(0, Some(0))`. After a panic it is not checked.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn size_hint<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::SizeHint], Tier::Stream, |source, _| wrap(source)).assert();
}

/// A stream that has returned `Pending` is woken through the waker of its latest poll: by the stop, by its source, or by
/// itself if its source is not pending. There is nothing else that it could wait for.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn wakes<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Wakes], Tier::Stream, |source, _| wrap(source)).assert();
}

/// Dropping the stream drops the source at once, does not cancel the token, and nothing holds a waker of it any more.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn dropping<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Dropping], Tier::Stream, |source, _| wrap(source)).assert();
}

/// The source is polled only inside a poll of the stream, not while that is made or dropped, and for at most one item in
/// each poll: nothing runs ahead.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn lazy<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Lazy], Tier::Stream, |source, _| wrap(source)).assert();
}

/// A panic of the source, or of its `Drop`, passes through once: through a poll, or through the drop of the stream.
/// Then the stream has ended, and the source is not polled again. The stream does not panic unless its source does.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn panics<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Panics], Tier::Stream, |source, _| wrap(source)).assert();
}

/// The items are a prefix of those that the source would have yielded, in order.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn prefix<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Prefix], Tier::Stopped, wrap).assert();
}

/// A stop that is never fired changes nothing: the same items, the same polls of the source, no more wake-ups. After an
/// item the stream may be pending once for fairness, and so may each adapter of a stack.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn identity<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Identity], Tier::Stopped, wrap).assert();
}

/// Only its source and the stop end the stream. A nanosecond before its deadline it continues.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn nothing_early<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::NothingEarly], Tier::Stopped, wrap).assert();
}

/// A poll that begins after the stop returns no item, even if one is ready.
///
/// For a deadline, this applies to the first poll, to each poll after a `Pending`, and to a poll after which the consumer
/// has awaited something after a run of more than 64 items.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn nothing_late<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::NothingLate], Tier::Stopped, wrap).assert();
}

/// An item that was taken from the source is yielded before the end, even if the stop is fired in that poll.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn nothing_lost<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::NothingLost], Tier::Stopped, wrap).assert();
}

/// A poll that begins after the stop ends the stream: with `None`, or with the `Err` of the stop. It is not
/// pending.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn ends<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Ends], Tier::Stopped, wrap).assert();
}

/// The source is not polled after the stop, after its own end, or after the end of the stream. If the stop was fired
/// before the first poll, the source is never polled.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn left_alone<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::LeftAlone], Tier::Stopped, wrap).assert();
}

/// The source is dropped before `None`, or the last `Err`, is returned.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn dropped_first<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::DroppedFirst], Tier::Stopped, wrap).assert();
}

/// After the end nothing holds a waker of the stream: no timer, no token, no signal.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn released<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Released], Tier::Stopped, wrap).assert();
}

/// Over a source that is always ready, the stream is pending once after at most 1024 items. [`wakes`] checks that it
/// wakes itself then.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn fair<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Fair], Tier::Stopped, wrap).assert();
}

/// A source that is always ready is stopped soon after the deadline, although no timer can run: within a millisecond at
/// a steady pace, and within 64 items after a sudden slow-down. Streams without a deadline keep this law.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn on_time<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::OnTime], Tier::Stopped, wrap).assert();
}

/// `stop_reason()` is `None` while the stream runs and after a natural end, `Some` once the stream was stopped, and
/// never changes. If the stop is fired during a poll before the source ends in that poll, the stream was stopped.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn one_outcome<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable,
    S::Item: Letter,
{
    report_of_stoppable(&[Law::OneOutcome], wrap).assert();
}

/// `stop_reason()` is the reason of the stop: `Cancelled` for a token, `DeadlineExceeded` for a point in time, even if no
/// timer has fired.
///
/// # Panics
///
/// If the law is broken.
#[track_caller]
pub fn honest<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable,
    S::Item: Letter,
{
    report_of_stoppable(&[Law::Honest], wrap).assert();
}

/// A stream that was stopped before its first `None` returns its `Err` instead, also if the stop is fired, or the deadline
/// passes, in the poll in which its source ends. So a truncated response never looks complete.
///
/// This is a law of streams of `Result`s that report a stop as an `Err`. If the `Drop` of a source that has ended fires
/// the stop, the stream may report it or not.
///
/// [`check_all`](super::check_all()) does not check it, as a stream may be meant to end without an error.
/// [`check`](super::check()) can check it together with other laws.
///
/// # Panics
///
/// If the law is broken.
///
/// # Examples
///
/// ```
/// use stopcock::{CancelStreamExt, testing::laws};
///
/// laws::stop_is_reported(|source, stop| source.with_cancellation(stop.token()));
/// ```
#[track_caller]
pub fn stop_is_reported<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::StopIsReported], Tier::Stopped, wrap).assert();
}

/// When the call that fires the stop returns, the source has been dropped, without a poll. If the stop is fired during a
/// poll of the stream, the source is dropped before that poll returns; if it is fired before the stream is made, before
/// its first poll.
///
/// This is a law about tokens. [`check`](super::check()) can check it together with other laws.
///
/// # Panics
///
/// If the law is broken, or if the stream takes a point in time from its stop.
///
/// # Examples
///
/// ```
/// use stopcock::{CancelStreamExt, testing::laws};
///
/// laws::drop_on_cancel(|source, stop| source.take_until_cancelled(stop.token()).drop_on_cancel());
/// ```
#[track_caller]
pub fn drop_on_cancel<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::DropOnCancel], Tier::Stopped, wrap).assert();
}

/// After its token is cancelled the stream continues for `time`, from the first poll that notices it, as if it had not
/// been cancelled: if the source ends meanwhile, that is a natural end. When the time is over, a pending stream is woken.
/// The next poll drops the source without polling it, returns no item, and ends the stream. No item is lost.
///
/// The plans have a source that is pending and a consumer that is busy for about `time` on the paused clock, such as a
/// nanosecond less. A pending stream may be woken up to the next whole millisecond, like tokio's timers, and a run of
/// ready items may be as late as with a deadline: see [`on_time`].
///
/// # Panics
///
/// If the law is broken, or if the stream takes a point in time from its stop.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use stopcock::{CancelStreamExt, testing::laws};
///
/// const GRACE: Duration = Duration::from_secs(5);
///
/// laws::drains(GRACE, |source, stop| source.take_until_cancelled(stop.token()).drain_for(GRACE));
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[track_caller]
pub fn drains<S>(time: Duration, wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    examine_in_time(Law::Drains, time, Tier::Stopped, &|source, stop| {
        Box::pin(Lettered::new(wrap(source, stop)))
    })
    .assert();
}

/// Like [`drains`]. Also, `stop_reason()` is `None` while the stream drains and after a natural end, and `Some` once the
/// grace period is over.
///
/// # Panics
///
/// Like [`drains`].
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[track_caller]
pub fn drains_and_says_why<S>(time: Duration, wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable,
    S::Item: Letter,
{
    examine_in_time(Law::Drains, time, Tier::Stoppable, &|source, stop| {
        Box::pin(Lettered::stoppable(wrap(source, stop)))
    })
    .assert();
}

/// The stream ends, with an error or without, once its source was idle for `time`, and changes nothing before that. The
/// time runs from the first `Pending` after an item or after the start, so a busy consumer does not count. When it is
/// over, a pending stream is woken. The next poll polls the source once more, and yields an item if there is one.
/// Otherwise it drops the source and ends the stream. A poll that is late, by more than a sixteenth of `time` and more than
/// 10 ms, starts the time again, at most once until the next item.
///
/// Time passes as in [`drains`]. A pending stream may be woken up to the next whole millisecond.
///
/// # Panics
///
/// If the law is broken.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use stopcock::{CancelStreamExt, testing::laws};
///
/// const IDLE: Duration = Duration::from_secs(30);
///
/// laws::ends_when_idle(IDLE, |source| source.with_idle_timeout(IDLE));
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[track_caller]
pub fn ends_when_idle<S>(time: Duration, wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    examine_in_time(Law::EndsWhenIdle, time, Tier::Stream, &|source, _| {
        Box::pin(Lettered::new(wrap(source)))
    })
    .assert();
}
