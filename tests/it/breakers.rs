//! The laws, checked with adapters that break them: each is caught by the laws that it breaks, and by no other.

mod drop_on_cancel;
#[cfg(feature = "tokio")]
mod in_time;
#[cfg(feature = "tokio")]
mod timed;

use crate::support::panic_of;
use Fault as F;
use futures::{Stream, stream::FusedStream};
use std::{
    fmt,
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
    /// Nothing.
    None,
    /// Nothing: it reports its stop with an error.
    Loud,
    /// Nothing: the drop of the source, which may do anything, comes after its end or before that of the stream.
    AsksAgainAfterTheDropOfItsSource,
    /// Nothing: after a panic a stream may have any size hint.
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

/// An adapter that keeps every law, except for its fault.
struct Faulty {
    fault: Fault,
    source: Option<Source>,
    token: CancellationToken,
    cancelled: Option<Pin<Box<CancelledOwned>>>,
    reason: Option<StopReason>,
    /// The number of items that may still come without a `Pending`.
    row: usize,
    first_waker: Option<Waker>,
    was_pending: bool,
    has_begun: bool,
    has_yielded: bool,
    has_waited: bool,
    hangs: bool,
    last: char,
    ahead: Option<char>,
    /// Whether it ended without a panic.
    has_ended: bool,
    polls_after_end: usize,
    /// What should have been dropped.
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

    /// The number of items that may come without a `Pending`.
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

/// What is wrong with the laws, if an adapter breaks other laws than these.
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

/// Each fault, and the laws that it breaks.
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

/// What is wrong with a law that each of these adapters except the first has to break.
fn caught<F: fmt::Debug + Copy>(law: Law, faults: &[F], hold: impl Fn(F)) -> Vec<String> {
    let begin = format!("the law `{law}` is broken");
    let reported = |fault| match catch_unwind(AssertUnwindSafe(|| hold(fault))) {
        Ok(()) => "it is not broken".to_owned(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    let wrong = |(n, fault): (usize, &F)| {
        let reported = reported(*fault);
        let is_caught = reported.starts_with(&begin);
        (is_caught == (n == 0)).then(|| format!("{fault:?}: {reported}"))
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

type Hint = (usize, Option<usize>);

/// A stream whose size hint is made by `hint`, from that of its source and from whether it has ended.
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
fn any_stream_may_have_an_exact_size_hint_but_not_a_wrong_one() {
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
