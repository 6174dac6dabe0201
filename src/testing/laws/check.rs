//! A stream against many laws at once.

use super::{
    Broken, Law, Report,
    search::{first, hold, laws_of, report_of, report_of_stoppable},
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

/// Holds a stream against the laws of any stream.
///
/// Many good streams keep only some of them, and are held against these one by one: one that skips items is not [`lazy`](super::lazy),
/// and one that waits for a timer or a task of its own is not woken as [`wakes`](super::wakes) wants it to be, for which there is
#[cfg_attr(feature = "tokio", doc = "[`check_stream_over_time`].")]
#[cfg_attr(not(feature = "tokio"), doc = "`check_stream_over_time`.")]
/// That it is over after a panic of its source is for [`panics`](super::panics), which is not asked for here, as most streams are not. A
/// panic of the stream's own is reported.
///
/// # Panics
///
/// If one is broken.
#[track_caller]
pub fn check_stream<S>(wrap: impl Fn(Source) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_stream(wrap).assert();
}

/// Holds a stream that waits for more than its source against the laws of any stream but [`lazy`](super::lazy): a channel that a task
/// feeds, `throttle`, a timer.
///
/// While it is pending its tasks run, and the paused clock advances, timer by timer, for an hour at most, or until the
/// stream is woken. It has to be woken by then, unless its source is pending. As it is dropped its tasks have their turn,
/// and have to drop the source then.
///
/// # Panics
///
/// If one is broken.
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
    hold(&laws, Plan::going_on(STEPS), Tier::Stream, &first, &stage).assert();
}

/// Holds a stream that can be stopped against all laws but those of its reason.
///
/// # Panics
///
/// If one is broken.
#[track_caller]
pub fn check_stop<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stream,
    S::Item: Letter,
{
    report_stop(wrap).assert();
}

/// Holds a stream that can be stopped, and can say why, against all laws.
///
/// # Panics
///
/// If one is broken.
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

/// Holds a stream that can be stopped against some laws: those of any stream and those of one that can be stopped.
///
/// The functions for the laws of any stream fire no stop; here it is fired, so that `[Law::Wakes]` says whether the
/// stop wakes the stream.
///
/// # Panics
///
/// If one is broken, or if one is about what only a [`Stoppable`] stream can say.
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

/// Holds a stream against some laws over plans of your own: more scripts, longer ones, or fewer for a large table.
///
/// # Panics
///
/// If one is broken, or is about a length of time.
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
    hold(laws, plans.into_iter(), Tier::Stoppable, &first, &stage).assert();
}

#[track_caller]
fn assert_timeless(laws: &[Law]) {
    for law in laws {
        assert!(
            !law.takes_a_time(),
            "the law `{law}` is about a length of time: ask it by its function, which takes one"
        );
    }
}

/// Holds one run of a stream that can be stopped against all laws but those of its reason: for property tests.
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

/// Like [`check`], but returns what became of each law: for a table.
///
/// # Panics
///
/// If a law is about a length of time, or about what only a [`Stoppable`] stream can say.
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
            "the law `{law}` is about the reason of a stop, which a stream need not report: ask it by its function, or all \
             laws by `check_all`"
        );
    }
    report_of(laws, Tier::Stopped, wrap)
}

/// Like [`check_stream`], but returns what became of each law: for a table.
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

/// Like [`check_stop`], without a panic: for a table.
pub fn report_stop<S>(wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stream,
    S::Item: Letter,
{
    report_of(&laws_of(Tier::Stopped), Tier::Stopped, wrap)
}

/// Like [`check_all`], without a panic: for a table.
pub fn report_all<S>(wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stoppable,
    S::Item: Letter,
{
    report_of_stoppable(&laws_of(Tier::Stoppable), wrap)
}
