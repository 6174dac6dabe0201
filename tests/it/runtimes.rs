//! Where foreign code runs, and how tokens behave whose runtime has shut down.

use crate::support::{Wakes, poll};
use futures::{FutureExt, Stream, StreamExt, stream};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};
use stopcock::{CancelStreamExt, CancelTryStreamExt, CancellationToken, StopReason};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{self, block_in_place, yield_now},
    time::{Instant, advance, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// Is always pending, and runs `f` when it is dropped.
struct AtDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce() + Send + Unpin> AtDrop<F> {
    fn new(f: F) -> Self {
        Self(Some(f))
    }
}

impl<F: FnOnce() + Unpin> Stream for AtDrop<F> {
    type Item = std::io::Result<u8>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

impl<F: FnOnce()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

fn paused_runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// The ids of the tasks that ran, in order: `None` outside a task.
type Log = Arc<Mutex<Vec<(&'static str, Option<task::Id>)>>>;

fn log(log: &Log, what: &'static str) -> impl FnOnce() + Send + Unpin + use<> {
    let log = Arc::clone(log);
    move || log.lock().unwrap().push((what, task::try_id()))
}

fn logged(log: &Log) -> Vec<&'static str> {
    log.lock().unwrap().iter().map(|(what, _)| *what).collect()
}

fn are_in_tasks(log: &Log) -> bool {
    log.lock().unwrap().iter().all(|(_, id)| id.is_some())
}

#[tokio::test(start_paused = true)]
async fn at_a_deadline_callbacks_run_in_turn_on_a_task() {
    let done = Log::default();
    let token = CancellationToken::with_timeout(SECOND);
    let (first, second) = (log(&done, "first"), log(&done, "second"));
    let below = log(&done, "below");
    token.on_cancel(move |_| first()).detach();
    let child = token.child_token();
    let _below = child.on_cancel(move |reason| {
        assert!(matches!(reason, StopReason::DeadlineExceeded));
        below();
    });
    token.on_cancel(move |_| second()).detach();
    sleep(2 * SECOND).await;
    assert_eq!(logged(&done), ["first", "below", "second"]);
    assert!(are_in_tasks(&done));
}

#[tokio::test(start_paused = true)]
async fn at_a_deadline_a_source_is_dropped_on_a_task() {
    let done = Log::default();
    let token = CancellationToken::with_timeout(SECOND);
    let source = || AtDrop::new(log(&done, "dropped"));
    let child = || token.child_token();
    let _silent = source().take_until_cancelled(child()).drop_on_cancel();
    let _with_an_error = source().with_cancellation(child()).drop_on_cancel();
    let _among_errors = source().try_with_cancellation(child()).drop_on_cancel();
    sleep(2 * SECOND).await;
    assert_eq!(logged(&done), ["dropped"; 3]);
    assert!(are_in_tasks(&done));
}

#[tokio::test(start_paused = true)]
async fn at_a_deadline_without_callbacks_no_task_is_made() {
    let token = CancellationToken::with_timeout(SECOND);
    let mut waits = stream::pending::<()>().take_until_cancelled(&token);
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut waits)).is_pending());
    advance(SECOND).await;
    assert_eq!(wakes.count(), 1);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_a_deadlines_callbacks_wait_for_their_task_all_of_the_subtree_is_cancelled_and_woken()
{
    let done = Log::default();
    let token = CancellationToken::with_timeout(SECOND);
    let child = token.child_token();
    let seen = child.clone();
    let ran = log(&done, "ran");
    token
        .on_cancel(move |_| {
            assert!(seen.is_cancelled());
            ran();
        })
        .detach();
    child.cancelled().await;
    assert_eq!(logged(&done).len(), 0, "the task has yet to run");
    assert!(token.is_cancelled());
    yield_now().await;
    assert_eq!(logged(&done), ["ran"]);
}

