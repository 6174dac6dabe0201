//! The laws of termination, each a function that holds a stream against it.
//!
//! They take how to wrap a [`Source`] so that a [`Stop`] stops it, and run it by hand: over **all** scripts of up to
//! four steps with **all** points at which it can be stopped, dropped, and moved to another waker, then over longer
//! ones at random, the same at each run. A law that is broken is a panic that names it, with the smallest run that
//! breaks it as a diagram, and what was expected there.
//!
//! | laws of | functions | all of them |
//! |---|---|---|
//! | any stream | [`fused`], [`size_hint`], [`wakes`], [`dropping`], [`lazy`] | [`check_stream`] |
//! | one that can be stopped | [`prefix`], [`identity`], [`nothing_early`], [`nothing_late`], [`nothing_lost`], [`ends`], [`left_alone`], [`dropped_first`], [`released`], [`fair`], [`on_time`], [`panics`] | [`check_stop`], with those above |
//! | one that can say why: [`Stoppable`] | [`one_outcome`], [`honest`] | [`check_all`], with those above |
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
    doc = "| is stopped after a grace | [`drains`]; [`drains_and_says_why`] of a [`Stoppable`] one |"
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
//! variable `STOPCOCK_TESTING_PATIENCE_MS` has another time, and `0` is for ever, as under a debugger.
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
//! A stop is a token or a point in time, whichever the wrapper takes from its [`Stop`]. At a point in time a row of
//! ready items may go on for a while, as the clock is not read for each item; [`on_time`] says for how long.
//! An adapter that takes any future for a stop is held against the token: a `Sleep` whose time is past is pending at its
//! first poll, so that a stream which reads no clock cannot be exact.

mod verdict;

use super::{
    Letter, Plan, Record, Script, Source, Stop, StopPoint, Stoppable,
    plan::{Run, Stage, Wrap},
    subject::Lettered,
};
use futures_core::Stream;
use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    time::Duration,
};
use verdict::{Claim, Story, Tier};

/// A law of termination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// [`fused`].
    Fused,
    /// [`size_hint`].
    SizeHint,
    /// [`wakes`].
    Wakes,
    /// [`dropping`].
    Dropping,
    /// [`lazy`].
    Lazy,
    /// [`panics`].
    Panics,
    /// [`prefix`].
    Prefix,
    /// [`identity`].
    Identity,
    /// [`nothing_early`].
    NothingEarly,
    /// [`nothing_late`].
    NothingLate,
    /// [`nothing_lost`].
    NothingLost,
    /// [`ends`].
    Ends,
    /// [`left_alone`].
    LeftAlone,
    /// [`dropped_first`].
    DroppedFirst,
    /// [`released`].
    Released,
    /// [`fair`].
    Fair,
    /// [`on_time`].
    OnTime,
    /// [`one_outcome`].
    OneOutcome,
    /// [`honest`].
    Honest,
    /// [`stop_is_reported`].
    StopIsReported,
    /// [`drop_on_cancel`].
    DropOnCancel,
    /// `drains`.
    Drains,
    /// `ends_when_idle`.
    EndsWhenIdle,
}

/// The length up to which all scripts are tried. Miri is slow.
const STEPS: usize = if cfg!(miri) { 2 } else { 4 };

/// The same, where time passes in all ways.
const STEPS_IN_TIME: usize = if cfg!(miri) { 1 } else { 3 };

/// How many longer ones are tried.
const LONGER: u64 = if cfg!(miri) { 4 } else { 256 };

impl Law {
    /// All that [`check_all`] asks for: those of any stream first, those of one that can say why it was stopped last.
    /// Those of one that reports its stop, is dropped on cancel, drains or ends when idle are not among them.
    pub const ALL: [Self; 19] = [
        Self::Fused,
        Self::SizeHint,
        Self::Wakes,
        Self::Dropping,
        Self::Lazy,
        Self::Panics,
        Self::Prefix,
        Self::Identity,
        Self::NothingEarly,
        Self::NothingLate,
        Self::NothingLost,
        Self::Ends,
        Self::LeftAlone,
        Self::DroppedFirst,
        Self::Released,
        Self::Fair,
        Self::OnTime,
        Self::OneOutcome,
        Self::Honest,
    ];

