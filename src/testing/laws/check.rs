//! Checks of many laws at once.

use super::{
    Broken, Law, Report,
    search::{check_plans_for, first, laws_of, report_of, report_of_stoppable},
    trace::{Claim, Tier, Trace},
};
use crate::testing::{
    Letter, Plan, Source, Stop, Stoppable,
    plan::{Stage, Wrap},
    subject::Lettered,
};
use futures_core::Stream;

#[cfg(feature = "tokio")]
use super::search::STEPS;

/// Checks a stream against the laws of any stream.
///
/// Many good streams keep only some of them. Check these one by one: a stream that skips items is not
/// [`lazy`](super::lazy()). A stream that waits for a timer or a task of its own does not keep [`wakes`](super::wakes());
/// check it with
#[cfg_attr(feature = "tokio", doc = "[`check_stream_over_time`].")]
#[cfg_attr(not(feature = "tokio"), doc = "`check_stream_over_time`.")]
/// What the stream does after a panic of its source is not checked, as most streams promise nothing about it: that is
/// [`panics`](super::panics()). If the stream panics although its source does not, that is reported.
///
/// # Panics
///
/// If a law is broken.
#[track_caller]
pub fn check_stream<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_stream(wrap).assert();
}

/// Checks a stream that waits for more than its source, such as a channel that a task feeds, `throttle`, or a timer,
/// against the laws of any stream except [`lazy`](super::lazy()).
///
/// While the stream is pending its tasks run, and the paused clock advances, timer by timer, for at most an hour, or until
/// the stream is woken. It has to be woken by then, unless its source is pending. After the stream is dropped its tasks
/// run once more, and have to drop the source.
///
/// # Panics
///
/// If a law is broken.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use stopcock::testing::laws;
/// use tokio_stream::StreamExt;
///
/// laws::check_stream_over_time(|source| Box::pin(source.throttle(Duration::from_millis(20)).fuse()));
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[track_caller]
pub fn check_stream_over_time<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    let laws = [Law::Fused, Law::SizeHint, Law::Wakes, Law::Dropping];
    let wrap: Wrap<'_> = &|source, _| Box::pin(Lettered::new(wrap(source)));
    let stage = Stage::new(wrap);
    let first = first(&stage, &laws);
    check_plans_for(&laws, Plan::over_time(STEPS), Tier::Stream, &first, &stage).assert();
}

/// Checks a stream that can be stopped against all laws except those about the reason.
///
/// The items of the [`Source`] are `char`s, and the laws compare the items of the stream with them. For an adapter that
/// changes its items, convert them before and after it.
///
/// # Panics
///
/// If a law is broken.
///
/// # Examples
///
/// ```
/// use futures::{Stream, StreamExt};
/// use stopcock::{CancelStreamExt, CancellationToken, testing::laws};
///
/// fn doubled(numbers: impl Stream<Item = u32>, token: CancellationToken) -> impl Stream<Item = u32> {
///     numbers.map(|n| 2 * n).take_until_cancelled(token)
/// }
///
/// laws::check_stop(|source, stop| {
///     doubled(source.map(u32::from), stop.token()).map(|n| char::from_u32(n / 2).unwrap())
/// });
/// ```
#[track_caller]
pub fn check_stop<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_stop(wrap).assert();
}

/// Checks a stream that can be stopped, and reports why, against all laws.
///
/// # Panics
///
/// If a law is broken.
///
/// # Examples
///
/// ```
/// use stopcock::{CancelStreamExt, testing::laws};
///
/// laws::check_all(|source, stop| source.take_until_cancelled(stop.token()));
/// # #[cfg(feature = "tokio")]
/// laws::check_all(|source, stop| source.with_deadline(stop.deadline()));
/// ```
#[track_caller]
pub fn check_all<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable,
    S::Item: Letter,
{
    report_all(wrap).assert();
}

