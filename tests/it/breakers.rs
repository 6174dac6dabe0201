//! The laws, held against adapters that break them: each is caught by the laws that it breaks, and by no other.

use crate::support::panic_of;
use futures::{Stream, stream::FusedStream};
use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};
use stopcock::{
    CancellationToken, CancelledOwned, StopReason,
    testing::{
        Source, Stop, Stoppable,
        laws::{self, Law},
    },
};

/// What an adapter does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing at all.
    None,
    /// Nothing at all: it says its stop with an error.
    Loud,
    /// Nothing at all: who is over by a panic may say of its size what it likes.
    HasAnotherHintAfterAPanic,
    ChecksAfterThePoll,
    LooksOnlyAfterAPending,
    LooksNotInItsFirstPoll,
    LooksNotAfterAPending,
    PollsItsSourceOnceMoreAtAStopInside,
    ForgetsItsSourceInDrop,
    ForgetsItsSourceIfItIsNeverPolled,
    ForgetsItsSourceIfItHasNotSeenTheStop,
    PollsItsSourceInDrop,
    StaysRegisteredWhenDropped,
    CancelsInDrop,
    DropsItsSourceAfterTheEnd,
    DropsItsSourceAfterTheError,
    GivesAnItemAfterTheEnd,
    PanicsAfterTheEnd,
    IsPendingAfterTheEnd,
    SaysItsStopTwice,
    IsNeverTerminated,
    IsAlwaysTerminated,
    NeverRegisters,
    RegistersItsFirstWakerOnly,
    HandsDownItsFirstWakerOnly,
    HandsDownItsFirstWakerAfterAYield,
    WaitsForNobodyBeforeItsFirstItem,
    HangsAtTheStop,
    YieldsWithoutWakingItself,
    YieldsBeforeItsFirstItem,
    YieldsTooLate,
    YieldsForEver,
    NeverYields,
    WakesItselfWheneverPending,
    LosesTheItemInFlight,
    LosesTheItemInFlightAndIsLoud,
    GivesAnotherItemAtTheStop,
    GivesAnItemAgainBeforeAYield,
    GivesMoreThanItsSource,
    HasTheLowerBoundOfItsSource,
    HasTooLowAnUpperBound,
    HasTooLowAnUpperBoundAtFirst,
    CountsNoErrorInItsUpperBound,
    IsNotEmptyAfterTheEnd,
    PollsItsSourceAfterItsEnd,
    PollsItsSourceTwiceWhenPending,
    TakesAnItemAhead,
    IsPendingAtTheStop,
    SwallowsPanics,
    SwallowsPanicsOfItsSourcesDrop,
    SwallowsPanicsInItsDrop,
    PanicsInItsDrop,
    PanicsAtTheStop,
    PollsItsSourceAfterAPanic,
    IsPendingAfterAPanic,
    GoesOnAfterPanics,
    StaysRegisteredAfterTheEnd,
    HasTheReasonOfItsToken,
    HasItsReasonBeforeItsEnd,
    HasItsReasonAfterItsError,
    HasTheReasonOfAStopAfterItsEnd,
    HasTheReasonOfAStopInTheDropOfItsSource,
    ChangesItsReason,
    ForgetsItsReason,
    SaysThatItWasIdle,
}

use Fault as F;

/// An adapter that keeps every law, but for its fault.
struct Faulty {
    fault: Fault,
    source: Option<Source>,
    token: CancellationToken,
    cancelled: Option<Pin<Box<CancelledOwned>>>,
    reason: Option<StopReason>,
    /// How many items may still come in a row.
    row: usize,
    first_waker: Option<Waker>,
    was_pending: bool,
    has_begun: bool,
    has_yielded: bool,
    has_waited: bool,
    hangs: bool,
    last: char,
    ahead: Option<char>,
    /// Whether it came to an end without a panic.
    has_ended: bool,
    polls_after_end: usize,
    /// What should be gone.
    leftover: Option<Source>,
}

