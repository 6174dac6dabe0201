//! The laws, held against adapters that break them: each is caught by the laws that it breaks, and by no other.

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
    ChecksAfterThePoll,
    LooksOnlyAfterAPending,
    ForgetsItsSourceInDrop,
    CancelsInDrop,
    DropsItsSourceAfterTheEnd,
    GivesAnItemAfterTheEnd,
    IsPendingAfterTheEnd,
    SaysItsStopTwice,
    IsNeverTerminated,
    IsAlwaysTerminated,
    NeverRegisters,
    RegistersItsFirstWakerOnly,
    HandsDownItsFirstWakerOnly,
    YieldsWithoutWakingItself,
    NeverYields,
    WakesItselfWheneverPending,
    LosesTheItemInFlight,
    GivesAnotherItemAtTheStop,
    HasTheLowerBoundOfItsSource,
    HasTooLowAnUpperBound,
    CountsNoErrorInItsUpperBound,
    IsNotEmptyAfterTheEnd,
    PollsItsSourceAfterItsEnd,
    PollsItsSourceTwiceWhenPending,
    TakesAnItemAhead,
    IsPendingAtTheStop,
    SwallowsPanics,
    GoesOnAfterPanics,
    StaysRegisteredAfterTheEnd,
    HasTheReasonOfItsToken,
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
    has_waited: bool,
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
            row: 1024,
            first_waker: None,
            was_pending: true,
            has_waited: false,
            ahead: None,
            has_ended: false,
            polls_after_end: 0,
            leftover: None,
        }
    }

    /// The waker of this poll, or the first one for an adapter with that fault.
    fn waker(&mut self, cx: &Context<'_>, fault: Fault) -> Waker {
        let first = self.first_waker.get_or_insert_with(|| cx.waker().clone());
        match self.fault == fault {
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
                if self.fault == F::PollsItsSourceTwiceWhenPending
                    && !self.token.is_cancelled() =>
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
            _ => drop(source),
        }
        self.has_ended = true;
    }

    fn stop(&mut self) -> Poll<Option<Item>> {
        let reason = match self.fault {
            F::SaysThatItWasIdle => Some(StopReason::IdleTimeout),
            _ => self.token.stop_reason(),
        };
        if self.fault != F::ForgetsItsReason {
            self.reason.clone_from(&reason);
        }
        self.end();
        match self.is_loud() {
            true => Poll::Ready(reason.map(Err)),
            false => Poll::Ready(None),
        }
    }

    fn poll_after_end(&mut self) -> Poll<Option<Item>> {
        self.leftover = None;
        self.polls_after_end += 1;
        if !self.has_ended {
            return Poll::Ready(None);
        }
        match (self.fault, &self.reason) {
            (F::GivesAnItemAfterTheEnd, _) => Poll::Ready(Some(Ok('z'))),
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
            return this.poll_after_end();
        }
        let looks = match this.fault {
            F::ChecksAfterThePoll => false,
            F::LooksOnlyAfterAPending => this.was_pending,
            _ => true,
        };
        if looks && this.token.is_cancelled() {
            if this.fault == F::IsPendingAtTheStop && !mem::replace(&mut this.has_waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return this.stop();
        }
        if let Some(item) = this.ahead.take() {
            this.row = this.row.saturating_sub(1);
            return Poll::Ready(Some(Ok(item)));
        }
        if this.row == 0 && this.fault != F::NeverYields {
            this.row = 1024;
            this.was_pending = true;
            if this.fault != F::YieldsWithoutWakingItself {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let polled = match catch_unwind(AssertUnwindSafe(|| this.poll_source(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                if this.fault != F::GoesOnAfterPanics {
                    this.end();
                    this.has_ended = false;
                }
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
                    F::LosesTheItemInFlight if this.token.is_cancelled() => this.stop(),
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
                    _ => Poll::Ready(Some(Ok(item))),
                }
            }
            Poll::Ready(None) => {
                if this.fault == F::PollsItsSourceAfterItsEnd {
                    let _ = this.poll_source(cx);
                }
                this.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.row = 1024;
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
                _ => (0, Some(0)),
            };
        };
        let (lower, upper) = source.size_hint();
        let more = match self.fault {
            F::Loud | F::SaysItsStopTwice => 1,
            _ => usize::from(self.ahead.is_some()),
        };
        let upper = upper.map(|upper| upper + more);
        match self.fault {
            F::HasTheLowerBoundOfItsSource => (lower, upper),
            F::HasTooLowAnUpperBound => (0, upper.map(|upper| upper.saturating_sub(1))),
            _ => (0, upper),
        }
    }
}

impl FusedStream for Faulty {
    fn is_terminated(&self) -> bool {
        match self.fault {
            F::IsNeverTerminated => false,
            F::IsAlwaysTerminated => true,
            _ => self.source.is_none(),
        }
    }
}

impl Stoppable for Faulty {
    fn stop_reason(&self) -> Option<&StopReason> {
        const CANCELLED: &StopReason = &StopReason::Cancelled;
        match self.fault {
            F::HasTheReasonOfItsToken => self.token.is_cancelled().then_some(CANCELLED),
            _ => self.reason.as_ref(),
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        match self.fault {
            F::ForgetsItsSourceInDrop => mem::forget(self.source.take()),
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
fn check(name: &str, wrap: impl Fn(Source, Stop) -> Faulty, breaks: &[Law]) -> Result<(), String> {
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
    (F::ChecksAfterThePoll, &[Law::NothingLate, Law::LeftAlone]),
    (
        F::LooksOnlyAfterAPending,
        &[Law::NothingLate, Law::LeftAlone],
    ),
    (F::ForgetsItsSourceInDrop, &[Law::Dropping]),
    (F::CancelsInDrop, &[Law::Dropping]),
    (F::DropsItsSourceAfterTheEnd, &[Law::DroppedFirst]),
    (F::GivesAnItemAfterTheEnd, &[Law::Fused]),
    (F::IsPendingAfterTheEnd, &[Law::Fused]),
    (F::SaysItsStopTwice, &[Law::Fused]),
    (F::IsNeverTerminated, &[Law::Fused]),
    (F::IsAlwaysTerminated, &[Law::Fused]),
    (F::NeverRegisters, &[Law::Wakes]),
    (F::RegistersItsFirstWakerOnly, &[Law::Wakes]),
    (F::HandsDownItsFirstWakerOnly, &[Law::Wakes]),
    (F::YieldsWithoutWakingItself, &[Law::Wakes]),
    (F::NeverYields, &[Law::Fair]),
    (F::WakesItselfWheneverPending, &[Law::Identity]),
    (F::LosesTheItemInFlight, &[Law::NothingLost]),
    (F::GivesAnotherItemAtTheStop, &[Law::Prefix]),
    (F::HasTheLowerBoundOfItsSource, &[Law::SizeHint]),
    (F::HasTooLowAnUpperBound, &[Law::SizeHint]),
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
    (F::GoesOnAfterPanics, &[Law::Panics, Law::OneOutcome]),
    (F::StaysRegisteredAfterTheEnd, &[Law::Released]),
    (F::HasTheReasonOfItsToken, &[Law::OneOutcome]),
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

/// By a point in time, which the adapter takes to be so many nanoseconds later.
#[cfg(feature = "tokio")]
mod timed {
    use super::{F, Fault, Faulty, TABLE, check};
    use std::time::Duration;
    use stopcock::{
        CancellationToken,
        testing::{Source, Stop, laws::Law},
    };

    const NANOSECOND: Duration = Duration::from_nanos(1);

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
                    F::HasTheReasonOfItsToken => &[Law::OneOutcome, Law::Honest],
                    F::CancelsInDrop => &[],
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
