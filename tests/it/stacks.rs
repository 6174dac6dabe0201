//! Every public stream over every public stream: the laws of one hold for two, whichever signals they have.
//!
//! To add a stream, add a line to the table of layers; to add a pair of signals, one to [`Pair::ALL`].

use crate::support::panic_of;
use futures::{Stream, StreamExt, stream::FusedStream};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, StopReason, generator,
    signal::{any, never, when},
    testing::{
        Plan, Script, Source, Stop, StopPoint, Stoppable,
        laws::{Law, check_plans},
    },
    try_generator,
};

use tokio_util::sync::CancellationToken as Theirs;

#[cfg(feature = "tokio")]
use {
    std::time::Duration,
    stopcock::{spawn_generator, testing::laws::ends_when_idle, try_spawn_generator},
    tokio::time::Instant,
};

/// What one layer yields to the next: an item, or the `Err` of its own stop.
type Item = Result<char, StopReason>;

type Boxed = Pin<Box<dyn Stoppable<Item = Item> + Send>>;

/// A public stream, over another one.
struct Layer {
    name: &'static str,
    takes: Takes,
    end: End,
    wrap: fn(Boxed, Option<Signal>) -> Boxed,
}

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Signal,
    #[cfg(feature = "tokio")]
    Deadline,
    /// Its own stop does not happen in these plans.
    Nothing,
}

/// How a stream ends when it is stopped.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Silent,
    Reported,
    /// Not in these plans, in which no time passes: the exception of S14.
    #[cfg(feature = "tokio")]
    Later,
    /// Its body runs on its own: P1 replaces S6, and S4 counts the items that the channel has delivered.
    #[cfg(feature = "tokio")]
    ByItself,
    #[cfg(feature = "tokio")]
    ReportedByItself,
}

impl Layer {
    fn has_a_grace(&self) -> bool {
        #[cfg(feature = "tokio")]
        return self.end == End::Later;
        #[cfg(not(feature = "tokio"))]
        false
    }

    fn reports(&self) -> bool {
        #[cfg(feature = "tokio")]
        return matches!(self.end, End::Reported | End::ReportedByItself);
        #[cfg(not(feature = "tokio"))]
        return self.end == End::Reported;
    }

    fn runs_by_itself(&self) -> bool {
        #[cfg(feature = "tokio")]
        return matches!(self.end, End::ByItself | End::ReportedByItself);
        #[cfg(not(feature = "tokio"))]
        false
    }
}

/// What stops a layer.
#[derive(Clone)]
enum Signal {
    Token(CancellationToken),
    #[cfg(feature = "tokio")]
    At(Instant),
}

/// The token of a layer that takes any signal.
fn token(signal: Option<Signal>) -> CancellationToken {
    match signal {
        Some(Signal::Token(token)) => token,
        #[cfg(feature = "tokio")]
        Some(Signal::At(at)) => CancellationToken::with_deadline(at),
        None => CancellationToken::new(),
    }
}

/// The same with a token of tokio-util's. Only a check of our token sees a deadline at once, so there it is linked to one.
fn adopted(signal: Option<Signal>) -> CancellationToken {
    match signal {
        Some(Signal::Token(token)) => token.to_tokio_util().into(),
        other => CancellationToken::linked([token(other), Theirs::new().into()]),
    }
}

#[cfg(feature = "tokio")]
fn at(signal: Option<Signal>) -> Instant {
    match signal {
        Some(Signal::At(at)) => at,
        Some(Signal::Token(_)) => unreachable!("no pair has a token for it"),
        None => Instant::now() + DAY,
    }
}

macro_rules! layers {
    ($($name:ident: $takes:ident, $end:ident, $wrap:expr;)*) => {
        &[$(Layer {
            name: stringify!($name),
            takes: Takes::$takes,
            end: End::$end,
            wrap: $wrap,
        }),*]
    };
}

