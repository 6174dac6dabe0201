//! Adapters that are stopped at a point in time, and are late.

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

/// In a run of ready items it checks the deadline as late as it may, or later. Otherwise a timer wakes it.
struct Lenient {
    inner: Faulty,
    deadline: Instant,
    _timer: Pin<Box<Sleep>>,
    alarm: Arc<Alarm>,
    /// How long its source took the last time, and whether it has always taken as long.
    pace: Duration,
    is_steady: bool,
    polls: usize,
    row: usize,
    late: u32,
    /// Whether it may continue: at a steady pace, after this number of late items that took this long.
    goes_on: fn(bool, u32, Duration) -> bool,
    /// The length of a run after which it checks the timer.
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
                // So that it checks.
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
                // Its reason is not that of the deadline, and its drop does not advance the clock.
                F::HasTheReasonOfItsToken
                | F::HasItsReasonBeforeItsEnd
                | F::HasTheReasonOfAStopAfterItsEnd => &[Law::OneOutcome, Law::Honest],
                F::CancelsInDrop => &[],
                // It may take a while to notice the stop.
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

/// Reads the clock before each poll and while pending, but at the end of its source it only checks a timer.
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
    let reported = crate::support::panic_of(|| {
        laws::stop_is_reported(|source, stop| {
            let token = CancellationToken::with_deadline(stop.deadline());
            AsksATimerAtTheEnd {
                inner: Faulty::new(F::TakesAStopInTheLastPollForAnEnd, source, token),
                timer: Box::pin(sleep_until(stop.deadline())),
            }
        });
    });
    assert!(
        reported.contains("script \"|\", stopped during poll 0 of the source"),
        "{reported}"
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