    /// The name of its function.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::SizeHint => "size_hint",
            Self::Wakes => "wakes",
            Self::Dropping => "dropping",
            Self::Lazy => "lazy",
            Self::Panics => "panics",
            Self::Prefix => "prefix",
            Self::Identity => "identity",
            Self::NothingEarly => "nothing_early",
            Self::NothingLate => "nothing_late",
            Self::NothingLost => "nothing_lost",
            Self::Ends => "ends",
            Self::LeftAlone => "left_alone",
            Self::DroppedFirst => "dropped_first",
            Self::Released => "released",
            Self::Fair => "fair",
            Self::OnTime => "on_time",
            Self::OneOutcome => "one_outcome",
            Self::Honest => "honest",
            Self::StopIsReported => "stop_is_reported",
            Self::DropOnCancel => "drop_on_cancel",
            Self::Drains => "drains",
            Self::EndsWhenIdle => "ends_when_idle",
        }
    }

    /// The law in a sentence.
    pub fn statement(self) -> &'static str {
        match self {
            Self::Fused => "after the end there is nothing but the end",
            Self::SizeHint => "the size hint is true at every moment, and exact after the end",
            Self::Wakes => "a pending stream is woken, at its latest waker",
            Self::Dropping => "dropping the stream drops the source, and leaves nothing behind",
            Self::Lazy => "the source is polled only while the stream is, and for one item at most",
            Self::Panics => "a panic passes through once, then the stream is over",
            Self::Prefix => "what comes out is a prefix of the source, in order",
            Self::Identity => "a stop that is never fired changes nothing",
            Self::NothingEarly => "nothing ends it but its source and the stop",
            Self::NothingLate => "a poll that begins after the stop gives no item",
            Self::NothingLost => "an item that was taken from the source is handed on",
            Self::Ends => "a poll that begins after the stop ends it",
            Self::LeftAlone => "after the stop or its end the source is never polled",
            Self::DroppedFirst => "the source is dropped before the stream ends",
            Self::Released => "after the end no waker of the stream is kept",
            Self::Fair => "a source that is always ready is pending after 1024 items in a row",
            Self::OnTime => "a run of ready items ends soon after its deadline",
            Self::OneOutcome => {
                "there is a reason if it was stopped, none if it ended, and it stays"
            }
            Self::Honest => "the reason is the one it was stopped for",
            Self::StopIsReported => "a stream that was stopped does not end without an error",
            Self::DropOnCancel => "the stop drops the source, without a poll",
            Self::Drains => "after the stop it continues until its grace is over",
            Self::EndsWhenIdle => "it ends once its source was pending for so long, and no sooner",
        }
    }

    /// Whether it is about points in time only.
    pub fn is_of_time(self) -> bool {
        self == Self::OnTime
    }

    /// Whether it is about a length of time, which its function takes.
    fn takes_a_time(self) -> bool {
        matches!(self, Self::Drains | Self::EndsWhenIdle)
    }

    fn tier(self) -> Tier {
        match self {
            Self::Fused
            | Self::SizeHint
            | Self::Wakes
            | Self::Dropping
            | Self::Lazy
            | Self::Panics
            | Self::EndsWhenIdle => Tier::Stream,
            Self::OneOutcome | Self::Honest => Tier::Stoppable,
            _ => Tier::Stopped,
        }
    }
}

impl Display for Law {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A law that a stream breaks, and how.
#[derive(Clone, Debug)]
pub struct Broken {
    law: Law,
    plan: Plan,
    record: Record,
    expected: String,
}

impl Broken {
    /// Which one it is.
    pub fn law(&self) -> Law {
        self.law
    }

