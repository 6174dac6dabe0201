//! Adapters that break the laws about a length of time.

use super::{Item, caught};
use DrainFault as D;
use IdleFault as I;
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

/// What an adapter with a grace period does wrong.
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

/// An adapter that keeps the law, except for its fault.
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

    /// Sets the end of the grace period once it was stopped.
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
fn each_fault_of_a_grace_period_is_caught() {
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

/// An adapter that keeps the law, except for its fault.
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
    let reported = crate::support::panic_of(|| {
        laws::ends_when_idle(SECOND, |source| {
            Idling::new(I::CountsFromTheLastItem, source)
        });
    });
    assert_eq!(
        reported,
        "\
the law `ends_when_idle` is broken: the stream ends once its source was idle for the timeout, and not before

    source   a~~.....
    stop     ........
    woken    .w......
    output   a-X||||/
    dropped  ..D.....

script \"a\", stopped never; before its polls pass 1s, 500ms, then 1s each
expected poll 2 to return what the source returned, '~'
"
    );
}
