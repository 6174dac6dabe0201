//! Signals: how often they are checked, and what they do not poll or wake.

use crate::support::{Wakes, poll};
use futures::{StreamExt, channel::oneshot, future, stream};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};
use stopcock::{
    CancelStreamExt, CancellationToken, IntoSignal, Signal, StopReason, signal, testing::Source,
};

/// Never ready; counts its polls, and wakes itself in those for which `wake` returns `true`.
struct Counted {
    polls: Rc<Cell<usize>>,
    wake: fn(usize) -> bool,
}

impl Future for Counted {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.set(self.polls.get() + 1);
        if (self.wake)(self.polls.get()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[test]
fn a_future_is_polled_first_and_then_only_after_its_waker_ran_and_at_a_yield() {
    let polls = Rc::new(Cell::new(0));
    let future = Counted {
        polls: Rc::clone(&polls),
        wake: |_| false,
    };
    let script = "a-b---".to_string() + &"c".repeat(3000);
    let mut stream = Source::new(&script).take_until_cancelled(signal::when(future));
    for _ in 0..6 + 1024 {
        let _ = poll(pin!(&mut stream));
        assert_eq!(polls.get(), 1);
    }
    // The yield, and the first poll after it.
    assert_eq!(poll(pin!(&mut stream)), Poll::Pending);
    assert_eq!(poll(pin!(&mut stream)), Poll::Ready(Some('c')));
    assert_eq!(polls.get(), 2);
}

#[test]
fn a_future_that_wakes_itself_is_polled_before_the_next_item() {
    let polls = Rc::new(Cell::new(0));
    let future = Counted {
        polls: Rc::clone(&polls),
        wake: |poll| poll < 3,
    };
    let mut stream = Source::new("abcdef").take_until_cancelled(signal::when(future));
    let counted: Vec<_> = (0..5)
        .map(|_| {
            let _ = poll(pin!(&mut stream));
            polls.get()
        })
        .collect();
    assert_eq!(counted, [1, 2, 3, 3, 3]);
}

#[test]
fn a_sender_that_is_dropped_fires_as_well() {
    let (sender, receiver) = oneshot::channel::<()>();
    let wakes = Wakes::new();
    let mut stream = stream::pending::<u8>().take_until_cancelled(signal::when(receiver));
    assert_eq!(wakes.poll(pin!(&mut stream)), Poll::Pending);
    drop(sender);
    assert_eq!(wakes.count(), 1);
    assert_eq!(wakes.poll(pin!(&mut stream)), Poll::Ready(None));
}

#[test]
fn a_panic_of_the_future_ends_the_stream() {
    let source = Source::new("abc");
    let record = source.record();
    let stop = future::lazy(|_| panic!("the future says so"));
    let mut stream = source.take_until_cancelled(signal::when(stop));
    let message = crate::support::panic_of(|| poll(pin!(&mut stream)));
    assert_eq!(message, "the future says so");
    assert_eq!(poll(pin!(&mut stream)), Poll::Ready(None));
    assert!(record.is_dropped());
    assert!(stream.stop_reason().is_none());
}

/// Logs a name when it is dropped.
struct Dropped(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

#[test]
fn the_output_of_a_future_is_dropped_after_the_source_and_the_future_itself_at_once() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let [in_source, in_future, output] =
        ["source", "future", "output"].map(|name| Dropped(name, Rc::clone(&log)));
    let source = stream::repeat(()).map(move |()| {
        let held = &in_source;
        held.0
    });
    let (fire, fired) = oneshot::channel();
    let stop = signal::when(async move {
        let _in_future = in_future;
        fired.await
    });
    let seen = Rc::clone(&log);
    let stop = stop.map_reason(move |_| format!("{:?}", seen.borrow()));
    let mut stream = Box::pin(source.take_until_cancelled(stop));
    assert_eq!(poll(stream.as_mut()), Poll::Ready(Some("source")));
    assert!(fire.send(output).is_ok());
    assert_eq!(poll(stream.as_mut()), Poll::Ready(None));
    assert_eq!(*log.borrow(), ["future", "source", "output"]);
    // The reason was made while the output was alive.
    assert_eq!(stream.stop_reason().unwrap().to_string(), r#"["future"]"#);
}

#[test]
fn the_reason_of_a_future_is_the_last_one_that_was_set() {
    fn reason_of<G: IntoSignal>(signal: G) -> String {
        let mut stream = pin!(stream::pending::<u8>().with_cancellation(signal));
        let stopped = poll(stream.as_mut());
        let Poll::Ready(Some(Err(reason))) = stopped else {
            panic!("the future was ready, and yet {stopped:?}");
        };
        reason.to_string()
    }
    assert_eq!(reason_of(signal::when(future::ready(7))), "cancelled");
    assert_eq!(
        reason_of(signal::when(future::ready(7)).with_reason("enough")),
        "enough"
    );
    let made = |n: &i32| format!("{n} of them");
    assert_eq!(
        reason_of(signal::when(future::ready(7)).map_reason(made)),
        "7 of them"
    );
    let of_both = signal::when(future::ready(7))
        .with_reason("enough")
        .map_reason(made);
    assert_eq!(reason_of(of_both), "7 of them");
    let idle = signal::when(future::ready(7)).with_reason(StopReason::IdleTimeout);
    assert_eq!(
        reason_of(signal::any(signal::never(), idle)),
        "idle for too long"
    );
}

#[test]
fn a_panic_where_a_reason_is_made_ends_the_stream() {
    let stop = signal::when(future::ready(7)).map_reason(|_| -> StopReason { panic!("no reason") });
    let mut stream = pin!(stream::repeat(1).take_until_cancelled(stop));
    let message = crate::support::panic_of(|| poll(stream.as_mut()));
    assert_eq!(message, "no reason");
    assert_eq!(poll(stream.as_mut()), Poll::Ready(None));
}

#[test]
fn no_signal_of_an_option_never_fires() {
    let script = "a".repeat(5000);
    let mut stream = Source::new(&script).take_until_cancelled(None::<CancellationToken>);
    let items = (0..5010).filter(|_| matches!(poll(pin!(&mut stream)), Poll::Ready(Some('a'))));
    assert_eq!(items.count(), 5000);
    assert!(stream.stop_reason().is_none());
}

#[test]
fn a_token_of_an_option_is_the_token_of_what_it_stops() {
    let token = CancellationToken::new();
    let signal = Some(&token).into_signal();
    assert_eq!(signal.as_token(), Some(&token));
    assert!(None::<CancellationToken>.into_signal().as_token().is_none());
}

/// A foreign signal that is polled by hand.
struct Fired(bool);

impl Signal for Fired {
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.0
    }

    fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        match self.0 {
            true => Poll::Ready("foreign".into()),
            false => Poll::Pending,
        }
    }

    fn check_every(mut self: Pin<&mut Self>, items: u32) -> u32 {
        self.0 = items == 3;
        3
    }
}

#[test]
fn a_foreign_signal_is_checked_as_often_as_it_requests() {
    let mut stream = Source::new("a-bcdef").take_until_cancelled(Fired(false));
    let items: Vec<_> = std::iter::repeat_with(|| poll(pin!(&mut stream)))
        .take(6)
        .collect();
    assert_eq!(
        items,
        [
            Poll::Ready(Some('a')),
            Poll::Pending,
            Poll::Ready(Some('b')),
            Poll::Ready(Some('c')),
            Poll::Ready(Some('d')),
            Poll::Ready(None),
        ]
    );
    assert_eq!(stream.stop_reason().unwrap().to_string(), "foreign");
}

#[test]
fn a_future_that_wakes_itself_while_the_source_is_pending_wakes_the_stream() {
    let mut polls = 0;
    let future = future::poll_fn(move |cx| {
        polls += 1;
        cx.waker().wake_by_ref();
        match polls {
            4 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    });
    let wakes = Wakes::new();
    let mut stream = stream::pending::<u8>().take_until_cancelled(signal::when(future));
    // Polled twice, before the source and after it; the second wake-up is the stream's.
    assert_eq!(wakes.poll(pin!(&mut stream)), Poll::Pending);
    assert_eq!(wakes.count(), 1);
    assert_eq!(wakes.poll(pin!(&mut stream)), Poll::Ready(None));
}

/// A signal made of functions.
struct Foreign {
    is_fired: fn() -> bool,
    poll_fired: fn() -> Poll<StopReason>,
    interval: fn() -> u32,
    checks: Rc<Cell<usize>>,
}

impl Foreign {
    fn new() -> Self {
        Self {
            is_fired: || false,
            poll_fired: || Poll::Pending,
            interval: || u32::MAX,
            checks: Rc::default(),
        }
    }
}

impl Signal for Foreign {
    fn is_fired(self: Pin<&mut Self>) -> bool {
        (self.is_fired)()
    }

    fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        (self.poll_fired)()
    }

    fn check_every(self: Pin<&mut Self>, _: u32) -> u32 {
        self.checks.set(self.checks.get() + 1);
        (self.interval)()
    }
}

#[test]
fn a_false_alarm_costs_no_item_and_no_fairness() {
    let mut signal = Foreign::new();
    signal.is_fired = || true;
    let mut stream = stream::repeat('a').take_until_cancelled(signal);
    for _ in 0..3 {
        for _ in 0..1024 {
            assert_eq!(poll(pin!(&mut stream)), Poll::Ready(Some('a')));
        }
        assert_eq!(poll(pin!(&mut stream)), Poll::Pending);
    }
}

#[test]
fn a_panic_of_a_signal_that_is_polled_after_a_pending_source_ends_the_stream() {
    let mut signal = Foreign::new();
    signal.poll_fired = || panic!("the signal says so");
    let source = Source::new("-a");
    let record = source.record();
    let mut stream = source.take_until_cancelled(signal);
    let message = crate::support::panic_of(|| poll(pin!(&mut stream)));
    assert_eq!(message, "the signal says so");
    assert_eq!(poll(pin!(&mut stream)), Poll::Ready(None));
    assert_eq!(record.polls(), 1);
    assert!(record.is_dropped());
}

#[test]
fn checks_are_made_as_often_as_requested_but_at_most_per_item_and_at_least_per_yield() {
    let cases: [(fn() -> u32, usize); 5] = [
        (|| 0, 1025),
        (|| 1, 1025),
        (|| 512, 3),
        (|| 1024, 2),
        (|| 65_536 + 1, 2),
    ];
    for (interval, expected) in cases {
        let mut signal = Foreign::new();
        signal.interval = interval;
        let checks = Rc::clone(&signal.checks);
        let mut stream = stream::repeat('a').take_until_cancelled(signal);
        // A run, its yield, and one more item.
        for _ in 0..1026 {
            let _ = poll(pin!(&mut stream));
        }
        assert_eq!(checks.get(), expected, "a check after {} items", interval());
    }
}

/// Fires one to three of a token `a`, a future `when` and a token `b`, in all orders. `make` makes a signal of the three,
/// which it checks in the order of `checked`.
fn check_any<G: IntoSignal>(
    checked: [&str; 3],
    make: impl Fn(&CancellationToken, oneshot::Receiver<()>, &CancellationToken) -> G,
) {
    for fired in 1..27 {
        // With repetitions, so that fewer of them are fired as well.
        let fired = [fired % 3, fired / 3 % 3, fired / 9].map(|which| ["a", "when", "b"][which]);
        for script in ["xxx", "---"] {
            let [a, b] = [CancellationToken::new(), CancellationToken::new()];
            let (stop, stopped) = oneshot::channel();
            let mut stop = Some(stop);
            let (earlier, latest) = (Wakes::new(), Wakes::new());
            let stop_signal = make(&a, stopped, &b);
            let source = Source::new(script).by_hand();
            let mut stream = pin!(source.take_until_cancelled(stop_signal));
            for wakes in [&earlier, &latest] {
                assert_ne!(wakes.poll(stream.as_mut()), Poll::Ready(None));
            }
            for which in fired {
                match which {
                    "a" => drop(a.cancel_with("a")),
                    "b" => drop(b.cancel_with("b")),
                    _ => drop(stop.take()),
                }
                assert_eq!(latest.count() > 0, script == "---", "{checked:?} {fired:?}");
            }
            assert_eq!(earlier.count(), 0, "{checked:?} {fired:?}");
            assert_eq!(latest.poll(stream.as_mut()), Poll::Ready(None));
            let first = checked.into_iter().find(|which| fired.contains(which));
            let reason = stream.stop_reason().unwrap().to_string();
            let reason = reason.replace("cancelled", "when");
            assert_eq!(Some(reason.as_str()), first, "{checked:?} {fired:?}");
        }
    }
}

#[test]
fn the_first_one_of_any_that_has_fired_stops_for_its_reason_and_each_wakes_the_latest_waker() {
    use signal::{any, never, when};

    check_any(["a", "when", "b"], |a, w, b| any(a, any(when(w), b)));
    check_any(["a", "when", "b"], |a, w, b| any(any(a, when(w)), b));
    check_any(["when", "b", "a"], |a, w, b| any(any(when(w), b), a));
    check_any(["b", "a", "when"], |a, w, b| any(b, any(a, when(w))));
    check_any(["b", "when", "a"], |a, w, b| {
        any(any(never(), b), any(any(when(w), never()), a))
    });
}

#[test]
fn any_of_two_is_checked_as_often_as_either_of_them_requests() {
    for wants in [[512, u32::MAX], [u32::MAX, 512]] {
        let signals = wants.map(|wants| {
            let mut signal = Foreign::new();
            if wants == 512 {
                signal.interval = || 512;
            }
            signal
        });
        let checks = signals.each_ref().map(|signal| Rc::clone(&signal.checks));
        let [a, b] = signals;
        let never = signal::never();
        let nested = signal::any(signal::any(never, a), b);
        let mut stream = stream::repeat('a').take_until_cancelled(nested);
        // A run, its yield, and one more item.
        for _ in 0..1026 {
            let _ = poll(pin!(&mut stream));
        }
        for (wants, checks) in wants.into_iter().zip(checks) {
            assert!(wants > 512 || checks.get() == 3);
        }
    }
}

#[cfg(feature = "tokio")]
mod deadlines {
    use super::Counted;
    use crate::{support::poll, with_deadline::tick};
    use futures::stream;
    use std::{cell::Cell, pin::pin, rc::Rc, task::Poll, time::Duration};
    use stopcock::{
        CancelStreamExt, CancellationToken, IntoSignal,
        signal::{any, never, when},
    };
    use tokio::time::Instant;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// How late a stream with this time for each item is stopped at the deadline of a token of 20 ms.
    fn lateness<G: IntoSignal>(
        pace: Duration,
        make: impl FnOnce(CancellationToken) -> G,
    ) -> Duration {
        let deadline = Instant::now() + 20 * MILLISECOND;
        let signal = make(CancellationToken::with_deadline(deadline));
        let source = stream::repeat_with(|| tick(pace));
        let mut stream = pin!(source.take_until_cancelled(signal));
        while poll(stream.as_mut()) != Poll::Ready(None) {
            assert!(Instant::now() < deadline + 1000 * MILLISECOND, "never");
        }
        assert_eq!(
            stream.stop_reason().unwrap().to_string(),
            "deadline exceeded"
        );
        Instant::now() - deadline
    }

