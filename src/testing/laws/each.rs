//! A function for each law.

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

/// After `None` always `None`, whatever is fired later; and `is_terminated()` is `true`.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn fused<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Fused], Tier::Stream, |source, _| wrap(source)).assert();
}

/// `size_hint()` is true at every moment, and after the end its lower bound is 0. Of a stream that can be stopped the
/// lower bound is 0 from the beginning, and after the end it is `(0, Some(0))`. After a panic it is whatever it is.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn size_hint<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::SizeHint], Tier::Stream, |source, _| wrap(source)).assert();
}

/// A stream that returned `Pending` is woken, at the waker of its latest poll: by the stop, by its source, and by the stream
/// itself if its source does not wait. There is nothing else that it could wait for.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn wakes<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Wakes], Tier::Stream, |source, _| wrap(source)).assert();
}

/// Dropping the stream drops the source there and then, leaves the stop as it was, and no waker of it is kept.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn dropping<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Dropping], Tier::Stream, |source, _| wrap(source)).assert();
}

/// The source is polled only while the stream is, and not as that is made or dropped, and gives one item at most for
/// each poll: nothing runs ahead.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn lazy<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Lazy], Tier::Stream, |source, _| wrap(source)).assert();
}

/// A panic of the source, or of its `Drop`, passes through once: through a poll, or through the drop of the stream.
/// Then the stream is over, and the source is not polled again. Of its own accord the stream does not panic.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn panics<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Panics], Tier::Stream, |source, _| wrap(source)).assert();
}

/// What comes out is a prefix of what the source would have given, in order.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn prefix<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Prefix], Tier::Stopped, wrap).assert();
}

/// A stop that is never fired changes nothing: the same items, the same polls of the source, no more wake-ups. A
/// stream may yield after an item, for the sake of fairness, and so may each of a few that are stacked.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn identity<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Identity], Tier::Stopped, wrap).assert();
}

/// Nothing ends the stream but its source and the stop. At a nanosecond before its deadline it continues.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn nothing_early<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::NothingEarly], Tier::Stopped, wrap).assert();
}

/// A poll that begins after the stop gives no item, even if one is ready.
///
/// At a point in time that is so for the first poll, for any after a `Pending`, and once the consumer has waited
/// after a run of more than 64 items.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn nothing_late<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::NothingLate], Tier::Stopped, wrap).assert();
}

/// An item that was taken from the source comes out before the end, even if the stop is fired in that poll.
///
/// # Panics
///
/// If that is not so.
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
/// If that is not so.
#[track_caller]
pub fn ends<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Ends], Tier::Stopped, wrap).assert();
}

/// After the stop the source is never polled; stopped beforehand, never at all. Nor after its own end, or the
/// stream's.
///
/// # Panics
///
/// If that is not so.
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
/// If that is not so.
#[track_caller]
pub fn dropped_first<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::DroppedFirst], Tier::Stopped, wrap).assert();
}

/// After the end no waker of the stream is kept: by no timer, no token, no signal.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn released<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Released], Tier::Stopped, wrap).assert();
}

/// A stream over a source that is always ready is pending once after at most 1024 items in a row. That it wakes
/// itself then is what [`wakes`] says.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn fair<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::Fair], Tier::Stopped, wrap).assert();
}

/// A source that is always ready is stopped soon after its deadline, although no timer runs: within a millisecond
/// at a steady pace, and after a sudden slow-down within 64 items. It holds for streams without a deadline.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn on_time<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&[Law::OnTime], Tier::Stopped, wrap).assert();
}

/// `stop_reason()` is `None` while the stream runs and after an end of its own, `Some` once it was stopped, and
/// never changes. A source that ends in a poll during which the stop was fired, before it ended, was stopped.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn one_outcome<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable,
    S::Item: Letter,
{
    report_of_stoppable(&[Law::OneOutcome], wrap).assert();
}

/// `stop_reason()` is what it was stopped for: `Cancelled` by a token, `DeadlineExceeded` at a point in time, even
/// if no timer ran.
///
/// # Panics
///
/// If that is not so.
#[track_caller]
pub fn honest<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable,
    S::Item: Letter,
{
    report_of_stoppable(&[Law::Honest], wrap).assert();
}

/// A stream that was stopped before it gives `None` for the first time gives its `Err` instead: also if the stop is
/// fired, or the deadline passes, in the very poll in which its source ends. So a response that was cut short never looks
/// complete.
///
/// It is about a stream of `Result`s whose stop is an `Err`. A stop that is fired by the `Drop` of a source which has ended
/// may be reported or not.
///
/// It is not one of [`check_all`](super::check_all())'s, as a stream may well end without an error. [`check`](super::check()) asks for it as well, beside others.
///
/// # Panics
///
/// If that is not so.
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

/// The thread that fires the stop has dropped the source by the time that this returns, without a poll. Fired during a poll
/// of the stream, the source is dropped before that poll returns; fired before the stream is made, before its first poll.
///
/// It is about a token. [`check`](super::check()) asks for it as well, beside others.
///
/// # Panics
///
/// If that is not so, or if the stream takes a point in time for its stop.
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

/// After its token was cancelled the stream continues for `time`, from the first poll that saw it on, as if nothing had
/// happened: a source that ends meanwhile has ended by itself. When the time is over, a pending stream is woken, and a
/// poll ends it, gives no item, and leaves the source alone, which is dropped first. Nothing is lost.
///
/// The source is pending for a while, and the consumer is busy for a while, for just as long as `time` or a nanosecond
/// less, by the paused clock. A pending stream may be woken at the whole millisecond after the end, as tokio's timers
/// are, and in a run of ready items it is as with a deadline: see [`on_time`].
///
/// # Panics
///
/// If that is not so, or if the stream takes a point in time for its stop.
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

/// Like [`drains`], and `stop_reason()` is `None` while the stream drains and after an end of its own, `Some` once the
/// grace was over.
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

/// The stream ends, with an error or without, once its source gave nothing for `time`, and changes nothing before that.
/// The time runs from the first `Pending` after an item or the start, so that a consumer which is busy does not count.
/// When it is over a pending stream is woken, and a poll asks the source once more: an item wins. Else the source is
/// dropped, and then the stream ends. But a poll that is late, by more than a sixteenth of `time` and more than 10 ms,
/// starts the time anew, once until the next item: the consumer was away.
///
/// Time passes as for [`drains`]. A pending stream may be woken at the whole millisecond after the end.
///
/// # Panics
///
/// If that is not so.
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