#[tokio::test(start_paused = true)]
async fn settled_waits_at_a_deadline_for_the_sources_and_not_for_callbacks() {
    let token = CancellationToken::with_timeout(SECOND);
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let other = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let source = AtDrop::new(move || may_go_on.recv().unwrap());
    let _stream = {
        let _context = other.enter();
        source.take_until_cancelled(&token).drop_on_cancel()
    };
    let has_run = Arc::new(AtomicUsize::new(0));
    let runs = Arc::clone(&has_run);
    token
        .on_cancel(move |_| {
            runs.fetch_add(1, SeqCst);
        })
        .detach();
    let wakes = Wakes::new();
    let mut settled = pin!(stream::once(token.settled()));
    assert!(wakes.poll(settled.as_mut()).is_pending());
    advance(SECOND).await;
    yield_now().await;
    assert_eq!(has_run.load(SeqCst), 1);
    assert!(wakes.poll(settled.as_mut()).is_pending());
    go_on.send(()).unwrap();
    settled.next().await.unwrap();
    other.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_callback_at_a_deadline_is_the_tasks_and_affects_no_other() {
    let done = Log::default();
    let token = CancellationToken::with_timeout(SECOND);
    let ran = log(&done, "ran");
    token.on_cancel(|_| panic!("in a callback")).detach();
    token.on_cancel(move |_| ran()).detach();
    let hurts = AtDrop::new(|| panic!("in a drop"));
    let source = AtDrop::new(log(&done, "dropped"));
    let _hurts = hurts.take_until_cancelled(&token).drop_on_cancel();
    let _stream = source.take_until_cancelled(&token).drop_on_cancel();
    sleep(2 * SECOND).await;
    assert_eq!(logged(&done), ["ran", "dropped"]);
    token.settled().await;
}

#[test]
fn a_runtime_that_drops_the_task_runs_the_callbacks_as_it_does() {
    let done = Log::default();
    let runtime = paused_runtime();
    let token = runtime.block_on(async {
        let token = CancellationToken::with_timeout(SECOND);
        let ran = log(&done, "ran");
        token.on_cancel(move |_| ran()).detach();
        let source = AtDrop::new(log(&done, "dropped"));
        let stream = source.take_until_cancelled(&token).drop_on_cancel();
        // The future of `block_on` is polled before the tasks.
        token.cancelled().await;
        assert_eq!(logged(&done).len(), 0, "the task has yet to run");
        (token, stream)
    });
    drop(runtime);
    assert_eq!(logged(&done), ["ran", "dropped"]);
    assert!(token.0.is_cancelled());
}

/// An asynchronous cleanup in a `Drop`.
fn say_goodbye() {
    block_in_place(|| Handle::current().block_on(sleep(Duration::from_millis(1))));
}

/// A multi-thread runtime, whose timers and tasks may do anything that a task may do.
#[test]
fn a_drop_and_a_callback_at_a_deadline_may_block_in_place() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (done, is_done) = mpsc::channel();
    let spawned = runtime.spawn(async move {
        let token = CancellationToken::with_timeout(Duration::from_millis(1));
        let dropped = done.clone();
        let source = AtDrop::new(move || {
            say_goodbye();
            dropped.send("dropped").unwrap();
        });
        token
            .on_cancel(move |_| {
                say_goodbye();
                done.send("ran").unwrap();
            })
            .detach();
        let _unpolled = source.take_until_cancelled(&token).drop_on_cancel();
        token.settled().await;
    });
    runtime.block_on(spawned).unwrap();
    let mut both = [is_done.recv().unwrap(), is_done.recv().unwrap()];
    both.sort_unstable();
    assert_eq!(both, ["dropped", "ran"]);
}

#[test]
fn at_a_deadline_a_source_is_dropped_in_the_runtime_of_its_stream_and_a_callback_runs_in_the_tokens()
 {
    let (tokens, streams) = (paused_runtime(), paused_runtime());
    let (of_token, of_stream) = (Log::default(), Log::default());
    let token = tokens.block_on(async { CancellationToken::with_timeout(SECOND) });
    let _stream = streams.block_on(async {
        let source = AtDrop::new(log(&of_stream, "dropped"));
        source.take_until_cancelled(&token).drop_on_cancel()
    });
    let ran = log(&of_token, "ran");
    token.on_cancel(move |_| ran()).detach();
    tokens.block_on(async { sleep(2 * SECOND).await });
    assert_eq!(logged(&of_token), ["ran"]);
    assert_eq!(logged(&of_stream).len(), 0, "its runtime has not run");
    streams.block_on(yield_now());
    assert_eq!(logged(&of_stream), ["dropped"]);
    assert!(are_in_tasks(&of_token) && are_in_tasks(&of_stream));
}

#[test]
fn at_a_deadline_a_source_whose_runtime_has_ended_is_dropped_on_a_task_of_the_deadlines() {
    let (tokens, streams) = (paused_runtime(), paused_runtime());
    let done = Log::default();
    let token = tokens.block_on(async { CancellationToken::with_timeout(SECOND) });
    let stream = || {
        let source = AtDrop::new(log(&done, "dropped"));
        source.take_until_cancelled(&token).drop_on_cancel()
    };
    let _gone = streams.block_on(async { stream() });
    let _never = stream();
    drop(streams);
    tokens.block_on(async { sleep(2 * SECOND).await });
    assert_eq!(logged(&done), ["dropped"; 2]);
    assert!(are_in_tasks(&done));
}