type Item = Result<char, StopReason>;

impl Faulty {
    fn new(fault: Fault, source: Source, token: CancellationToken) -> Self {
        Self {
            fault,
            source: Some(source),
            cancelled: Some(Box::pin(token.clone().cancelled_owned())),
            token,
            reason: None,
            row: Self::row(fault),
            first_waker: None,
            was_pending: true,
            has_begun: false,
            has_yielded: false,
            has_waited: false,
            hangs: false,
            last: 'a',
            ahead: None,
            has_ended: false,
            polls_after_end: 0,
            leftover: None,
        }
    }

    /// How many items may come in a row.
    fn row(fault: Fault) -> usize {
        match fault {
            F::YieldsTooLate => 1025,
            _ => 1024,
        }
    }

    /// The waker of this poll, or the first one for an adapter with that fault.
    fn waker(&mut self, cx: &Context<'_>, fault: Fault) -> Waker {
        let first = self.first_waker.get_or_insert_with(|| cx.waker().clone());
        let is_late = self.fault == F::HandsDownItsFirstWakerAfterAYield && self.has_yielded;
        match self.fault == fault || is_late {
            true => first.clone(),
            false => cx.waker().clone(),
        }
    }

    fn poll_source(&mut self, cx: &Context<'_>) -> Poll<Option<char>> {
        let waker = self.waker(cx, F::HandsDownItsFirstWakerOnly);
        let mut cx = Context::from_waker(&waker);
        let Some(source) = &mut self.source else {
            unreachable!("it is polled only while it runs");
        };
        match Pin::new(&mut *source).poll_next(&mut cx) {
            Poll::Pending
                if match self.fault {
                    F::PollsItsSourceTwiceWhenPending => !self.token.is_cancelled(),
                    F::PollsItsSourceOnceMoreAtAStopInside => self.token.is_cancelled(),
                    _ => false,
                } =>
            {
                Pin::new(source).poll_next(&mut cx)
            }
            polled => polled,
        }
    }

    fn poll_cancelled(&mut self, cx: &Context<'_>) -> Poll<()> {
        let waker = self.waker(cx, F::RegistersItsFirstWakerOnly);
        match &mut self.cancelled {
            Some(cancelled) if self.fault != F::NeverRegisters => {
                cancelled.as_mut().poll(&mut Context::from_waker(&waker))
            }
            _ => Poll::Pending,
        }
    }

    fn is_loud(&self) -> bool {
        let faults = [
            F::Loud,
            F::SaysItsStopTwice,
            F::CountsNoErrorInItsUpperBound,
            F::LosesTheItemInFlightAndIsLoud,
            F::DropsItsSourceAfterTheError,
            F::HasItsReasonAfterItsError,
        ];
        faults.contains(&self.fault)
    }