    /// D6.
    #[tokio::test(start_paused = true)]
    async fn a_token_with_a_deadline_is_at_most_a_millisecond_late_wherever_in_any() {
        for nanoseconds in [7_777, 33_333, 500_000, 999_999] {
            let pace = Duration::from_nanos(nanoseconds);
            let other = CancellationToken::new;
            for late in [
                lateness(pace, |token| any(token, never())),
                lateness(pace, |token| any(never(), token)),
                lateness(pace, |token| any(any(other(), token), never())),
                lateness(pace, |token| any(when(std::future::pending::<()>()), token)),
                lateness(pace, |token| {
                    any(CancellationToken::with_timeout(100 * MILLISECOND), token)
                }),
            ] {
                assert!(late <= MILLISECOND, "{late:?} at {pace:?} an item");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_beside_a_token_with_a_deadline_is_not_polled_at_each_reading_of_the_clock() {
        let polls = Rc::new(Cell::new(0));
        let future = Counted {
            polls: Rc::clone(&polls),
            wake: |_| false,
        };
        let token = CancellationToken::with_timeout(MILLISECOND);
        let source = stream::repeat(());
        let mut stream = source.take_until_cancelled(any(when(future), token));
        for _ in 0..1024 {
            assert_eq!(poll(pin!(&mut stream)), Poll::Ready(Some(())));
            assert_eq!(polls.get(), 1);
        }
        // The yield, and the first poll after it.
        assert_eq!(poll(pin!(&mut stream)), Poll::Pending);
        assert_eq!(poll(pin!(&mut stream)), Poll::Ready(Some(())));
        assert_eq!(polls.get(), 2);
    }
}

/// Counts the items that are reported to it.
struct Noted(Arc<AtomicUsize>);

impl Signal for Noted {
    fn is_fired(self: Pin<&mut Self>) -> bool {
        false
    }

    fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        Poll::Pending
    }

    fn note_item(self: Pin<&mut Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn each_signal_of_a_stream_is_notified_of_its_items() {
    let counts: [Arc<AtomicUsize>; 3] = Default::default();
    let [a, b, c] = counts.each_ref().map(|count| Noted(Arc::clone(count)));
    let mut stream = Source::new("ab-c").take_until_cancelled(signal::any(signal::any(a, b), c));
    for _ in 0..4 {
        let _ = poll(pin!(&mut stream));
    }
    assert_eq!(counts.map(|count| count.load(SeqCst)), [3, 3, 3]);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_signal_whose_stream_drains_is_notified_of_its_items() {
    let count = Arc::new(AtomicUsize::new(0));
    let signal = Noted(Arc::clone(&count));
    let drains = std::time::Duration::from_secs(1);
    let stream = Source::new("ab-c|")
        .take_until_cancelled(signal)
        .drain_for(drains);
    assert_eq!(futures::StreamExt::count(stream).await, 3);
    assert_eq!(count.load(SeqCst), 3);
}

mod tokio_util {
    use futures::{StreamExt, executor::block_on, stream};
    use stopcock::{CancelStreamExt, CancellationToken, StopReason, signal};
    use tokio_util::sync::CancellationToken as TokioToken;

    #[test]
    fn its_token_is_a_signal_by_value_and_by_reference() {
        let token = TokioToken::new();
        let mut by_reference = stream::repeat('a').take_until_cancelled(&token);
        let mut by_value = stream::repeat('a').with_cancellation(token.clone());
        assert_eq!(block_on(by_reference.next()), Some('a'));
        assert!(block_on(by_value.next()).unwrap().is_ok());
        token.cancel();
        assert_eq!(block_on(by_reference.next()), None);
        assert!(block_on(by_value.next()).unwrap().is_err());
        assert!(matches!(
            by_value.stop_reason(),
            Some(StopReason::Cancelled)
        ));
    }

    #[test]
    fn beside_ours_the_first_one_counts() {
        let (theirs, ours) = (TokioToken::new(), CancellationToken::new());
        let mut stream = stream::repeat('a').take_until_cancelled(signal::any(&theirs, &ours));
        assert_eq!(block_on(stream.next()), Some('a'));
        theirs.cancel();
        ours.cancel_with("too late");
        assert_eq!(block_on(stream.next()), None);
        assert!(matches!(stream.stop_reason(), Some(StopReason::Cancelled)));
    }
}
