//! The laws, held against adapters that break them: each is caught by the laws that it breaks, and by no other.

use crate::support::panic_of;
use futures::{Stream, stream::FusedStream};
use std::{
    fmt,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};
use stopcock::{
    CancellationToken, CancelledOwned, Registration, StopReason,
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
    /// Nothing at all: what the source does in its drop comes after its end, or before the stream's.
    AsksAgainAfterTheDropOfItsSource,
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
    ChangesItsReason,
    ForgetsItsReason,
    SaysThatItWasIdle,
    TakesAStopInTheLastPollForAnEnd,
    IsSilentIfItsSourceHasEnded,
    IsSilentIfItIsStoppedBeforeItsFirstPoll,
    IsSilentIfItIsStoppedWhilePending,
    IsSilentIfItIsStoppedBetweenPolls,
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

/// Where an adapter is when it notices the stop.
#[derive(PartialEq)]
enum At {
    ItsFirstPoll,
    ALaterPoll,
    AnItem,
    APending,
    TheEndOfItsSource,
}

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

    fn reports_its_stop(&self) -> bool {
        let faults = [
            F::Loud,
            F::SaysItsStopTwice,
            F::CountsNoErrorInItsUpperBound,
            F::LosesTheItemInFlightAndIsLoud,
            F::DropsItsSourceAfterTheError,
            F::HasItsReasonAfterItsError,
            F::TakesAStopInTheLastPollForAnEnd,
            F::IsSilentIfItsSourceHasEnded,
            F::IsSilentIfItIsStoppedBeforeItsFirstPoll,
            F::IsSilentIfItIsStoppedWhilePending,
            F::IsSilentIfItIsStoppedBetweenPolls,
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

    fn stop(&mut self, at: At) -> Poll<Option<Item>> {
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
        let is_silent = match self.fault {
            F::IsSilentIfItsSourceHasEnded => at == At::TheEndOfItsSource,
            F::IsSilentIfItIsStoppedBeforeItsFirstPoll => at == At::ItsFirstPoll,
            F::IsSilentIfItIsStoppedWhilePending => at == At::APending,
            F::IsSilentIfItIsStoppedBetweenPolls => at == At::ALaterPoll,
            _ => !self.reports_its_stop(),
        };
        match is_silent {
            true => Poll::Ready(None),
            false => Poll::Ready(reason.map(Err)),
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
            return this.stop(match is_first {
                true => At::ItsFirstPoll,
                false => At::ALaterPoll,
            });
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
                        this.stop(At::AnItem)
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
                match this.fault {
                    F::AsksAgainAfterTheDropOfItsSource => {
                        this.end();
                        this.reason = this.token.stop_reason();
                        return Poll::Ready(None);
                    }
                    F::TakesAStopInTheLastPollForAnEnd => {}
                    _ if this.token.is_cancelled() => return this.stop(At::TheEndOfItsSource),
                    _ => {}
                }
                if this.fault == F::GivesMoreThanItsSource {
                    this.has_waited = true;
                    return Poll::Ready(Some(Ok('z')));
                }
                this.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.row = Self::row(this.fault);
                this.was_pending = true;
                if this.fault == F::WakesItselfWheneverPending {
                    cx.waker().wake_by_ref();
                }
                match this.poll_cancelled(cx) {
                    Poll::Ready(()) => this.stop(At::APending),
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
            _ => usize::from(self.ahead.is_some() || self.reports_its_stop()),
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
    (F::AsksAgainAfterTheDropOfItsSource, &[]),
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
    (F::TakesAStopInTheLastPollForAnEnd, &[Law::OneOutcome]),
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

/// What is wrong with a law that each of these adapters but the first is to break.
fn caught<F: fmt::Debug + Copy>(law: Law, faults: &[F], hold: impl Fn(F)) -> Vec<String> {
    let begin = format!("the law `{law}` is broken");
    let told = |fault| match catch_unwind(AssertUnwindSafe(|| hold(fault))) {
        Ok(()) => "it is not broken".to_owned(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    let wrong = |(n, fault): (usize, &F)| {
        let told = told(*fault);
        let is_caught = told.starts_with(&begin);
        (is_caught == (n == 0)).then(|| format!("{fault:?}: {told}"))
    };
    faults.iter().enumerate().filter_map(wrong).collect()
}

/// The first one keeps the law.
const SILENT: [Fault; 7] = [
    F::Loud,
    F::None,
    F::TakesAStopInTheLastPollForAnEnd,
    F::IsSilentIfItsSourceHasEnded,
    F::IsSilentIfItIsStoppedBeforeItsFirstPoll,
    F::IsSilentIfItIsStoppedWhilePending,
    F::IsSilentIfItIsStoppedBetweenPolls,
];

#[test]
fn each_stop_that_is_not_reported_is_caught() {
    let wrong = caught(Law::StopIsReported, &SILENT, |fault| {
        laws::stop_is_reported(faulty(fault));
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What a `drop_on_cancel` adapter does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum DropOnCancelFault {
    None,
    WaitsForAPoll,
    WaitsForTheNextPollIfStoppedInOne,
    WaitsForItsFirstPoll,
    OverlooksAStopBeforeItWasMade,
    DropsOnlyWhatIsPending,
}

/// The source of a `drop_on_cancel` adapter, where its canceller finds it.
struct Place {
    fault: DropOnCancelFault,
    source: Option<Source>,
    is_stopped: bool,
    is_pending: bool,
}

/// An adapter that keeps the law, but for its fault, where nobody is on another thread.
struct DropOnCancel {
    fault: DropOnCancelFault,
    token: CancellationToken,
    place: Arc<Mutex<Place>>,
    closing: Option<Registration>,
}

impl DropOnCancel {
    fn new(fault: DropOnCancelFault, source: Source, token: CancellationToken) -> Self {
        let place = Place {
            fault,
            source: Some(source),
            is_stopped: false,
            is_pending: false,
        };
        let mut this = Self {
            fault,
            token,
            place: Arc::new(Mutex::new(place)),
            closing: None,
        };
        match fault {
            DropOnCancelFault::WaitsForItsFirstPoll => {}
            DropOnCancelFault::OverlooksAStopBeforeItWasMade if this.token.is_cancelled() => {}
            _ => this.register(),
        }
        this
    }

    fn register(&mut self) {
        let place = Arc::clone(&self.place);
        let close = move |_: &StopReason| {
            let mut place = place.lock().unwrap();
            place.is_stopped = true;
            let source = match place.fault {
                DropOnCancelFault::WaitsForAPoll => None,
                DropOnCancelFault::DropsOnlyWhatIsPending if !place.is_pending => None,
                _ => place.source.take(),
            };
            drop(place);
            drop(source);
        };
        self.closing = Some(self.token.on_cancel(close));
    }
}

impl Stream for DropOnCancel {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        if self.closing.is_none() {
            self.register();
        }
        let mut place = self.place.lock().unwrap();
        let was_stopped = mem::replace(&mut place.is_stopped, false);
        let source = place.source.take();
        drop(place);
        let Some(mut source) = source.filter(|_| !was_stopped) else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut source).poll_next(cx);
        let mut place = self.place.lock().unwrap();
        place.is_pending = polled.is_pending();
        let waits = self.fault == DropOnCancelFault::WaitsForTheNextPollIfStoppedInOne;
        if (place.is_stopped && !waits) || polled == Poll::Ready(None) {
            drop(place);
            drop(source);
            return match polled {
                Poll::Pending => Poll::Ready(None),
                polled => polled,
            };
        }
        place.source = Some(source);
        polled
    }
}

#[test]
fn each_fault_of_an_eager_adapter_is_caught() {
    let faults = [
        DropOnCancelFault::None,
        DropOnCancelFault::WaitsForAPoll,
        DropOnCancelFault::WaitsForTheNextPollIfStoppedInOne,
        DropOnCancelFault::WaitsForItsFirstPoll,
        DropOnCancelFault::OverlooksAStopBeforeItWasMade,
        DropOnCancelFault::DropsOnlyWhatIsPending,
    ];
    let wrong = caught(Law::DropOnCancel, &faults, |fault| {
        laws::drop_on_cancel(|source, stop| DropOnCancel::new(fault, source, stop.token()));
    });
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
    use super::{At, F, Fault, Faulty, Item, SILENT, TABLE, caught, check};
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
        testing::{
            Source, Stop, Stoppable,
            laws::{self, Law},
        },
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
                let is_notified = this.row >= this.long_row && this.alarm.0.load(SeqCst);
                let goes_on = (this.goes_on)(this.is_steady, this.late + 1, this.pace);
                if is_notified || !goes_on {
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
    fn each_stop_that_is_not_reported_is_caught_at_a_point_in_time_as_well() {
        let wrong = caught(Law::StopIsReported, &SILENT, |fault| {
            laws::stop_is_reported(faulty(fault));
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    /// Reads the clock before each poll and while pending, but at the end of its source it asks a timer.
    struct AsksATimerAtTheEnd {
        inner: Faulty,
        timer: Pin<Box<Sleep>>,
    }

    impl Stream for AsksATimerAtTheEnd {
        type Item = Item;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
            let this = self.get_mut();
            match Pin::new(&mut this.inner).poll_next(cx) {
                Poll::Ready(None) if this.timer.as_mut().poll(cx).is_ready() => {
                    this.inner.stop(At::TheEndOfItsSource)
                }
                polled => polled,
            }
        }
    }

    #[test]
    fn a_deadline_that_passes_in_the_last_poll_is_not_known_to_a_timer() {
        let told = crate::support::panic_of(|| {
            laws::stop_is_reported(|source, stop| {
                let token = CancellationToken::with_deadline(stop.deadline());
                AsksATimerAtTheEnd {
                    inner: Faulty::new(F::TakesAStopInTheLastPollForAnEnd, source, token),
                    timer: Box::pin(sleep_until(stop.deadline())),
                }
            });
        });
        assert!(
            told.contains("script \"|\", stopped during poll 0 of the source"),
            "{told}"
        );
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
                    Law::OneOutcome,
                    Law::OnTime,
                ],
            ),
        ];
        let wrong: Vec<_> = wrong.into_iter().filter_map(Result::err).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
}

/// By a length of time.
#[cfg(feature = "tokio")]
mod in_time {
    use super::{Item, caught};
    use futures::{Stream, stream::FusedStream};
    use std::{
        future::Future,
        mem,
        pin::Pin,
        sync::{Arc, OnceLock},
        task::{Context, Poll},
        time::Duration,
    };
    use stopcock::{
        CancellationToken, CancelledOwned, StopReason,
        testing::{
            Source, Stoppable,
            laws::{self, Law},
        },
    };
    use tokio::time::{Instant, Sleep, sleep_until};

    const SECOND: Duration = Duration::from_secs(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);

    /// What an adapter with a grace does wrong.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum DrainFault {
        None,
        HasNoGrace,
        EndsAtTheFirstPending,
        EndsAtTheFirstItem,
        CountsFromTheStop,
        CountsFromItsMaking,
        CountsFromEachPoll,
        CountsFromEachItem,
        CountsFromTheNextPoll,
        IsANanosecondEarly,
        IsANanosecondLate,
        NeverEnds,
        HasNoTimer,
        KeepsTheFirstWakerOfItsTimer,
        IsNotWokenByTheStop,
        LooksOnlyAfterItsSource,
        AsksItsSourceAtTheEnd,
        WaitsForTheEndOfItsGrace,
        DropsItsSourceAfterTheEnd,
        HasItsReasonWhileItDrains,
        HasItsReasonAfterAnEndOfItsOwn,
        HasNoReason,
    }

    use DrainFault as D;

    /// An adapter that keeps the law, but for its fault.
    struct Draining {
        fault: DrainFault,
        source: Option<Source>,
        token: CancellationToken,
        cancelled: Pin<Box<CancelledOwned>>,
        cancelled_at: Arc<OnceLock<Instant>>,
        made_at: Instant,
        over_at: Option<Instant>,
        timer: Option<Pin<Box<Sleep>>>,
        has_seen_it: bool,
        is_over: bool,
        was_stopped: bool,
        leftover: Option<Source>,
    }

    impl Draining {
        fn new(fault: DrainFault, source: Source, token: CancellationToken) -> Self {
            let cancelled_at = Arc::new(OnceLock::new());
            let at = Arc::clone(&cancelled_at);
            let note = move |_: &StopReason| {
                at.get_or_init(Instant::now);
            };
            token.on_cancel(note).detach();
            Self {
                fault,
                source: Some(source),
                cancelled: Box::pin(token.clone().cancelled_owned()),
                token,
                cancelled_at,
                made_at: Instant::now(),
                over_at: None,
                timer: None,
                has_seen_it: false,
                is_over: false,
                was_stopped: false,
                leftover: None,
            }
        }

        /// Sets the end of the grace once it was stopped.
        fn look(&mut self, cx: &mut Context<'_>) {
            let is_cancelled = match self.fault {
                D::IsNotWokenByTheStop => self.token.is_cancelled(),
                _ => self.over_at.is_some() || self.cancelled.as_mut().poll(cx).is_ready(),
            };
            let now = Instant::now();
            let from = match self.fault {
                D::NeverEnds => return,
                D::CountsFromTheStop => *self.cancelled_at.get().unwrap_or(&now),
                D::CountsFromItsMaking => self.made_at,
                _ => now,
            };
            let grace = match self.fault {
                D::HasNoGrace => Duration::ZERO,
                D::IsANanosecondEarly => SECOND - NANOSECOND,
                D::IsANanosecondLate => SECOND + NANOSECOND,
                _ => SECOND,
            };
            let is_new = match self.fault {
                D::CountsFromEachPoll => true,
                D::CountsFromTheNextPoll => self.has_seen_it && self.over_at.is_none(),
                _ => self.over_at.is_none(),
            };
            if is_cancelled && is_new {
                self.over_at = Some(from + grace);
            }
            self.has_seen_it |= is_cancelled;
        }

        fn is_past(&self) -> bool {
            self.over_at
                .is_some_and(|over_at| over_at <= Instant::now())
        }

        fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let Some(over_at) = self.over_at else {
                return Poll::Pending;
            };
            match (self.fault, &self.timer) {
                (D::HasNoTimer, _) | (D::KeepsTheFirstWakerOfItsTimer, Some(_)) => Poll::Pending,
                _ => {
                    let timer = self.timer.insert(Box::pin(sleep_until(over_at)));
                    timer.as_mut().poll(cx)
                }
            }
        }

        fn end(&mut self, was_stopped: bool) -> Poll<Option<char>> {
            let source = self.source.take();
            if self.fault == D::DropsItsSourceAfterTheEnd {
                self.leftover = source;
            }
            self.is_over = true;
            self.was_stopped = match self.fault {
                D::HasItsReasonAfterAnEndOfItsOwn => self.token.is_cancelled(),
                D::HasNoReason => false,
                _ => was_stopped,
            };
            Poll::Ready(None)
        }
    }

    impl Stream for Draining {
        type Item = char;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
            if self.source.is_none() {
                return Poll::Ready(None);
            }
            self.look(cx);
            if self.is_past() && self.fault != D::LooksOnlyAfterItsSource {
                if let (D::AsksItsSourceAtTheEnd, Some(source)) = (self.fault, &mut self.source) {
                    let _ = Pin::new(source).poll_next(cx);
                }
                return self.end(true);
            }
            if self.fault == D::WaitsForTheEndOfItsGrace && self.over_at.is_some() {
                return self.poll_timer(cx).map(|()| None);
            }
            let Some(source) = &mut self.source else {
                return Poll::Ready(None);
            };
            match Pin::new(source).poll_next(cx) {
                Poll::Ready(None) => self.end(false),
                Poll::Ready(Some(_))
                    if self.fault == D::EndsAtTheFirstItem && self.over_at.is_some() =>
                {
                    self.end(true)
                }
                Poll::Ready(item) => {
                    if self.fault == D::CountsFromEachItem && self.over_at.is_some() {
                        self.over_at = Some(Instant::now() + SECOND);
                    }
                    Poll::Ready(item)
                }
                Poll::Pending => {
                    self.look(cx);
                    if self.fault == D::EndsAtTheFirstPending && self.over_at.is_some() {
                        return self.end(true);
                    }
                    if self.is_past() || self.poll_timer(cx).is_ready() {
                        return self.end(true);
                    }
                    Poll::Pending
                }
            }
        }
    }

    impl FusedStream for Draining {
        fn is_terminated(&self) -> bool {
            self.is_over
        }
    }

    impl Stoppable for Draining {
        fn stop_reason(&self) -> Option<&StopReason> {
            let is_early = self.fault == D::HasItsReasonWhileItDrains && self.over_at.is_some();
            (self.was_stopped || is_early).then_some(&StopReason::Cancelled)
        }
    }

    #[test]
    fn each_fault_of_a_grace_is_caught() {
        let faults = [
            D::None,
            D::HasNoGrace,
            D::EndsAtTheFirstPending,
            D::EndsAtTheFirstItem,
            D::CountsFromTheStop,
            D::CountsFromItsMaking,
            D::CountsFromEachPoll,
            D::CountsFromEachItem,
            D::CountsFromTheNextPoll,
            D::IsANanosecondEarly,
            D::IsANanosecondLate,
            D::NeverEnds,
            D::HasNoTimer,
            D::KeepsTheFirstWakerOfItsTimer,
            D::IsNotWokenByTheStop,
            D::LooksOnlyAfterItsSource,
            D::AsksItsSourceAtTheEnd,
            D::WaitsForTheEndOfItsGrace,
            D::DropsItsSourceAfterTheEnd,
            D::HasItsReasonWhileItDrains,
            D::HasItsReasonAfterAnEndOfItsOwn,
            D::HasNoReason,
        ];
        let wrong = caught(Law::Drains, &faults, |fault| {
            laws::drains_and_says_why(SECOND, |source, stop| {
                Draining::new(fault, source, stop.token())
            });
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    /// What an adapter that ends when idle does wrong.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum IdleFault {
        None,
        CountsFromTheLastItem,
        CountsFromTheLastPoll,
        CountsFromItsMaking,
        CountsFromTheFirstPending,
        CountsItsWaitsTogether,
        DoesNotCountBeforeItsFirstItem,
        DoesNotAskOnceMore,
        AsksTwice,
        IsANanosecondEarly,
        IsANanosecondLate,
        NeverEnds,
        HasNoTimer,
        KeepsItsFirstTimer,
        KeepsTheFirstWakerOfItsTimer,
        DropsItsSourceAfterTheError,
        CountsWhileItsConsumerIsAway,
    }

    use IdleFault as I;

    /// An adapter that keeps the law, but for its fault.
    struct Idling {
        fault: IdleFault,
        source: Option<Source>,
        since: Option<Instant>,
        timer: Option<Pin<Box<Sleep>>>,
        has_given: bool,
        /// How long it was pending before its last item.
        waited: Duration,
        was_away: bool,
        leftover: Option<Source>,
    }

    impl Idling {
        fn new(fault: IdleFault, source: Source) -> Self {
            Self {
                fault,
                source: Some(source),
                since: (fault == I::CountsFromItsMaking).then(Instant::now),
                timer: None,
                has_given: false,
                waited: Duration::ZERO,
                was_away: fault == I::CountsWhileItsConsumerIsAway,
                leftover: None,
            }
        }

        fn time(&self) -> Duration {
            match self.fault {
                I::IsANanosecondEarly => SECOND - NANOSECOND,
                I::IsANanosecondLate => SECOND + NANOSECOND,
                I::CountsItsWaitsTogether => SECOND.saturating_sub(self.waited),
                _ => SECOND,
            }
        }

        fn note_item(&mut self) {
            let now = Instant::now();
            self.has_given = true;
            self.was_away = self.fault == I::CountsWhileItsConsumerIsAway;
            self.waited += self.since.map_or(Duration::ZERO, |since| now - since);
            match self.fault {
                I::CountsFromTheFirstPending => return,
                I::CountsFromTheLastItem => self.since = Some(now),
                _ => self.since = None,
            }
            if self.fault != I::KeepsItsFirstTimer {
                self.timer = None;
            }
        }

        fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
            let now = Instant::now();
            if self.fault == I::CountsFromTheLastPoll {
                self.since = None;
            }
            let time = self.time();
            let since = self.since.get_or_insert(now);
            let late = now.saturating_duration_since(*since + time);
            if late > SECOND / 16 && !mem::replace(&mut self.was_away, true) {
                *since = now;
            }
            let over_at = *since + time;
            match (self.fault, &self.timer) {
                (I::NeverEnds, _) => return false,
                (I::DoesNotCountBeforeItsFirstItem, _) if !self.has_given => return false,
                (I::HasNoTimer, _) | (I::KeepsTheFirstWakerOfItsTimer, Some(_)) => {}
                (I::KeepsItsFirstTimer, Some(timer)) if timer.is_elapsed() => {}
                (I::KeepsItsFirstTimer, Some(_)) => {
                    let _ = self.timer.as_mut().map(|timer| timer.as_mut().poll(cx));
                }
                _ => {
                    let timer = self.timer.insert(Box::pin(sleep_until(over_at)));
                    let _ = timer.as_mut().poll(cx);
                }
            }
            over_at <= now
        }

        fn end(&mut self) -> Poll<Option<Item>> {
            let source = self.source.take();
            if self.fault == I::DropsItsSourceAfterTheError {
                self.leftover = source;
            }
            Poll::Ready(Some(Err(StopReason::IdleTimeout)))
        }
    }

    impl Stream for Idling {
        type Item = Item;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
            self.leftover = None;
            let now = Instant::now();
            let is_over = self.since.is_some_and(|since| since + SECOND <= now);
            if is_over && self.source.is_some() && self.fault == I::DoesNotAskOnceMore {
                return self.end();
            }
            let asks_twice = is_over && self.fault == I::AsksTwice;
            let Some(source) = &mut self.source else {
                return Poll::Ready(None);
            };
            let mut polled = Pin::new(&mut *source).poll_next(cx);
            if asks_twice && polled.is_pending() {
                polled = Pin::new(source).poll_next(cx);
            }
            match polled {
                Poll::Ready(Some(item)) => {
                    self.note_item();
                    Poll::Ready(Some(Ok(item)))
                }
                Poll::Ready(None) => {
                    self.source = None;
                    Poll::Ready(None)
                }
                Poll::Pending if self.is_idle(cx) => self.end(),
                Poll::Pending => Poll::Pending,
            }
        }
    }

    #[test]
    fn each_fault_of_one_that_ends_when_idle_is_caught() {
        let faults = [
            I::None,
            I::CountsFromTheLastItem,
            I::CountsFromTheLastPoll,
            I::CountsFromItsMaking,
            I::CountsFromTheFirstPending,
            I::CountsItsWaitsTogether,
            I::DoesNotCountBeforeItsFirstItem,
            I::DoesNotAskOnceMore,
            I::AsksTwice,
            I::IsANanosecondEarly,
            I::IsANanosecondLate,
            I::NeverEnds,
            I::HasNoTimer,
            I::KeepsItsFirstTimer,
            I::KeepsTheFirstWakerOfItsTimer,
            I::DropsItsSourceAfterTheError,
            I::CountsWhileItsConsumerIsAway,
        ];
        let wrong = caught(Law::EndsWhenIdle, &faults, |fault| {
            laws::ends_when_idle(SECOND, |source| Idling::new(fault, source));
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    #[test]
    fn a_broken_law_is_reported_with_the_waits() {
        let told = crate::support::panic_of(|| {
            laws::ends_when_idle(SECOND, |source| {
                Idling::new(I::CountsFromTheLastItem, source)
            });
        });
        assert_eq!(
            told,
            "\
the law `ends_when_idle` is broken: it ends once its source was pending for so long, and no sooner

    source   a~~.....
    stop     ........
    woken    .w......
    output   a-X||||/
    dropped  ..D.....

script \"a\", stopped never; before its polls pass 1s, 500ms, then 1s each
expected poll 2 to give what the source gave, '~'
"
        );
    }
}