/// Like a pooled connection, which a task returns to its pool.
#[test]
fn a_source_that_spawns_as_it_is_dropped_finds_its_runtime_whatever_cancels() {
    let runtime = paused_runtime();
    let is_back = Arc::new(AtomicUsize::new(0));
    let token = CancellationToken::new();
    let back = Arc::clone(&is_back);
    let mut stream = runtime.block_on(async {
        let source = AtDrop::new(move || {
            tokio::spawn(async move { back.fetch_add(1, SeqCst) });
        });
        source.take_until_cancelled(&token).drop_on_cancel()
    });
    thread::spawn(move || token.cancel()).join().unwrap();
    runtime.block_on(yield_now());
    assert_eq!(is_back.load(SeqCst), 1);
    assert!(poll(Pin::new(&mut stream)).is_ready());
}

#[test]
fn a_source_that_was_made_outside_of_a_runtime_is_dropped_wherever_the_cancel_is() {
    let token = CancellationToken::new();
    let is_outside = AtDrop::new(|| assert!(Handle::try_current().is_err()));
    let _stream = is_outside.take_until_cancelled(&token).drop_on_cancel();
    token.cancel();

    let runtime = paused_runtime();
    let token = CancellationToken::new();
    let is_inside = AtDrop::new(|| assert!(Handle::try_current().is_ok()));
    let _stream = is_inside.take_until_cancelled(&token).drop_on_cancel();
    runtime.block_on(async { token.cancel() });
}

#[test]
fn the_thread_that_drops_the_last_handle_after_a_deadline_runs_the_callbacks() {
    let runtime = paused_runtime();
    let done = Log::default();
    let done = runtime.block_on(async {
        let token = CancellationToken::with_timeout(SECOND);
        let ran = log(&done, "ran");
        token.on_cancel(move |_| ran()).detach();
        // No timer can fire during this.
        let begin = Instant::now();
        advance_by(SECOND);
        assert_eq!(begin.elapsed(), SECOND);
        drop(token);
        logged(&done)
    });
    assert_eq!(done, ["ran"]);
}

/// Advances the paused clock without firing timers.
fn advance_by(by: Duration) {
    let mut advanced = pin!(advance(by));
    let _ = advanced.as_mut().now_or_never();
}

#[test]
fn nothing_of_a_deadline_that_went_wrong_comes_out_of_the_runtime() {
    let runtime = paused_runtime();
    let token = runtime.block_on(async {
        let token = CancellationToken::with_timeout(SECOND);
        token.on_cancel(|_| panic!("in a callback")).detach();
        token.cancelled().await;
        token
    });
    assert!(catch_unwind(AssertUnwindSafe(|| drop(runtime))).is_ok());
    assert!(token.is_cancelled());
}

/// Drops its content when it is woken, during the wake-up.
struct DropAtWake(Mutex<Option<Box<dyn Send>>>);

impl Wake for DropAtWake {
    fn wake(self: Arc<Self>) {
        let owned = self.0.lock().unwrap().take();
        drop(owned);
    }
}

/// At a deadline, the timer drops the last handle of a token, and with it the last one of its `parent`. What the callback
/// of that token has captured reports its drop.
async fn check_last_handle(parent: CancellationToken, expected: &[&str]) {
    let done = Log::default();
    let child = parent.child_with_timeout(SECOND);
    let (ran, dropped) = (log(&done, "ran"), AtDrop::new(log(&done, "dropped")));
    parent
        .on_cancel(move |_| {
            let _captured = &dropped;
            ran();
        })
        .detach();
    let at_wake = Arc::new(DropAtWake(Mutex::new(None)));
    let mut waits = Box::pin(child.clone().cancelled_owned());
    let waker = Waker::from(Arc::clone(&at_wake));
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    *at_wake.0.lock().unwrap() = Some(Box::new((parent, child, waits)));
    advance_by(3 * SECOND);
    sleep(SECOND).await;
    assert_eq!(logged(&done), expected);
    assert!(are_in_tasks(&done));
}

#[tokio::test(start_paused = true)]
async fn callbacks_of_an_ancestor_whose_last_handle_a_timer_drops_are_dropped_on_a_task() {
    check_last_handle(CancellationToken::new(), &["dropped"]).await;
}

#[tokio::test(start_paused = true)]
async fn callbacks_of_an_ancestor_whose_deadline_is_over_as_a_timer_drops_its_last_handle_run_on_a_task()
 {
    let parent = CancellationToken::with_timeout(2 * SECOND);
    check_last_handle(parent, &["ran", "dropped"]).await;
}

