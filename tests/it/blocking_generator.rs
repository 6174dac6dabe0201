//! `blocking_generator`: a body that blocks, on a thread of its own.

use crate::support::{Wakes, is_without_threads, panic_of, poll};
use futures::{StreamExt, executor::block_on, stream::FusedStream};
use std::{
    cell::RefCell,
    future::pending,
    io::{self, BufRead, Cursor},
    panic::catch_unwind,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    thread,
};
use stopcock::{
    BlockingSender, CancellationToken, Signal, StopReason, blocking_generator, blocking_iter,
    signal, testing::DropProbe, try_blocking_generator,
};
#[cfg(feature = "tokio")]
use {std::future::Future, stopcock::BlockingGenerator};

/// Reports when its thread ends: thread-locals are dropped last.
struct ThreadEnd(mpsc::Sender<()>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

thread_local! {
    static THREAD_END: RefCell<Option<ThreadEnd>> = const { RefCell::new(None) };
}

/// To be called on the thread.
fn report_end(ended: mpsc::Sender<()>) {
    THREAD_END.with_borrow_mut(|end| *end = Some(ThreadEnd(ended)));
}

#[test]
fn items_come_in_order_and_then_the_end() {
    let mut stream = blocking_iter(CancellationToken::new(), 2, 0..5);
    assert_eq!(
        block_on(stream.by_ref().collect::<Vec<_>>()),
        [0, 1, 2, 3, 4]
    );
    assert!(stream.is_terminated());
    assert!(stream.stop_reason().is_none());
    assert_eq!(block_on(stream.next()), None);
    assert!(block_on(stream.join()).is_ok());
}

#[test]
fn it_runs_on_a_thread_that_has_a_name() {
    let name = blocking_generator(CancellationToken::new(), 1, |tx| {
        tx.send(thread::current().name().map(str::to_owned))
    });
    let names: Vec<_> = block_on(name.collect());
    assert_eq!(names, [Some("stopcock".to_owned())]);
}

#[test]
fn it_is_never_more_than_its_capacity_ahead() {
    let (sent, has_sent) = mpsc::channel();
    let mut stream = blocking_generator(CancellationToken::new(), 2, move |tx| {
        for n in 0.. {
            tx.send(n)?;
            sent.send(n).unwrap();
        }
        Ok(())
    });
    assert_eq!([has_sent.recv(), has_sent.recv()], [Ok(0), Ok(1)]);
    for n in 0..10 {
        assert_eq!(has_sent.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(block_on(stream.next()), Some(n));
        assert_eq!(has_sent.recv(), Ok(n + 2));
    }
}

#[test]
fn a_waiting_send_fails_at_the_stop_and_the_thread_ends() {
    let token = CancellationToken::new();
    let (ended, has_ended) = mpsc::channel();
    let (reported, reason) = mpsc::channel();
    let stream = blocking_generator(&token, 1, move |tx| {
        report_end(ended);
        tx.send(1)?;
        reported.send(Ok(())).unwrap();
        let stopped = tx.send(2);
        reported.send(stopped.clone()).unwrap();
        stopped
    });
    assert!(reason.recv().unwrap().is_ok());
    token.cancel_with("enough");
    // The stream is neither polled nor dropped.
    assert_eq!(reason.recv().unwrap().unwrap_err().to_string(), "enough");
    has_ended.recv().unwrap();
    assert_eq!(block_on(stream.join()).unwrap_err().to_string(), "enough");
}

#[test]
fn when_the_consumer_is_dropped_the_next_send_fails_and_the_thread_ends() {
    let (ended, has_ended) = mpsc::channel();
    let (reported, reason) = mpsc::channel();
    let stream = blocking_generator(CancellationToken::new(), 1, move |tx| {
        report_end(ended);
        let stopped = (0..).try_for_each(|n| tx.send(n));
        reported.send(stopped.clone()).unwrap();
        stopped
    });
    drop(stream);
    assert!(matches!(
        reason.recv().unwrap(),
        Err(StopReason::ConsumerDropped)
    ));
    has_ended.recv().unwrap();
}

#[test]
fn a_loop_that_does_not_send_may_check() {
    let token = CancellationToken::new();
    let (turned, turns) = mpsc::sync_channel(0);
    let mut stream = blocking_generator(&token, 1, move |tx: BlockingSender<u8>| {
        loop {
            tx.check()?;
            // Fails once the receiver has been dropped.
            let _ = turned.send(());
        }
    });
    turns.recv().unwrap();
    token.cancel();
    drop(turns);
    assert_eq!(block_on(stream.next()), None);
    assert!(block_on(stream.join()).is_err());
}

#[test]
fn items_in_the_channel_at_the_stop_are_not_delivered() {
    let token = CancellationToken::new();
    let (sent, has_sent) = mpsc::channel();
    let mut stream = blocking_generator(&token, 2, move |tx| {
        tx.send(1)?;
        tx.send(2)?;
        sent.send(()).unwrap();
        tx.send(3)
    });
    has_sent.recv().unwrap();
    token.cancel();
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert!(stream.stop_reason().is_some());
}

#[test]
fn a_pending_stream_is_woken_by_items_the_end_and_the_stop() {
    let token = CancellationToken::new();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let mut stream = blocking_generator(&token, 1, move |tx| {
        may_go_on.recv().unwrap();
        tx.send(1)?;
        done.send(()).unwrap();
        may_go_on.recv().unwrap();
        Ok(())
    });
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    go_on.send(()).unwrap();
    is_done.recv().unwrap();
    assert_eq!(wakes.count(), 1);
    assert_eq!(wakes.poll(Pin::new(&mut stream)), Poll::Ready(Some(1)));
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    token.cancel();
    assert_eq!(wakes.count(), 2);
    assert_eq!(wakes.poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert_eq!(Arc::strong_count(&wakes), 1);
    go_on.send(()).unwrap();
}

#[test]
fn a_stopped_stream_that_is_not_polled_keeps_no_waker_and_the_body_continues() {
    let token = CancellationToken::new();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let mut stream = blocking_generator(&token, 1, move |tx: BlockingSender<u8>| {
        may_go_on.recv().unwrap();
        tx.check()
    });
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    assert!(Arc::strong_count(&wakes) > 1);
    token.cancel();
    assert_eq!(Arc::strong_count(&wakes), 1);
    assert_eq!(wakes.count(), 1);
    go_on.send(()).unwrap();
}

#[test]
fn a_panic_comes_after_the_items_before_it_and_once() {
    let mut stream = blocking_generator(CancellationToken::new(), 4, |tx| {
        tx.send(1)?;
        panic!("in the body");
    });
    assert_eq!(block_on(stream.next()), Some(1));
    assert_eq!(panic_of(|| block_on(stream.next())), "in the body");
    assert_eq!(block_on(stream.next()), None);
    assert!(block_on(stream.join()).is_ok());
}

#[test]
fn the_error_of_a_body_that_may_fail_is_the_last_item() {
    let text = Cursor::new(b"one\ntwo\n\xff\n".to_vec());
    let mut lines = try_blocking_generator(CancellationToken::new(), 1, move |tx| {
        for line in text.lines() {
            tx.send(line?)?;
        }
        Ok::<_, io::Error>(())
    });
    assert_eq!(block_on(lines.next()).unwrap().unwrap(), "one");
    assert_eq!(block_on(lines.next()).unwrap().unwrap(), "two");
    let error = block_on(lines.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(block_on(lines.next()).is_none());
    assert!(lines.stop_reason().is_none());
}

#[test]
fn a_body_that_is_stopped_before_the_call_never_begins() {
    let token = CancellationToken::new();
    token.cancel();
    let mut stream = blocking_generator(&token, 1, |_: BlockingSender<u8>| unreachable!());
    assert_eq!(block_on(stream.next()), None);
    assert!(stream.stop_reason().is_some());
    // It would report a panic.
    assert!(block_on(stream.join()).is_err());
}

#[test]
fn clones_send_from_other_threads_until_the_body_ends() {
    let (handed_out, hand_out) = mpsc::channel();
    let mut stream = blocking_generator(CancellationToken::new(), 64, move |tx| {
        thread::scope(|threads| {
            for n in 0..4 {
                let tx = tx.clone();
                threads.spawn(move || (0..8).try_for_each(|m| tx.send(8 * n + m)));
            }
        });
        handed_out.send(tx.clone()).unwrap();
        Ok(())
    });
    let mut items: Vec<u32> = block_on(stream.by_ref().collect());
    items.sort_unstable();
    assert_eq!(items, (0..32).collect::<Vec<_>>());
    let tx = hand_out.recv().unwrap();
    assert!(matches!(tx.send(1), Err(StopReason::Cancelled)));
    assert!(tx.token().is_cancelled());
}

#[test]
fn it_counts_until_the_body_is_dropped() {
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let stream = blocking_generator(&token, 1, move |_: BlockingSender<u8>| {
        let _probe = probe;
        may_go_on.recv().unwrap();
        Ok(())
    });
    let mut settled = token.cancel_and_settle();
    let mut is_settled = || {
        let mut settled = Pin::new(&mut settled);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        settled.as_mut().poll(&mut cx).is_ready()
    };
    assert!(!is_settled());
    go_on.send(()).unwrap();
    block_on(settled);
    assert!(record.is_dropped());
    drop(stream);
}

#[test]
fn a_capacity_of_zero_panics() {
    let message = panic_of(|| blocking_iter(CancellationToken::new(), 0, 0..3));
    assert!(message.contains("capacity of 0"), "{message}");
}

/// A signal that fires when its flag is set, and wakes only the wakers that it has registered.
#[derive(Default)]
struct Flag {
    /// Set in the first poll, which wakes the task and keeps no waker.
    is_set: bool,
}

impl Signal for Flag {
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.is_set
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        if std::mem::replace(&mut self.is_set, true) {
            return Poll::Ready("set".into());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[test]
fn a_signal_that_never_fires_or_has_fired_needs_no_runtime() {
    let items = blocking_iter(signal::never(), 1, 0..3);
    assert_eq!(block_on(items.collect::<Vec<_>>()), [0, 1, 2]);
    let items = blocking_iter(signal::any(signal::never(), signal::never()), 1, 0..3);
    assert_eq!(block_on(items.collect::<Vec<_>>()), [0, 1, 2]);
    let items = blocking_iter(signal::when(async {}), 1, 0..3);
    assert_eq!(block_on(items.collect::<Vec<_>>()), []);
}

/// The panic message for a signal that needs a task.
const WHAT_TO_DO: &str = if cfg!(feature = "tokio") {
    "`Handle::enter`"
} else {
    "enable the feature `tokio`"
};

#[test]
fn a_foreign_signal_needs_a_runtime() {
    for reported in [
        panic_of(|| blocking_iter(signal::when(pending::<()>()), 1, 0..3)),
        panic_of(|| blocking_iter(Flag::default(), 1, 0..3)),
        panic_of(|| {
            let token = CancellationToken::new();
            blocking_iter(signal::any(&token, signal::never()), 1, 0..3)
        }),
    ] {
        assert!(reported.contains(WHAT_TO_DO), "{reported}");
        assert!(reported.contains("`CancellationToken`"), "{reported}");
    }
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_signal_that_wakes_the_first_waker_and_keeps_none_is_watched() {
    let (reported, reason) = tokio::sync::oneshot::channel();
    let stream = blocking_generator(Flag::default(), 1, |tx| {
        let stopped = (0..).try_for_each(|n| tx.send(n));
        reported.send(stopped.clone()).unwrap();
        stopped
    });
    assert_eq!(reason.await.unwrap().unwrap_err().to_string(), "set");
    drop(stream);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_signal_that_is_a_future_stops_it_without_a_poll() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (reported, reason) = tokio::sync::oneshot::channel();
    let stream = blocking_generator(signal::when(stopped), 1, |tx| {
        let stopped = (0..).try_for_each(|n| tx.send(n));
        reported.send(stopped.clone()).unwrap();
        stopped
    });
    stop.send(()).unwrap();
    assert!(reason.await.unwrap().is_err());
    drop(stream);
}

#[cfg(feature = "tokio")]
#[test]
fn a_waiting_send_fails_at_a_deadline_although_its_runtime_runs_no_task() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let token = {
        let _context = runtime.enter();
        CancellationToken::with_timeout(std::time::Duration::from_secs(1))
    };
    let (sent, has_sent) = mpsc::channel();
    let (reported, reason) = mpsc::channel();
    let _stream = blocking_generator(&token, 1, move |tx| {
        tx.send(1)?;
        sent.send(()).unwrap();
        let stopped = tx.send(2);
        reported.send(stopped.clone()).unwrap();
        stopped
    });
    has_sent.recv().unwrap();
    // It is about to wait, and then waits.
    (0..10_000).for_each(|_| thread::yield_now());
    // Ready when the timer fires, before a task that it spawns runs.
    runtime.block_on(token.cancelled());
    assert!(matches!(
        reason.recv().unwrap(),
        Err(StopReason::DeadlineExceeded)
    ));
}

/// A producer whose signal is watched by a task of this runtime, and the error of its waiting `send`.
#[cfg(feature = "tokio")]
fn watched_on<Fut>(
    runtime: &tokio::runtime::Runtime,
    signal: Fut,
) -> (BlockingGenerator<u32>, mpsc::Receiver<StopReason>)
where
    Fut: Future<Output: Send> + Send + 'static,
{
    let (sent, has_sent) = mpsc::channel();
    let (reported, reason) = mpsc::channel();
    let stream = runtime.block_on(async {
        blocking_generator(signal::when(signal), 1, move |tx| {
            tx.send(1)?;
            sent.send(()).unwrap();
            // Once the consumer has taken an item, another one can be sent.
            let reason = loop {
                if let Err(reason) = tx.send(2) {
                    break reason;
                }
            };
            reported.send(reason.clone()).unwrap();
            Err(reason)
        })
    });
    has_sent.recv().unwrap();
    (stream, reason)
}

#[cfg(feature = "tokio")]
#[test]
fn when_the_runtime_that_watches_the_signal_is_dropped_it_is_stopped() {
    for is_polled in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (mut stream, reason) = watched_on(&runtime, pending::<()>());
        if is_polled {
            // By then the task has been polled as well.
            assert_eq!(runtime.block_on(stream.next()), Some(1));
        }
        drop(runtime);
        assert!(matches!(reason.recv().unwrap(), StopReason::Cancelled));
        // The item that is in the channel is not delivered.
        assert_eq!(block_on(stream.next()), None);
        assert!(matches!(stream.stop_reason(), Some(StopReason::Cancelled)));
        assert!(matches!(
            block_on(stream.join()),
            Err(StopReason::Cancelled)
        ));
    }
}

#[cfg(feature = "tokio")]
#[test]
fn under_a_runtime_that_has_shut_down_it_never_begins() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _context = handle.enter();
    let signal = signal::when(pending::<()>());
    let mut stream = blocking_generator(signal, 1, |_: BlockingSender<u8>| unreachable!());
    assert_eq!(block_on(stream.next()), None);
    assert!(matches!(stream.stop_reason(), Some(StopReason::Cancelled)));
}

#[cfg(feature = "tokio")]
#[test]
fn a_signal_that_panics_stops_it() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (panics, may_panic) = tokio::sync::oneshot::channel::<()>();
    let (stream, reason) = watched_on(&runtime, async {
        may_panic.await.unwrap();
        panic!("in the signal");
    });
    panics.send(()).unwrap();
    runtime.block_on(async {
        while reason.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    });
    assert!(matches!(
        block_on(stream.join()),
        Err(StopReason::Cancelled)
    ));
}

/// The error of a system that cannot start a thread.
fn is_no_thread(reason: &StopReason) -> bool {
    reason.downcast_ref::<io::Error>().is_some()
}

#[test]
#[cfg_attr(miri, ignore = "it starts a process")]
fn the_lack_of_threads_is_reported_as_its_stop() {
    if !is_without_threads("blocking_generator::the_lack_of_threads_is_reported_as_its_stop") {
        return;
    }
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let mut stream = blocking_generator(&token, 1, move |tx| {
        let _probe = probe;
        tx.send(1)
    });
    assert!(record.is_dropped());
    assert_eq!(block_on(stream.next()), None);
    assert!(is_no_thread(stream.stop_reason().unwrap()));
    assert!(is_no_thread(&block_on(stream.join()).unwrap_err()));

    let mut stream = try_blocking_generator(&token, 1, |tx| {
        tx.send(1)?;
        Ok::<_, StopReason>(())
    });
    assert!(is_no_thread(&block_on(stream.next()).unwrap().unwrap_err()));
    assert!(block_on(stream.next()).is_none());

    let mut stream = blocking_iter(&token, 1, 0..3);
    assert_eq!(block_on(stream.next()), None);
    assert!(is_no_thread(stream.stop_reason().unwrap()));
    drop(stream);
    token.cancel();
    block_on(token.settled());
}

/// Sends when its thread ends, after the thread-local of sends has been dropped.
struct SendsAtTheEnd(BlockingSender<u32>);

impl Drop for SendsAtTheEnd {
    fn drop(&mut self) {
        // The first one is sent at once, the second one has to wait.
        for n in [2, 3] {
            self.0.send(n).unwrap();
        }
    }
}

thread_local! {
    static SENDS_AT_THE_END: RefCell<Option<SendsAtTheEnd>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_may_send_while_its_locals_are_dropped() {
    let mut stream = blocking_generator(CancellationToken::new(), 1, |tx| {
        let other = tx.clone();
        let thread = thread::spawn(move || {
            // Thread-locals are dropped in the reverse order of their first use.
            SENDS_AT_THE_END.with_borrow_mut(|end| *end = Some(SendsAtTheEnd(other.clone())));
            other.send(0).unwrap();
            other.send(1).unwrap();
        });
        thread.join().unwrap();
        Ok(())
    });
    assert_eq!(block_on(stream.by_ref().collect::<Vec<_>>()), [0, 1, 2, 3]);
    assert!(block_on(stream.join()).is_ok());
}

#[test]
fn many_that_are_abandoned_leave_no_thread_and_no_item_behind() {
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 300 };
    let items = Arc::new(());
    let bodies = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let (item, body) = (Arc::clone(&items), Arc::clone(&bodies));
        let token = CancellationToken::new();
        let mut stream = blocking_generator(&token, 1 + round % 3, move |tx| {
            body.fetch_add(1, SeqCst);
            let stopped = catch_unwind(std::panic::AssertUnwindSafe(|| {
                std::iter::repeat_with(|| Arc::clone(&item)).try_for_each(|item| tx.send(item))
            }));
            body.fetch_sub(1, SeqCst);
            stopped.unwrap()
        });
        for _ in 0..round % 5 {
            assert!(block_on(stream.next()).is_some());
        }
        if round % 2 == 0 {
            token.cancel();
        }
        assert!(block_on(stream.join()).is_err());
        assert_eq!(bodies.load(SeqCst), 0);
        assert_eq!(Arc::strong_count(&items), 1);
    }
}