const IN_POLL: &[Layer] = layers! {
    take_until_cancelled: Signal, Silent, |source, signal| silent(source.take_until_cancelled(token(signal)));
    take_until_cancelled_drop_on_cancel: Signal, Silent, |source, signal| {
        silent(source.take_until_cancelled(token(signal)).drop_on_cancel())
    };
    take_until_cancelled_yield_every: Signal, Silent, |source, signal| {
        silent(source.take_until_cancelled(token(signal)).yield_every(2))
    };
    with_cancellation: Signal, Reported, |source, signal| reporting(source.with_cancellation(token(signal)));
    with_cancellation_drop_on_cancel: Signal, Reported, |source, signal| {
        reporting(source.with_cancellation(token(signal)).drop_on_cancel())
    };
    with_cancellation_yield_every: Signal, Reported, |source, signal| {
        reporting(source.with_cancellation(token(signal)).yield_every(1))
    };
    with_any: Signal, Reported, |source, signal| reporting(source.with_cancellation(any(never(), token(signal))));
    with_when: Signal, Reported, |source, signal| {
        reporting(source.with_cancellation(when(token(signal).cancelled_owned())))
    };
    with_adopted: Signal, Reported, |source, signal| reporting(source.with_cancellation(adopted(signal)));
    try_with_cancellation: Signal, Reported, |source, signal| {
        reporting(source.map(Ok).try_with_cancellation(token(signal)))
    };
    generator: Signal, Silent, |mut source, signal| {
        silent(Box::pin(generator(token(signal), async move |mut y| {
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
        })))
    };
    try_generator: Signal, Reported, |mut source, signal| {
        reporting(Box::pin(try_generator(token(signal), async move |mut y| {
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
            Ok::<_, StopReason>(())
        })))
    };
    no_signal: Nothing, Silent, |source, _| silent(source.take_until_cancelled(never()));
    cancel_on_drop: Nothing, Silent, |source, _| silent(Plain(source.cancel_on_drop(CancellationToken::new())));
};

#[cfg(feature = "tokio")]
const TIMED: &[Layer] = layers! {
    take_until_deadline: Deadline, Silent, |source, signal| silent(source.take_until_deadline(at(signal)));
    take_until_timeout: Deadline, Silent, |source, signal| silent(source.take_until_timeout(at(signal) - Instant::now()));
    with_deadline: Deadline, Reported, |source, signal| reporting(source.with_deadline(at(signal)));
    with_timeout: Deadline, Reported, |source, signal| reporting(source.with_timeout(at(signal) - Instant::now()));
    try_with_deadline: Deadline, Reported, |source, signal| reporting(source.map(Ok).try_with_deadline(at(signal)));
    try_with_timeout: Deadline, Reported, |source, signal| {
        reporting(source.map(Ok).try_with_timeout(at(signal) - Instant::now()))
    };
    with_idle_timeout: Nothing, Reported, |source, _| reporting(source.with_idle_timeout(DAY));
    try_with_idle_timeout: Nothing, Reported, |source, _| reporting(source.map(Ok).try_with_idle_timeout(DAY));
    take_until_cancelled_drain_for: Signal, Later, |source, signal| {
        silent(source.take_until_cancelled(token(signal)).drain_for(DAY))
    };
    with_cancellation_drain_for: Signal, Later, |source, signal| {
        reporting(source.with_cancellation(token(signal)).drain_for(DAY))
    };
    spawn_generator: Signal, ByItself, |mut source, signal| {
        silent(spawn_generator(token(signal), 1, |tx| async move {
            while let Some(item) = source.next().await {
                tx.send(item).await?;
            }
            Ok(())
        }))
    };
    try_spawn_generator: Signal, ReportedByItself, |mut source, signal| {
        reporting(try_spawn_generator(token(signal), 1, |tx| async move {
            while let Some(item) = source.next().await {
                tx.send(item).await?;
            }
            Ok::<_, StopReason>(())
        }))
    };
};