/// Checks a stream that can be stopped against some laws: those of any stream, and those of a stream that can be stopped.
///
/// The functions for any stream fire no stop. Here the stop is fired, so `[Law::Wakes]` also checks that the stop wakes
/// the stream.
///
/// # Panics
///
/// If a law is broken, or needs a [`Stoppable`] stream or a length of time.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use stopcock::testing::laws::{self, Law};
///
/// laws::check(&[Law::Wakes, Law::Ends, Law::NothingLate], |source, stop| {
///     source.take_until(stop.token().cancelled_owned())
/// });
/// ```
#[track_caller]
pub fn check<S>(laws: &[Law], wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report(laws, wrap).assert();
}

/// Checks a stream against some laws in plans of your own: more scripts, longer ones, or fewer.
///
/// # Panics
///
/// If a law is broken, or needs a length of time.
///
/// # Examples
///
/// ```
/// use stopcock::{CancelStreamExt, testing::{Plan, Script, StopPoint, laws::{self, Law}}};
///
/// let plans = Script::all("a|", 6).map(|script| Plan::new(script, StopPoint::During(5)));
/// laws::check_plans(&[Law::StopIsReported, Law::OneOutcome], plans, |source, stop| {
///     source.with_cancellation(stop.token())
/// });
/// ```
#[track_caller]
pub fn check_plans<S>(
    laws: &[Law],
    plans: impl IntoIterator<Item = Plan>,
    wrap: impl Fn(Source, Stop) -> S,
) where
    S: Stoppable,
    S::Item: Letter,
{
    assert_timeless(laws);
    let wrap: Wrap<'_> = &|source, stop| Box::pin(Lettered::stoppable(wrap(source, stop)));
    let stage = Stage::new(wrap);
    let first = first(&stage, laws);
    check_plans_for(laws, plans.into_iter(), Tier::Stoppable, &first, &stage).assert();
}

#[track_caller]
fn assert_timeless(laws: &[Law]) {
    for law in laws {
        assert!(
            !law.takes_a_time(),
            "the law `{law}` is about a length of time: call its own function, which takes one"
        );
    }
}

/// Checks one run of a stream that can be stopped against all laws except those about the reason: for property tests.
///
/// # Errors
///
/// The first law that is broken.
pub fn try_plan<S>(plan: &Plan, wrap: impl Fn(Source, Stop) -> S) -> Result<(), Box<Broken>>
where
    S: Stream,
    S::Item: Letter,
{
    let wrap: Wrap<'_> = &|source, stop| Box::pin(Lettered::new(wrap(source, stop)));
    let stage = Stage::new(wrap);
    let laws = laws_of(Tier::Stopped);
    stage.watch.laws(laws.iter().copied());
    let run = plan.play(&stage);
    let trace = Trace::new(plan, Tier::Stopped, &run);
    laws.into_iter()
        .try_for_each(|law| match trace.check(Claim::Keeps(law)) {
            Ok(()) => Ok(()),
            Err(expected) => Err(Box::new(Broken {
                law,
                plan: plan.clone(),
                record: run.record.clone(),
                expected,
            })),
        })
}

/// Like [`check`], but returns the result of each law.
///
/// # Panics
///
/// If a law needs a [`Stoppable`] stream or a length of time.
#[track_caller]
pub fn report<S>(laws: &[Law], wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stream,
    S::Item: Letter,
{
    assert_timeless(laws);
    for law in laws {
        assert!(
            law.tier() <= Tier::Stopped,
            "the law `{law}` is about the reason of a stop, which a stream need not report: call its own function, or \
             `check_all`"
        );
    }
    report_of(laws, Tier::Stopped, wrap)
}

/// Like [`check_stream`], but returns the result of each law.
#[track_caller]
pub fn report_stream<S>(wrap: impl Fn(Source) -> S) -> Report
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&laws_of(Tier::Stream), Tier::Stream, |source, _| {
        wrap(source)
    })
}

/// Like [`check_stop`], but returns the result of each law.
pub fn report_stop<S>(wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&laws_of(Tier::Stopped), Tier::Stopped, wrap)
}

/// Like [`check_all`], but returns the result of each law.
pub fn report_all<S>(wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stoppable,
    S::Item: Letter,
{
    report_of_stoppable(&laws_of(Tier::Stoppable), wrap)
}