    fn end(&mut self) {
        self.first_waker = None;
        if self.fault != F::StaysRegisteredAfterTheEnd {
            self.cancelled = None;
        }
        let source = self.source.take();
        match self.fault {
            F::DropsItsSourceAfterTheEnd => self.leftover = source,
            F::DropsItsSourceAfterTheError if self.token.is_cancelled() => self.leftover = source,
            F::SwallowsPanicsOfItsSourcesDrop => {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(source)));
            }
            _ => drop(source),
        }
        self.has_ended = true;
    }

    fn stop(&mut self) -> Poll<Option<Item>> {
        let reason = match self.fault {
            F::SaysThatItWasIdle => Some(StopReason::IdleTimeout),
            _ => self.token.stop_reason(),
        };
        if self.fault != F::ForgetsItsReason && self.fault != F::HasItsReasonAfterItsError {
            self.reason.clone_from(&reason);
        }
        self.end();
        if self.fault == F::PanicsAtTheStop {
            resume_unwind(Box::new("at the stop"));
        }
        match self.is_loud() {
            true => Poll::Ready(reason.map(Err)),
            false => Poll::Ready(None),
        }
    }

    fn poll_after_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if let (F::PollsItsSourceAfterAPanic, Some(source)) = (self.fault, &mut self.leftover) {
            let _ = Pin::new(source).poll_next(cx);
        }
        self.leftover = None;
        self.polls_after_end += 1;
        if !self.has_ended {
            return match self.fault {
                F::IsPendingAfterAPanic => Poll::Pending,
                _ => Poll::Ready(None),
            };
        }
        match self.fault {
            F::HasItsReasonAfterItsError => self.reason = self.token.stop_reason(),
            F::ChangesItsReason if self.reason.is_some() => {
                self.reason = Some(StopReason::IdleTimeout);
            }
            _ => {}
        }
        match (self.fault, &self.reason) {
            (F::GivesAnItemAfterTheEnd, _) => Poll::Ready(Some(Ok('z'))),
            (F::PanicsAfterTheEnd, _) => resume_unwind(Box::new("after the end")),
            (F::IsPendingAfterTheEnd, _) => Poll::Pending,
            (F::SaysItsStopTwice, Some(reason)) if self.polls_after_end == 1 => {
                Poll::Ready(Some(Err(reason.clone())))
            }
            _ => Poll::Ready(None),
        }
    }
}