#[cfg(feature = "tokio")]
const DAY: Duration = Duration::from_secs(24 * 3600);

fn layers() -> impl Iterator<Item = &'static Layer> + Clone {
    #[cfg(feature = "tokio")]
    return IN_POLL.iter().chain(TIMED);
    #[cfg(not(feature = "tokio"))]
    IN_POLL.iter()
}

/// Takes the `Err` of the outer stream for its stop, and ignores one of the stream below.
struct Notified<S: Stream> {
    stream: S,
    report: fn(S::Item) -> Option<Item>,
}

fn silent<S: Stoppable<Item = Item> + Unpin + Send + 'static>(stream: S) -> Boxed {
    Box::pin(Notified {
        stream,
        report: |item| item.ok().map(Ok),
    })
}

fn reporting<S>(stream: S) -> Boxed
where
    S: Stoppable<Item = Result<Item, StopReason>> + Unpin + Send + 'static,
{
    Box::pin(Notified {
        stream,
        report: |item| match item {
            Ok(below) => below.ok().map(Ok),
            Err(reason) => Some(Err(reason)),
        },
    })
}

impl<S: Stream + Unpin> Stream for Notified<S> {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            match self.stream.poll_next_unpin(cx) {
                Poll::Ready(Some(item)) => {
                    if let Some(reported) = (self.report)(item) {
                        return Poll::Ready(Some(reported));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: FusedStream + Unpin> FusedStream for Notified<S> {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}

impl<S: Stoppable + Unpin> Stoppable for Notified<S> {
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stream.stop_reason()
    }
}

/// The source, at the bottom of a stack.
fn bottom(source: Source) -> Boxed {
    Box::pin(Plain(source.map(Ok).fuse()))
}

/// A stream without a signal.
struct Plain<S>(S);

impl<S: Stream + Unpin> Stream for Plain<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<S: FusedStream + Unpin> FusedStream for Plain<S> {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

impl<S: FusedStream + Unpin> Stoppable for Plain<S> {
    fn stop_reason(&self) -> Option<&StopReason> {
        None
    }
}

/// Two signals: that of the outer stream, and that of the inner one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pair {
    OneToken,
    /// The parent is cancelled, and its child with it.
    ParentOverChild,
    ChildOverParent,
    /// The child is cancelled, and its parent is not.
    ParentOverChildAlone,
    ChildAloneOverParent,
    /// The other stream has a signal that does not fire.
    OuterAlone,
    InnerAlone,
    #[cfg(feature = "tokio")]
    OneDeadline,
    #[cfg(feature = "tokio")]
    OuterDeadlineAlone,
    #[cfg(feature = "tokio")]
    InnerDeadlineAlone,
}

impl Pair {
    fn signals(self, stop: &Stop) -> (Option<Signal>, Option<Signal>) {
        let both = |outer, inner| (Some(Signal::Token(outer)), Some(Signal::Token(inner)));
        let child_alone = || {
            let parent = CancellationToken::new();
            let child = parent.child_token();
            let cancelled = child.clone();
            stop.token().on_cancel(move |_| cancelled.cancel()).detach();
            (parent, child)
        };
        match self {
            Self::OneToken => both(stop.token(), stop.token()),
            Self::ParentOverChild => both(stop.token(), stop.token().child_token()),
            Self::ChildOverParent => both(stop.token().child_token(), stop.token()),
            Self::ParentOverChildAlone => {
                let (parent, child) = child_alone();
                both(parent, child)
            }
            Self::ChildAloneOverParent => {
                let (parent, child) = child_alone();
                both(child, parent)
            }
            Self::OuterAlone => (Some(Signal::Token(stop.token())), None),
            Self::InnerAlone => (None, Some(Signal::Token(stop.token()))),
            #[cfg(feature = "tokio")]
            Self::OneDeadline => (
                Some(Signal::At(stop.deadline())),
                Some(Signal::At(stop.deadline())),
            ),
            #[cfg(feature = "tokio")]
            Self::OuterDeadlineAlone => (Some(Signal::At(stop.deadline())), None),
            #[cfg(feature = "tokio")]
            Self::InnerDeadlineAlone => (None, Some(Signal::At(stop.deadline()))),
        }
    }

    fn is_of_the_outer(self) -> bool {
        match self {
            Self::ParentOverChildAlone | Self::InnerAlone => false,
            #[cfg(feature = "tokio")]
            Self::InnerDeadlineAlone => false,
            _ => true,
        }
    }

    fn is_of_the_inner(self) -> bool {
        match self {
            Self::ChildAloneOverParent | Self::OuterAlone => false,
            #[cfg(feature = "tokio")]
            Self::OuterDeadlineAlone => false,
            _ => true,
        }
    }

    #[cfg(feature = "tokio")]
    fn is_timed(self) -> bool {
        matches!(
            self,
            Self::OneDeadline | Self::OuterDeadlineAlone | Self::InnerDeadlineAlone
        )
    }

    /// Whether both streams of a stack can have these signals.
    fn suits(self, outer: &Layer, inner: &Layer) -> bool {
        let fires = |layer: &Layer| match layer.takes {
            Takes::Signal => true,
            #[cfg(feature = "tokio")]
            Takes::Deadline => self.is_timed(),
            Takes::Nothing => false,
        };
        // Parent and child both have to be tokens.
        let pair_of_tokens = matches!(
            self,
            Self::ParentOverChildAlone | Self::ChildAloneOverParent
        );
        let takes_a_token = |layer: &Layer| layer.takes == Takes::Signal;
        (!self.is_of_the_outer() || fires(outer))
            && (!self.is_of_the_inner() || fires(inner))
            && (!pair_of_tokens || (takes_a_token(outer) && takes_a_token(inner)))
    }

    /// The laws of a stack: S3, S4, S6, S8, S12, S14.
    fn laws(self, outer: &Layer, inner: &Layer) -> Vec<Law> {
        // If only the inner stream is stopped, the outer one has a natural end.
        let is_of_the_outer = self.is_of_the_outer();
        let stopped = match is_of_the_outer {
            true => outer,
            false => inner,
        };
        let runs_by_itself = outer.runs_by_itself() || inner.runs_by_itself();
        let mut laws = Vec::new();
        if !runs_by_itself {
            laws.extend([Law::NothingLost, Law::DroppedFirst]);
        }
        // A grace period does not end, as no time passes.
        if stopped.has_a_grace() {
            return laws;
        }
        if !runs_by_itself {
            laws.push(Law::Wakes);
        }
        // The items in the channel of the outer one have left the inner one. And where the outer one yields, the inner one is still
        // in a run of ready items, in which it need not read the clock.
        let is_ahead = outer.runs_by_itself() || outer.name.ends_with("yield_every");
        if is_of_the_outer || !is_ahead {
            laws.push(Law::NothingLate);
        }
        if is_of_the_outer {
            if !runs_by_itself {
                laws.push(Law::OneOutcome);
            }
            if outer.reports() {
                laws.push(Law::StopIsReported);
            }
        }
        laws
    }
}

/// All scripts of up to three steps, with all points at which they can be stopped, and with a new waker in each poll.
fn plans() -> impl Iterator<Item = Plan> {
    Script::all("a-|~", 3).flat_map(|script| {
        let steps = script.steps().len();
        let during = (0..=steps).map(StopPoint::During);
        let before = (0..=steps + 1).map(StopPoint::Before);
        let others = [StopPoint::Never, StopPoint::AtBirth, StopPoint::InWaker(0)];
        let stops = others.into_iter().chain(during).chain(before);
        stops.map(move |stop| {
            let mut plan = Plan::new(script.clone(), stop);
            plan.changes_wakers = true;
            plan
        })
    })
}

fn check(pair: Pair) {
    let mut wrong = Vec::new();
    let mut stacks = 0;
    for outer in layers() {
        for inner in layers().filter(|inner| pair.suits(outer, inner)) {
            stacks += 1;
            let wrap = |source, stop: Stop| {
                let (of_outer, of_inner) = pair.signals(&stop);
                let inner = (inner.wrap)(bottom(source), of_inner);
                (outer.wrap)(inner, of_outer)
            };
            let laws = pair.laws(outer, inner);
            let checked = catch_unwind(AssertUnwindSafe(|| check_plans(&laws, plans(), wrap)));
            if let Err(panic) = checked {
                let reported = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                wrong.push(format!("{} over {}: {reported}", outer.name, inner.name));
            }
        }
    }
    assert!(stacks > 9, "{pair:?} suits hardly any stack");
    assert!(
        wrong.is_empty(),
        "{pair:?}: {} of {stacks} stacks\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

macro_rules! pairs {
    ($($name:ident: $pair:ident;)*) => {
        $(#[test]
        #[cfg_attr(miri, ignore = "there are hundreds of stacks")]
        fn $name() {
            check(Pair::$pair);
        })*
    };
}

pairs! {
    under_one_token: OneToken;
    a_parent_over_its_child: ParentOverChild;
    a_child_over_its_parent: ChildOverParent;
    a_parent_over_its_child_that_is_cancelled_alone: ParentOverChildAlone;
    a_child_that_is_cancelled_alone_over_its_parent: ChildAloneOverParent;
    a_token_over_what_is_not_stopped: OuterAlone;
    what_is_not_stopped_over_a_token: InnerAlone;
}

#[cfg(feature = "tokio")]
pairs! {
    under_one_deadline: OneDeadline;
    a_deadline_over_what_is_not_stopped: OuterDeadlineAlone;
    what_is_not_stopped_over_a_deadline: InnerDeadlineAlone;
}

/// A source that is idle for too long ends the stack, whichever stream is between the two, or over it.
#[cfg(feature = "tokio")]
#[test]
#[cfg_attr(miri, ignore = "there are dozens of stacks")]
fn an_idle_timeout_ends_every_stack_it_is_in() {
    const SECOND: Duration = Duration::from_secs(1);
    let in_poll = |layer: &&Layer| !layer.name.ends_with("yield_every") && !layer.runs_by_itself();
    for layer in layers().filter(in_poll) {
        ends_when_idle(SECOND, |source| {
            (layer.wrap)(bottom(source), None)
                .filter_map(|item| std::future::ready(item.ok()))
                .with_idle_timeout(SECOND)
        });
    }
}

/// The table detects an outer stream that takes every end for a natural one.
#[test]
fn a_stack_whose_outer_stream_checks_only_before_its_poll_is_caught() {
    struct AsksBefore(Boxed, CancellationToken, Option<StopReason>);

    impl Stream for AsksBefore {
        type Item = Item;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
            if self.2.is_none() {
                if let (Some(reason), false) = (self.1.stop_reason(), self.0.is_terminated()) {
                    self.2 = Some(reason.clone());
                    return Poll::Ready(Some(Err(reason)));
                }
                return self.0.poll_next_unpin(cx);
            }
            Poll::Ready(None)
        }
    }

    impl FusedStream for AsksBefore {
        fn is_terminated(&self) -> bool {
            self.2.is_some() || self.0.is_terminated()
        }
    }

    impl Stoppable for AsksBefore {
        fn stop_reason(&self) -> Option<&StopReason> {
            self.2.as_ref()
        }
    }

    let reported = panic_of(|| {
        check_plans(&[Law::StopIsReported], plans(), |source, stop| {
            let inner = silent(bottom(source).take_until_cancelled(stop.token()));
            AsksBefore(inner, stop.token(), None)
        });
    });
    assert!(
        reported.contains("stopped during poll 0 of the source"),
        "{reported}"
    );
}