    /// The smallest plan that was found to break it.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What happened then.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            law,
            plan,
            record,
            expected,
        } = self;
        writeln!(f, "the law `{law}` is broken: {}\n", law.statement())?;
        for line in record.to_string().lines() {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "\n{plan}")?;
        write!(f, "expected {expected}")
    }
}

impl Error for Broken {}

/// What became of each law.
#[derive(Clone, Debug)]
#[must_use = "it says which laws are broken"]
pub struct Report {
    held: Vec<Law>,
    broken: Vec<Broken>,
    /// What the stream did with its stop that it should not have.
    misuse: Option<&'static str>,
}

impl Report {
    /// The laws that hold.
    pub fn held(&self) -> &[Law] {
        &self.held
    }

    /// The laws that are broken.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// What became of one law: nothing if it does not apply to the stream.
    pub fn of(&self, law: Law) -> Option<Result<(), &Broken>> {
        let broken = self.broken.iter().find(|broken| broken.law == law);
        let holds = || self.held.contains(&law).then_some(Ok(()));
        broken.map(Err).or_else(holds)
    }

    #[track_caller]
    fn assert(&self) {
        if self.broken.is_empty() {
            return;
        }
        let hint = self.misuse.map(str::to_owned);
        let broken = self.broken.iter().map(ToString::to_string);
        let told: Vec<_> = hint.into_iter().chain(broken).collect();
        panic!("{}\n", told.join("\n\n"));
    }
}

/// Holds a stream against some laws.
#[track_caller]
fn examine(laws: &[Law], tier: Tier, wrap: Wrap<'_>) -> Report {
    let stage = Stage::new(wrap);
    let first = first(&stage, laws);
    let is_timed = first.is_timed;
    assert!(
        !is_timed || !laws.contains(&Law::DropOnCancel),
        "the law `drop_on_cancel` is about a token that is cancelled: take that from the stop, not a point in time"
    );
    let paced = Plan::paced().filter(|_| is_timed);
    let long = Plan::always_ready().chain(Plan::ready_until_the_end());
    let long = long.chain(paced).filter(|_| !cfg!(miri));
    // The long ones last, as what they break is not made any smaller.
    let plans = Plan::all(STEPS)
        .chain((0..LONGER).map(Plan::random))
        .chain(long);
    hold(laws, plans, tier, &first, &stage)
}

/// Holds a stream against a law that is about so much time.
#[track_caller]
#[cfg_attr(
    not(feature = "tokio"),
    allow(dead_code, reason = "there is no clock for it")
)]
fn examine_in_time(law: Law, time: Duration, tier: Tier, wrap: Wrap<'_>) -> Report {
    let stage = Stage::new(wrap);
    let first = first(&stage, &[law]);
    assert!(
        !first.is_timed,
        "the law `{law}` is about a token and the time after its cancel: take that from the stop, not a point in time"
    );
    let random = (0..LONGER).map(|seed| Plan::random_in_time(time, seed));
    let long = Plan::always_ready_in_time(time).filter(|_| !cfg!(miri));
    let plans = Plan::in_time(time, STEPS_IN_TIME).chain(random).chain(long);
    hold(&[law], plans, tier, &first, &stage)
}

/// A run that says what the stream takes of its stop.
#[track_caller]
fn first(stage: &Stage<'_>, laws: &[Law]) -> Run {
    stage.watch.laws(laws.iter().copied());
    Plan::new(Script::default(), StopPoint::Never).play(stage)
}