impl Stream for Faulty {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = self.get_mut();
        if this.source.is_none() {
            return this.poll_after_end(cx);
        }
        let is_first = !mem::replace(&mut this.has_begun, true);
        if this.has_waited && this.fault == F::GivesMoreThanItsSource {
            this.end();
            return Poll::Ready(None);
        }
        let looks = match this.fault {
            F::ChecksAfterThePoll => false,
            F::LooksOnlyAfterAPending => this.was_pending,
            F::LooksNotInItsFirstPoll => !is_first,
            F::LooksNotAfterAPending => is_first || !this.was_pending,
            _ => true,
        };
        if looks && this.token.is_cancelled() {
            if this.fault == F::IsPendingAtTheStop && !mem::replace(&mut this.has_waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.fault == F::HangsAtTheStop && this.was_pending && !is_first {
                this.cancelled = None;
                this.first_waker = None;
                this.source = None;
                this.hangs = true;
                return Poll::Pending;
            }
            return this.stop();
        }
        if is_first {
            match this.fault {
                F::WaitsForNobodyBeforeItsFirstItem => return Poll::Pending,
                F::YieldsBeforeItsFirstItem => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                _ => {}
            }
        }
        if let Some(item) = this.ahead.take() {
            this.row = this.row.saturating_sub(1);
            return Poll::Ready(Some(Ok(item)));
        }
        if this.row == 0 && this.fault != F::NeverYields {
            if this.fault != F::YieldsForEver {
                this.row = Self::row(this.fault);
            }
            this.was_pending = true;
            this.has_yielded = true;
            if this.fault != F::YieldsWithoutWakingItself {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let polled = match catch_unwind(AssertUnwindSafe(|| this.poll_source(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                if this.fault == F::PollsItsSourceAfterAPanic {
                    this.leftover = this.source.take();
                    this.cancelled = None;
                    this.first_waker = None;
                } else if this.fault != F::GoesOnAfterPanics {
                    this.end();
                }
                this.has_ended = false;
                if this.fault == F::SwallowsPanics {
                    return Poll::Ready(None);
                }
                resume_unwind(panic)
            }
        };
        match polled {
            Poll::Ready(Some(item)) => {
                this.row = this.row.saturating_sub(1);
                this.was_pending = false;
                match this.fault {
                    F::LosesTheItemInFlight | F::LosesTheItemInFlightAndIsLoud
                        if this.token.is_cancelled() =>
                    {
                        this.stop()
                    }
                    F::GivesAnItemAgainBeforeAYield if this.row == 0 => {
                        Poll::Ready(Some(Ok(this.last)))
                    }
                    F::GivesAnotherItemAtTheStop if this.token.is_cancelled() => {
                        Poll::Ready(Some(Ok('z')))
                    }
                    F::TakesAnItemAhead => {
                        let has_more = this.source.as_ref().is_some_and(|s| s.size_hint().0 > 0);
                        if has_more && !this.token.is_cancelled() {
                            if let Poll::Ready(ahead) = this.poll_source(cx) {
                                this.ahead = ahead;
                            }
                        }
                        Poll::Ready(Some(Ok(item)))
                    }
                    _ => {
                        this.last = item;
                        Poll::Ready(Some(Ok(item)))
                    }
                }
            }
            Poll::Ready(None) => {
                if this.fault == F::PollsItsSourceAfterItsEnd {
                    let _ = this.poll_source(cx);
                }
                if this.fault == F::GivesMoreThanItsSource {
                    this.has_waited = true;
                    return Poll::Ready(Some(Ok('z')));
                }
                let was_cancelled = this.token.is_cancelled();
                this.end();
                if this.fault == F::HasTheReasonOfAStopInTheDropOfItsSource && !was_cancelled {
                    this.reason = this.token.stop_reason();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.row = Self::row(this.fault);
                this.was_pending = true;
                if this.fault == F::WakesItselfWheneverPending {
                    cx.waker().wake_by_ref();
                }
                match this.poll_cancelled(cx) {
                    Poll::Ready(()) => this.stop(),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let Some(source) = &self.source else {
            return match self.fault {
                F::IsNotEmptyAfterTheEnd => (0, None),
                F::HasAnotherHintAfterAPanic if !self.has_ended => (1, None),
                _ => (0, Some(0)),
            };
        };
        let (lower, upper) = source.size_hint();
        let more = match self.fault {
            F::CountsNoErrorInItsUpperBound => 0,
            F::GivesMoreThanItsSource => 1,
            _ => usize::from(self.ahead.is_some() || self.is_loud()),
        };
        let upper = upper.map(|upper| upper + more);
        match self.fault {
            F::HasTheLowerBoundOfItsSource => (lower, upper),
            F::HasTooLowAnUpperBoundAtFirst if self.has_begun => (0, upper),
            F::HasTooLowAnUpperBound | F::HasTooLowAnUpperBoundAtFirst => {
                (0, upper.map(|upper| upper.saturating_sub(1)))
            }
            _ => (0, upper),
        }
    }
}

impl FusedStream for Faulty {
    fn is_terminated(&self) -> bool {
        match self.fault {
            F::IsNeverTerminated => false,
            F::IsAlwaysTerminated => true,
            _ => self.source.is_none() && !self.hangs,
        }
    }
}

impl Stoppable for Faulty {
    fn stop_reason(&self) -> Option<&StopReason> {
        const CANCELLED: &StopReason = &StopReason::Cancelled;
        match self.fault {
            F::HasTheReasonOfItsToken => self.token.is_cancelled().then_some(CANCELLED),
            F::HasItsReasonBeforeItsEnd if self.source.is_some() => {
                self.token.is_cancelled().then_some(CANCELLED)
            }
            F::HasTheReasonOfAStopAfterItsEnd if self.source.is_none() && self.reason.is_none() => {
                self.token.is_cancelled().then_some(CANCELLED)
            }
            _ => self.reason.as_ref(),
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        match self.fault {
            F::ForgetsItsSourceInDrop => mem::forget(self.source.take()),
            F::ForgetsItsSourceIfItIsNeverPolled if !self.has_begun => {
                mem::forget(self.source.take());
            }
            F::ForgetsItsSourceIfItHasNotSeenTheStop if self.token.is_cancelled() => {
                mem::forget(self.source.take());
            }
            F::PollsItsSourceInDrop => {
                if let Some(source) = &mut self.source {
                    let mut cx = Context::from_waker(Waker::noop());
                    let _ = catch_unwind(AssertUnwindSafe(|| Pin::new(source).poll_next(&mut cx)));
                }
            }
            F::StaysRegisteredWhenDropped => mem::forget(self.cancelled.take()),
            F::SwallowsPanicsInItsDrop => {
                let source = self.source.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(source)));
            }
            F::PanicsInItsDrop if self.source.is_some() => {
                resume_unwind(Box::new("in its drop"));
            }
            F::CancelsInDrop => self.token.cancel(),
            _ => {}
        }
    }
}

/// By a token.
fn faulty(fault: Fault) -> impl Fn(Source, Stop) -> Faulty {
    move |source, stop| Faulty::new(fault, source, stop.token())
}

/// What is wrong with the laws, if an adapter does not break just these.
fn check<S>(name: &str, wrap: impl Fn(Source, Stop) -> S, breaks: &[Law]) -> Result<(), String>
where
    S: Stoppable<Item = Item>,
{
    let report = laws::report_all(wrap);
    let broken: Vec<_> = report.broken().iter().map(|broken| broken.law()).collect();
    if breaks.len() == broken.len() && breaks.iter().all(|law| broken.contains(law)) {
        return Ok(());
    }
    let diagrams: Vec<_> = report.broken().iter().map(ToString::to_string).collect();
    Err(format!(
        "{name} should break {breaks:?}, and breaks {broken:?}\n\n{}",
        diagrams.join("\n\n")
    ))
}

/// Each fault, and what it breaks.
const TABLE: &[(Fault, &[Law])] = &[
    (F::None, &[]),
    (F::Loud, &[]),
    (F::HasAnotherHintAfterAPanic, &[]),
    (F::ChecksAfterThePoll, &[Law::NothingLate, Law::LeftAlone]),
    (
        F::LooksOnlyAfterAPending,
        &[Law::NothingLate, Law::LeftAlone],
    ),
    (
        F::LooksNotInItsFirstPoll,
        &[Law::NothingLate, Law::LeftAlone],
    ),
    (
        F::LooksNotAfterAPending,
        &[Law::NothingLate, Law::LeftAlone],
    ),
    (F::PollsItsSourceOnceMoreAtAStopInside, &[Law::LeftAlone]),
    (F::ForgetsItsSourceInDrop, &[Law::Dropping]),
    (F::ForgetsItsSourceIfItIsNeverPolled, &[Law::Dropping]),
    (F::ForgetsItsSourceIfItHasNotSeenTheStop, &[Law::Dropping]),
    (F::PollsItsSourceInDrop, &[Law::Lazy]),
    (F::StaysRegisteredWhenDropped, &[Law::Dropping]),
    (F::CancelsInDrop, &[Law::Dropping]),
    (F::DropsItsSourceAfterTheEnd, &[Law::DroppedFirst]),
    (F::DropsItsSourceAfterTheError, &[Law::DroppedFirst]),
    (F::GivesAnItemAfterTheEnd, &[Law::Fused]),
    (F::PanicsAfterTheEnd, &[Law::Fused]),
    (F::IsPendingAfterTheEnd, &[Law::Fused]),
    (F::SaysItsStopTwice, &[Law::Fused]),
    (F::IsNeverTerminated, &[Law::Fused]),
    (F::IsAlwaysTerminated, &[Law::Fused]),
    (F::NeverRegisters, &[Law::Wakes]),
    (F::RegistersItsFirstWakerOnly, &[Law::Wakes]),
    (F::HandsDownItsFirstWakerOnly, &[Law::Wakes]),
    (F::HandsDownItsFirstWakerAfterAYield, &[Law::Wakes]),
    (
        F::WaitsForNobodyBeforeItsFirstItem,
        &[Law::Wakes, Law::Identity],
    ),
    (F::HangsAtTheStop, &[Law::Wakes, Law::Ends, Law::OneOutcome]),
    (F::YieldsWithoutWakingItself, &[Law::Wakes]),
    (F::YieldsBeforeItsFirstItem, &[Law::Identity]),
    (F::YieldsTooLate, &[Law::Fair]),
    (F::YieldsForEver, &[Law::Identity]),
    (F::NeverYields, &[Law::Fair]),
    (F::WakesItselfWheneverPending, &[Law::Identity]),
    (F::LosesTheItemInFlight, &[Law::NothingLost]),
    (F::LosesTheItemInFlightAndIsLoud, &[Law::NothingLost]),
    (F::GivesAnotherItemAtTheStop, &[Law::Prefix]),
    (F::GivesAnItemAgainBeforeAYield, &[Law::Prefix]),
    (F::GivesMoreThanItsSource, &[Law::Prefix, Law::Identity]),
    (F::HasTheLowerBoundOfItsSource, &[Law::SizeHint]),
    (F::HasTooLowAnUpperBound, &[Law::SizeHint]),
    (F::HasTooLowAnUpperBoundAtFirst, &[Law::SizeHint]),
    (F::CountsNoErrorInItsUpperBound, &[Law::SizeHint]),
    (F::IsNotEmptyAfterTheEnd, &[Law::SizeHint]),
    (F::PollsItsSourceAfterItsEnd, &[Law::LeftAlone]),
    (F::PollsItsSourceTwiceWhenPending, &[Law::Identity]),
    (
        F::TakesAnItemAhead,
        &[Law::Lazy, Law::Identity, Law::NothingLost],
    ),
    (F::IsPendingAtTheStop, &[Law::Ends]),
    (F::SwallowsPanics, &[Law::Panics]),
    (F::SwallowsPanicsOfItsSourcesDrop, &[Law::Panics]),
    (F::SwallowsPanicsInItsDrop, &[Law::Panics]),
    (F::PanicsInItsDrop, &[Law::Panics]),
    (F::PanicsAtTheStop, &[Law::Panics]),
    (F::PollsItsSourceAfterAPanic, &[Law::Panics, Law::LeftAlone]),
    (F::IsPendingAfterAPanic, &[Law::Panics]),
    (F::GoesOnAfterPanics, &[Law::Panics, Law::OneOutcome]),
    (F::StaysRegisteredAfterTheEnd, &[Law::Released]),
    (F::HasTheReasonOfItsToken, &[Law::OneOutcome]),
    (F::HasItsReasonBeforeItsEnd, &[Law::OneOutcome]),
    (F::HasItsReasonAfterItsError, &[Law::OneOutcome]),
    (F::HasTheReasonOfAStopAfterItsEnd, &[Law::OneOutcome]),
    (
        F::HasTheReasonOfAStopInTheDropOfItsSource,
        &[Law::OneOutcome],
    ),
    (F::ChangesItsReason, &[Law::OneOutcome, Law::Honest]),
    (F::ForgetsItsReason, &[Law::OneOutcome]),
    (F::SaysThatItWasIdle, &[Law::Honest]),
];

#[test]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
fn each_fault_is_caught_by_the_laws_that_it_breaks_and_by_no_other() {
    let wrong: Vec<_> = TABLE
        .iter()
        .filter_map(|(fault, breaks)| check(&format!("{fault:?}"), faulty(*fault), breaks).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

type Hint = (usize, Option<usize>);

/// A stream that says of its size what `hint` makes of what its source says, and of whether it has ended.
struct Hinting {
    source: Source,
    has_ended: bool,
    hint: fn(Hint, bool) -> Hint,
}

impl Stream for Hinting {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        let polled = Pin::new(&mut self.source).poll_next(cx);
        self.has_ended |= polled == Poll::Ready(None);
        polled
    }

    fn size_hint(&self) -> Hint {
        (self.hint)(self.source.size_hint(), self.has_ended)
    }
}

#[test]
fn any_stream_may_know_its_size_but_not_wrongly() {
    let hinting = |hint| {
        move |source| Hinting {
            source,
            has_ended: false,
            hint,
        }
    };
    laws::size_hint(hinting(|hint, _| hint));
    laws::size_hint(hinting(|_, _| (0, None)));
    let too_high = || {
        laws::size_hint(hinting(|(lower, upper), has_ended| {
            (lower + usize::from(!has_ended), upper)
        }));
    };
    assert!(panic_of(too_high).contains("expected a lower bound that is not above what came"));
    let not_empty = || {
        laws::size_hint(hinting(|(lower, _), has_ended| {
            (lower + usize::from(has_ended), None)
        }));
    };
    assert!(panic_of(not_empty).contains("a size_hint() of (0, Some(0)) after the end"));
}

/// By a point in time, which the adapter takes to be so many nanoseconds later.
#[cfg(feature = "tokio")]
mod timed {
    use super::{F, Fault, Faulty, Item, TABLE, check};
    use futures::{Stream, stream::FusedStream};
    use std::{
        future::Future,
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        task::{Context, Poll, Wake, Waker},
        time::Duration,
    };
    use stopcock::{
        CancellationToken, StopReason,
        testing::{Source, Stop, Stoppable, laws::Law},
    };
    use tokio::time::{Instant, Sleep, sleep_until};

    const NANOSECOND: Duration = Duration::from_nanos(1);

    /// In a row of items it asks for the deadline as late as it may, or later. Else it is told by a timer.
    struct Lenient {
        inner: Faulty,
        deadline: Instant,
        _timer: Pin<Box<Sleep>>,
        alarm: Arc<Alarm>,
        /// How long its source took the last time, and whether it has taken just as long ever since.
        pace: Duration,
        is_steady: bool,
        polls: usize,
        row: usize,
        late: u32,
        /// Whether it may go on: at a steady pace, after so many late items that took so long.
        goes_on: fn(bool, u32, Duration) -> bool,
        /// How long a row has to be for it to ask the timer.
        long_row: usize,
    }

    #[derive(Default)]
    struct Alarm(AtomicBool);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    impl Lenient {
        fn new(
            source: Source,
            stop: &Stop,
            goes_on: fn(bool, u32, Duration) -> bool,
            long_row: usize,
        ) -> Self {
            let deadline = stop.deadline();
            let token = CancellationToken::with_deadline(deadline);
            let mut timer = Box::pin(sleep_until(deadline));
            let alarm = Arc::new(Alarm::default());
            let waker = Waker::from(Arc::clone(&alarm));
            let _ = timer.as_mut().poll(&mut Context::from_waker(&waker));
            Self {
                inner: Faulty::new(F::LooksOnlyAfterAPending, source, token),
                deadline,
                _timer: timer,
                alarm,
                pace: Duration::ZERO,
                is_steady: true,
                polls: 0,
                row: 0,
                late: 0,
                goes_on,
                long_row,
            }
        }
    }

    impl Stream for Lenient {
        type Item = Item;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
            let this = self.get_mut();
            let before = Instant::now();
            if this.row > 0 && this.deadline <= before {
                let is_told = this.row >= this.long_row && this.alarm.0.load(SeqCst);
                let goes_on = (this.goes_on)(this.is_steady, this.late + 1, this.pace);
                if is_told || !goes_on {
                    // So that it looks.
                    this.inner.was_pending = true;
                } else {
                    this.late += 1;
                }
            }
            let polled = Pin::new(&mut this.inner).poll_next(cx);
            let pace = before.elapsed();
            this.is_steady &= this.polls == 0 || pace == this.pace;
            this.pace = pace;
            this.polls += 1;
            this.row = match polled {
                Poll::Ready(Some(_)) => this.row + 1,
                _ => 0,
            };
            polled
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            self.inner.size_hint()
        }
    }

    impl FusedStream for Lenient {
        fn is_terminated(&self) -> bool {
            self.inner.is_terminated()
        }
    }

    impl Stoppable for Lenient {
        fn stop_reason(&self) -> Option<&StopReason> {
            self.inner.stop_reason()
        }
    }

    #[test]
    fn as_late_as_it_may_be_is_no_fault_and_a_little_later_is() {
        const MILLISECOND: Duration = Duration::from_millis(1);

        fn as_it_may(is_steady: bool, late: u32, pace: Duration) -> bool {
            late <= 64 && (!is_steady || late * pace <= MILLISECOND)
        }
        let check = |name, goes_on, long_row, breaks: &[Law]| {
            let wrap = |source, stop: Stop| Lenient::new(source, &stop, goes_on, long_row);
            check(name, wrap, breaks)
        };
        let an_item_more = |is_steady, late, pace| match is_steady {
            true => as_it_may(is_steady, late, pace),
            false => late <= 65,
        };
        let a_nanosecond_more = |is_steady, late, pace| match is_steady {
            true => late <= 64 && late * pace <= MILLISECOND + NANOSECOND,
            false => as_it_may(is_steady, late, pace),
        };
        let wrong = [
            check("as it may", as_it_may, 65, &[]),
            check("an item more", an_item_more, 65, &[Law::OnTime]),
            check("a nanosecond more", a_nanosecond_more, 65, &[Law::OnTime]),
            check(
                "a longer row",
                as_it_may,
                66,
                &[Law::NothingLate, Law::LeftAlone],
            ),
            check(
                "a much longer row",
                as_it_may,
                199,
                &[Law::NothingLate, Law::LeftAlone],
            ),
        ];
        let wrong: Vec<_> = wrong.into_iter().filter_map(Result::err).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    fn faulty(fault: Fault) -> impl Fn(Source, Stop) -> Faulty {
        move |source, stop| {
            let token = CancellationToken::with_deadline(stop.deadline());
            Faulty::new(fault, source, token)
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it leaks on purpose")]
    fn each_fault_is_caught_at_a_point_in_time_as_well() {
        let wrong: Vec<_> = TABLE
            .iter()
            .filter_map(|(fault, breaks)| {
                let breaks: &[Law] = match fault {
                    // It is not the deadline that its reason is known by, nor does its drop move the clock.
                    F::HasTheReasonOfItsToken
                    | F::HasItsReasonBeforeItsEnd
                    | F::HasTheReasonOfAStopAfterItsEnd => &[Law::OneOutcome, Law::Honest],
                    F::CancelsInDrop => &[],
                    // Whether it has been stopped may take a while to be known.
                    F::PollsItsSourceOnceMoreAtAStopInside => &[],
                    F::PollsItsSourceAfterAPanic => &[Law::Panics],
                    F::ChecksAfterThePoll | F::LooksOnlyAfterAPending => {
                        &[Law::NothingLate, Law::LeftAlone, Law::OnTime]
                    }
                    _ => breaks,
                };
                check(&format!("{fault:?}, timed"), faulty(*fault), breaks).err()
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    #[test]
    fn a_nanosecond_too_early_or_too_late_is_found_out() {
        let early = |source, stop: Stop| {
            let token = CancellationToken::with_deadline(stop.deadline() - NANOSECOND);
            Faulty::new(F::None, source, token)
        };
        let late = |source, stop: Stop| {
            let token = CancellationToken::with_deadline(stop.deadline() + NANOSECOND);
            Faulty::new(F::None, source, token)
        };
        let wrong = [
            check("early", early, &[Law::NothingEarly]),
            check(
                "late",
                late,
                &[
                    Law::NothingLate,
                    Law::LeftAlone,
                    Law::Ends,
                    Law::Wakes,
                    Law::OnTime,
                ],
            ),
        ];
        let wrong: Vec<_> = wrong.into_iter().filter_map(Result::err).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
}