// Runtimes that end.

/// A token of a runtime with a timeout of a second.
fn timed(runtime: &Runtime) -> CancellationToken {
    let _context = runtime.enter();
    CancellationToken::with_timeout(SECOND)
}

/// A child of it, made in `runtime`, with a later deadline of its own; and the number of wake-ups of its waiter.
fn later(
    token: &CancellationToken,
    runtime: &Runtime,
) -> (CancellationToken, impl Sized + use<>, Arc<Wakes>) {
    let _context = runtime.enter();
    let child = token.child_with_timeout(3600 * SECOND);
    let wakes = Wakes::new();
    let mut waits = Box::pin(stream::once(child.clone().cancelled_owned()));
    assert!(wakes.poll(waits.as_mut()).is_pending());
    (child, waits, wakes)
}

fn run(runtime: &Runtime, time: Duration) {
    runtime.block_on(async { sleep(time).await });
}

#[test]
fn a_later_deadline_has_no_timer_while_the_runtime_of_the_earlier_one_lives() {
    let (parents, childs) = (paused_runtime(), paused_runtime());
    let token = timed(&parents);
    let (_child, _waits, wakes) = later(&token, &childs);
    run(&childs, 2 * SECOND);
    assert_eq!(wakes.count(), 0);
    run(&parents, 2 * SECOND);
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_later_deadline_is_woken_by_its_own_runtime_once_that_of_the_earlier_one_has_ended() {
    let (parents, childs) = (paused_runtime(), paused_runtime());
    let token = timed(&parents);
    let (child, _waits, wakes) = later(&token.child_token(), &childs);
    drop(parents);
    run(&childs, SECOND / 2);
    assert_eq!(wakes.count(), 0);
    run(&childs, SECOND);
    assert_eq!(wakes.count(), 1);
    assert!(matches!(
        child.stop_reason(),
        Some(StopReason::DeadlineExceeded)
    ));
}

#[test]
fn a_later_deadline_that_is_made_after_the_runtime_of_the_earlier_one_has_ended_is_woken() {
    let (parents, childs) = (paused_runtime(), paused_runtime());
    let token = timed(&parents);
    drop(parents);
    let (_child, _waits, wakes) = later(&token, &childs);
    let (_below, _waits_below, wakes_below) = later(&_child, &childs);
    run(&childs, 2 * SECOND);
    assert_eq!((wakes.count(), wakes_below.count()), (1, 1));
}

#[test]
fn a_later_deadline_whose_runtime_had_no_time_until_the_earlier_one_had_passed_is_woken_at_once() {
    let (parents, childs) = (paused_runtime(), paused_runtime());
    let token = timed(&parents);
    let (child, _waits, wakes) = later(&token, &childs);
    let called = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&called);
    child
        .on_cancel(move |_| {
            calls.fetch_add(1, SeqCst);
        })
        .detach();
    {
        let _context = childs.enter();
        advance_by(2 * SECOND);
    }
    drop(parents);
    childs.block_on(yield_now());
    assert_eq!((wakes.count(), called.load(SeqCst)), (1, 1));
}

#[test]
fn the_later_deadlines_of_runtimes_that_are_alive_still_fire() {
    let [first, second, third] = [(); 3].map(|()| paused_runtime());
    let token = timed(&first);
    let (middle, _waits, _) = later(&token, &second);
    let (_leaf, _waits_too, wakes) = later(&middle, &third);
    drop(first);
    run(&second, SECOND / 2);
    // The leaf relies on the timer of the middle one.
    drop(second);
    run(&third, 2 * SECOND);
    assert_eq!(wakes.count(), 1);

    let [first, second, third] = [(); 3].map(|()| paused_runtime());
    let token = timed(&first);
    let (_gone, _waits, wakes_gone) = later(&token, &second);
    let (_leaf, _waits_too, wakes) = later(&token, &third);
    drop(second);
    drop(first);
    run(&third, 2 * SECOND);
    assert_eq!((wakes_gone.count(), wakes.count()), (0, 1));
}

#[test]
fn a_cancel_after_the_runtime_has_ended_stops_a_later_deadline_for_its_own_reason() {
    let (parents, childs) = (paused_runtime(), paused_runtime());
    let token = timed(&parents);
    let (child, _waits, wakes) = later(&token, &childs);
    drop(parents);
    childs.block_on(yield_now());
    token.cancel_with("enough");
    assert_eq!(wakes.count(), 1);
    assert_eq!(child.stop_reason().unwrap().to_string(), "enough");
}