/// Which of the laws hold, and which are broken by one of the plans.
#[track_caller]
fn hold(
    laws: &[Law],
    plans: impl Iterator<Item = Plan>,
    tier: Tier,
    first: &Run,
    stage: &Stage<'_>,
) -> Report {
    let applies = |law: &Law| first.is_timed || !law.is_of_time();
    let mut claims: Vec<_> = laws
        .iter()
        .copied()
        .filter(applies)
        .map(Claim::Keeps)
        .collect();
    // Code that panics has not kept a law, whichever was asked for.
    if !laws.contains(&Law::Panics) {
        claims.push(Claim::HasNoPanicOfItsOwn);
    }
    let mut broken = Vec::new();
    for plan in plans.filter(|plan| tier != Tier::Stream || plan.stop == StopPoint::Never) {
        if !claims.iter().any(|claim| matches!(claim, Claim::Keeps(_))) {
            break;
        }
        stage.watch.laws(claims.iter().map(|claim| claim.law()));
        let run = plan.play(stage);
        let story = Story::new(&plan, tier, &run);
        claims.retain(|claim| match story.check(*claim) {
            Ok(()) => true,
            Err(expected) => {
                let found = Broken {
                    law: claim.law(),
                    plan: plan.clone(),
                    record: run.record.clone(),
                    expected,
                };
                broken.push(smallest(found, *claim, tier, stage));
                false
            }
        });
        if run.not_made.is_some() {
            // Of what cannot be made nothing else is known.
            claims.clear();
        }
    }
    let held = claims.into_iter().filter_map(|claim| match claim {
        Claim::Keeps(law) => Some(law),
        Claim::HasNoPanicOfItsOwn => None,
    });
    Report {
        held: held.collect(),
        broken,
        misuse: first
            .misuse
            .filter(|_| tier != Tier::Stream && first.not_made.is_none()),
    }
}

/// Makes the plan that breaks a law simpler, for as long as it does.
fn smallest(mut found: Broken, claim: Claim, tier: Tier, stage: &Stage<'_>) -> Broken {
    let check = |plan: Plan| {
        let run = plan.play(stage);
        let expected = Story::new(&plan, tier, &run).check(claim).err()?;
        Some(Broken {
            law: claim.law(),
            plan,
            record: run.record,
            expected,
        })
    };
    stage.watch.laws([claim.law()].into_iter());
    loop {
        let simpler = found.plan.simpler().find_map(check);
        match simpler {
            Some(simpler) => found = simpler,
            None => return found,
        }
    }
}

fn report_of<S>(laws: &[Law], tier: Tier, wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stream,
    S::Item: Letter,
{
    examine(laws, tier, &|source, stop| {
        Box::pin(Lettered::new(wrap(source, stop)))
    })
}

fn laws_of(tier: Tier) -> Vec<Law> {
    // Most streams make no promise of what they do after a panic.
    let is_asked = |law: &Law| tier != Tier::Stream || *law != Law::Panics;
    let all = Law::ALL.into_iter().filter(|law| law.tier() <= tier);
    all.filter(is_asked).collect()
}

fn report_of_stoppable<S>(laws: &[Law], wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stoppable,
    S::Item: Letter,
{
    examine(laws, Tier::Stoppable, &|source, stop| {
        Box::pin(Lettered::stoppable(wrap(source, stop)))
    })
}

/// Holds a stream against the laws of any stream.
///
/// Many good streams keep only some of them, and are held against these one by one: one that skips items is not [`lazy`],
/// and one that waits for a timer or a task of its own is not woken as [`wakes`] wants it to be, for which there is
#[cfg_attr(feature = "tokio", doc = "[`check_stream_over_time`].")]
#[cfg_attr(not(feature = "tokio"), doc = "`check_stream_over_time`.")]
/// That it is over after a panic of its source is for [`panics`], which is not asked for here, as most streams are not. A
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

/// Holds a stream that waits for more than its source against the laws of any stream but [`lazy`]: a channel that a task
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
    let story = Story::new(plan, Tier::Stopped, &run);
    laws.into_iter()
        .try_for_each(|law| match story.check(Claim::Keeps(law)) {
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
            "the law `{law}` is about the reason of a stop, which a stream need not tell: ask it by its function, or all \
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
/// It is not one of [`check_all`]'s, as a stream may well end without an error. [`check`] asks for it as well, beside others.
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
/// It is about a token. [`check`] asks for it as well, beside others.
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
