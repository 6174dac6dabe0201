//! Conversions of tokio-util's tokens into ours, of ours into theirs, and of signals into tokens.

use crate::support::{Wakes, panic_of};
use futures::stream;
use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};
use stopcock::{CancelStreamExt, CancellationToken, StopReason};
use tokio_util::sync::CancellationToken as Theirs;

fn pair() -> (Theirs, CancellationToken) {
    let theirs = Theirs::new();
    let ours = CancellationToken::from(&theirs);
    (theirs, ours)
}

fn is_plainly_cancelled(token: &CancellationToken) -> bool {
    matches!(token.stop_reason(), Some(StopReason::Cancelled))
}

/// Whether `f` wakes a stream under the token.
fn wakes(token: &CancellationToken, stop: impl FnOnce()) -> bool {
    let wakes = Wakes::new();
    let mut stream = stream::pending::<()>().take_until_cancelled(token);
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    stop();
    wakes.count() == 1 && wakes.poll(Pin::new(&mut stream)).is_ready()
}

// From theirs.

#[test]
fn an_adopted_token_is_cancelled_when_the_cancel_of_theirs_returns() {
    let (theirs, ours) = pair();
    let (by_value, child) = (CancellationToken::from(theirs.clone()), ours.child_token());
    assert!(!ours.is_cancelled() && !by_value.is_cancelled());
    assert!(wakes(&child, || theirs.cancel()));
    for token in [ours, by_value, child] {
        assert!(is_plainly_cancelled(&token));
    }
}

#[test]
fn a_cancelled_token_is_adopted_as_cancelled() {
    let theirs = Theirs::new();
    theirs.cancel();
    for token in [
        CancellationToken::from(&theirs),
        CancellationToken::from(theirs.child_token()),
    ] {
        assert!(is_plainly_cancelled(&token));
    }
}

#[test]
fn a_child_of_theirs_is_cancelled_by_its_own_cancel_and_by_its_parents() {
    let parent = Theirs::new();
    let children = [parent.child_token(), parent.child_token().child_token()];
    let [first, second] = children.each_ref().map(CancellationToken::from);
    children[0].cancel();
    assert!(first.is_cancelled() && !second.is_cancelled() && !parent.is_cancelled());
    parent.cancel();
    assert!(is_plainly_cancelled(&second));
}

#[test]
fn cancelling_an_adopted_token_does_not_cancel_theirs_and_keeps_its_reason() {
    let (theirs, ours) = pair();
    assert!(ours.cancel_with("enough"));
    assert!(!theirs.is_cancelled());
    theirs.cancel();
    assert_eq!(ours.stop_reason().unwrap().to_string(), "enough");
}

#[test]
fn an_adopted_token_links_with_ours() {
    for theirs_is_first in [true, false] {
        let (theirs, adopted) = pair();
        let ours = CancellationToken::new();
        let linked = CancellationToken::linked([&adopted, &ours]);
        drop(adopted);
        let woken = wakes(&linked, || match theirs_is_first {
            true => theirs.cancel(),
            false => ours.cancel(),
        });
        assert!(woken && linked.is_cancelled());
        assert_eq!(ours.is_cancelled(), !theirs_is_first);
    }
}

/// Only its child is left.
#[test]
fn the_child_of_an_adopted_token_keeps_it() {
    let (theirs, ours) = pair();
    let child = ours.child_token();
    drop(ours);
    assert!(wakes(&child, || theirs.cancel()));
}

#[test]
fn a_panic_of_a_callback_does_not_pass_through_the_cancel_of_theirs() {
    let (theirs, ours) = pair();
    let later = CancellationToken::from(&theirs);
    let has_run = Arc::new(AtomicUsize::new(0));
    ours.on_cancel(|_| panic!("in a callback")).detach();
    for token in [&ours, &later] {
        let runs = Arc::clone(&has_run);
        let callback = move |_: &StopReason| _ = runs.fetch_add(1, SeqCst);
        token.on_cancel(callback).detach();
    }
    theirs.cancel();
    assert!(ours.is_cancelled() && later.is_cancelled());
    assert_eq!(has_run.load(SeqCst), 2);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !thread::panicking() {
            std::panic::panic_any(Self);
        }
    }
}

#[test]
fn nor_does_a_panic_in_the_drop_of_the_payload() {
    let (theirs, ours) = pair();
    ours.on_cancel(|_| std::panic::panic_any(PanicsWhenDropped))
        .detach();
    theirs.cancel();
    assert!(ours.is_cancelled());
}

/// Their guard cancels when a panic drops it.
#[test]
fn a_panic_of_a_callback_does_not_abort_a_panic_that_cancels_theirs() {
    let (theirs, ours) = pair();
    ours.on_cancel(|_| panic!("in a callback")).detach();
    let said = panic_of(|| {
        let _guard = theirs.drop_guard();
        panic!("the first");
    });
    assert_eq!(said, "the first");
    assert!(ours.is_cancelled());
}

/// Older versions of theirs hold the lock of the parent then.
#[test]
fn a_callback_may_use_the_tokens_of_theirs() {
    let parent = Theirs::new();
    let theirs = parent.child_token();
    let ours = CancellationToken::from(&theirs);
    let sibling = parent.child_token();
    let uses = [&parent, &theirs, &sibling].map(Clone::clone);
    let (done, is_done) = std::sync::mpsc::channel();
    // The last handle of another token that is adopted from it, which the callback drops.
    let other = CancellationToken::from(&theirs);
    let keeps_itself = ours.clone();
    ours.on_cancel(move |_| {
        for token in &uses {
            assert!(token.is_cancelled());
            token.cancel();
            drop(token.clone());
            assert!(token.child_token().is_cancelled());
            assert!(CancellationToken::from(token).is_cancelled());
        }
        drop((uses, other, keeps_itself));
        done.send(()).unwrap();
    })
    .detach();
    drop((theirs, ours));
    parent.cancel();
    is_done.recv().unwrap();
}

/// More of them than tokio wakes at once.
#[test]
fn callbacks_may_drop_the_other_adopted_tokens_and_adopt_more() {
    let theirs = Theirs::new();
    let all = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..100 {
        let ours = CancellationToken::from(theirs.child_token());
        let (others, again) = (Arc::clone(&all), theirs.clone());
        ours.on_cancel(move |_| {
            let last = others.lock().unwrap().pop();
            drop(last);
            assert!(CancellationToken::from(again).is_cancelled());
        })
        .detach();
        all.lock().unwrap().push(ours);
    }
    theirs.cancel();
    let left: Vec<_> = all.lock().unwrap().drain(..).collect();
    assert!(left.iter().all(CancellationToken::is_cancelled));
}

#[test]
fn a_cancel_of_theirs_on_another_thread_is_visible_when_it_returns_though_handles_are_dropped_during_it()
 {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
    for round in 0..ROUNDS {
        let parent = Theirs::new();
        let theirs = match round % 2 {
            0 => parent.clone(),
            _ => parent.child_token(),
        };
        let dropped = CancellationToken::from(&theirs);
        let called = Arc::new(AtomicUsize::new(0));
        let calls = Arc::clone(&called);
        let callback = dropped.on_cancel(move |_| _ = calls.fetch_add(1, SeqCst));
        let stays = CancellationToken::from(&theirs).child_token();
        let start = Barrier::new(3);
        let (born, came_in_time) = thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                parent.cancel();
                assert!(stays.is_cancelled());
            });
            let drops = scope.spawn(|| {
                start.wait();
                let came_in_time = callback.unregister();
                drop(dropped);
                came_in_time
            });
            start.wait();
            (CancellationToken::from(&theirs), drops.join().unwrap())
        });
        assert!(is_plainly_cancelled(&born) && is_plainly_cancelled(&stays));
        // T6.
        assert_eq!(called.load(SeqCst), usize::from(!came_in_time));
    }
}

// Into theirs.

#[test]
fn a_converted_token_is_cancelled_when_the_cancel_of_ours_returns() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let [of_root, of_child] = [&root, &child].map(CancellationToken::to_tokio_util);
    assert!(!of_root.is_cancelled() && !of_child.is_cancelled());
    child.cancel();
    assert!(!of_root.is_cancelled() && of_child.is_cancelled());
    let another = root.child_token().child_token();
    let of_another = another.to_tokio_util();
    root.cancel();
    assert!(of_root.is_cancelled() && of_another.is_cancelled());
}

#[test]
fn a_token_converted_from_a_cancelled_one_is_cancelled() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let before = child.to_tokio_util();
    root.cancel();
    for token in [before, root.to_tokio_util(), child.to_tokio_util()] {
        assert!(token.is_cancelled());
        assert!(token.child_token().is_cancelled());
    }
}

#[test]
fn a_cancel_of_a_converted_token_stops_no_other() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let [first, second] = [(); 2].map(|()| root.to_tokio_util());
    let below = child.to_tokio_util();
    first.cancel();
    assert!(!root.is_cancelled() && !second.is_cancelled() && !below.is_cancelled());
    assert!(!root.to_tokio_util().is_cancelled());
    root.cancel();
    assert!(second.is_cancelled() && below.is_cancelled());
}

/// T12, also for a token that was dropped.
#[test]
fn an_ancestor_reaches_what_was_made_of_a_token_that_has_been_dropped() {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let made = || middle.child_token().child_token().to_tokio_util();
    let [first, second] = [(); 2].map(|()| made());
    middle.cancel();
    assert!(first.is_cancelled() && second.is_cancelled());

    let leaf = root.child_token().child_token().to_tokio_util();
    let other = root.child_token().to_tokio_util();
    other.cancel();
    assert!(!leaf.is_cancelled());
    root.cancel();
    assert!(leaf.is_cancelled());
}

#[test]
fn a_token_converted_from_a_linked_one_is_cancelled_with_any_parent() {
    for first in [true, false] {
        let parents = [(); 2].map(|()| CancellationToken::new().child_token());
        let linked = CancellationToken::linked(&parents);
        let theirs = linked.child_token().to_tokio_util();
        parents[usize::from(first)].cancel();
        assert!(theirs.is_cancelled());
    }
}

#[test]
fn a_token_converted_from_an_adopted_one_is_cancelled_with_theirs() {
    let (theirs, ours) = pair();
    let back = ours.to_tokio_util();
    let again = CancellationToken::from(&back);
    back.cancel();
    assert!(again.is_cancelled() && !theirs.is_cancelled() && !ours.is_cancelled());
    let back = ours.child_token().to_tokio_util();
    assert!(wakes(&CancellationToken::from(back), || theirs.cancel()));
}

#[test]
fn a_waker_of_theirs_sees_all_of_ours_cancelled_and_its_panic_comes_out_of_our_cancel() {
    let root = CancellationToken::new();
    let leaf = root.child_token().child_token();
    let watched = CancellationToken::from(leaf.to_tokio_util());
    let (seen, told) = (leaf.clone(), Arc::new(AtomicUsize::new(0)));
    let tell = Arc::clone(&told);
    watched
        .on_cancel(move |_| {
            assert!(seen.is_cancelled());
            tell.fetch_add(1, SeqCst);
        })
        .detach();
    root.cancel();
    assert_eq!(told.load(SeqCst), 1);

    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("in a waker");
        }
    }
    let ours = CancellationToken::new();
    let theirs = ours.to_tokio_util();
    let mut waits = pin!(theirs.cancelled());
    let waker = Arc::new(Panics).into();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    assert_eq!(panic_of(|| ours.cancel()), "in a waker");
    assert!(theirs.is_cancelled());
}

#[test]
fn two_threads_that_convert_while_a_third_cancels_get_tokens_that_are_cancelled_when_it_returns() {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
    for round in 0..ROUNDS {
        let root = CancellationToken::new();
        let leaf = root.child_token().child_token();
        let canceller = if round % 2 == 0 { &root } else { &leaf };
        let start = Barrier::new(3);
        let made: Vec<_> = thread::scope(|scope| {
            let makes = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    let theirs = leaf.to_tokio_util();
                    let was_first = !leaf.is_cancelled();
                    (theirs, was_first)
                })
            });
            start.wait();
            canceller.cancel();
            makes.map(|made| made.join().unwrap()).into()
        });
        assert!(made.iter().all(|(theirs, _)| theirs.is_cancelled()));
    }
}

/// One thread converts, then cancels; the other one converts at the same time.
#[test]
fn of_two_threads_that_convert_at_once_neither_gets_a_token_that_its_own_cancel_misses() {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
    for _ in 0..ROUNDS {
        let root = CancellationToken::new();
        let leaf = root.child_token().child_token();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for canceller in [&root, &leaf] {
                let (start, leaf) = (&start, &leaf);
                scope.spawn(move || {
                    start.wait();
                    let theirs = leaf.to_tokio_util();
                    canceller.cancel();
                    assert!(theirs.is_cancelled());
                });
            }
        });
    }
}

#[test]
fn theirs_is_made_cancelled_and_dropped_at_any_depth_on_a_small_stack() {
    const DEPTH: usize = if cfg!(miri) { 100 } else { 100_000 };
    let run = || {
        for is_cancelled in [true, false] {
            let root = CancellationToken::new();
            let mut leaf = root.clone();
            for _ in 0..DEPTH {
                leaf = leaf.child_token();
            }
            let theirs = leaf.to_tokio_util();
            if is_cancelled {
                root.cancel();
            }
            drop(leaf);
            root.cancel();
            assert!(theirs.is_cancelled());
        }
    };
    let small = thread::Builder::new().stack_size(64 << 10);
    small.spawn(run).unwrap().join().unwrap();
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::{CancellationToken, Theirs, is_plainly_cancelled, wakes};
    use crate::support::{Wakes, panic_of};
    use futures::{StreamExt, stream};
    use std::{
        future::{pending, poll_fn},
        pin::pin,
        sync::{Arc, Barrier, Mutex},
        task::Poll,
        thread,
        time::Duration,
    };
    use stopcock::{CancelStreamExt, StopReason, signal};
    use tokio::{
        runtime::{Builder, Handle, Runtime},
        sync::oneshot,
        task::yield_now,
        time::{advance, sleep},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn alive_tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    fn runtime() -> Runtime {
        let mut runtime = Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap()
    }

    /// A signal to be sent, and the token of it.
    fn signalled() -> (oneshot::Sender<()>, CancellationToken) {
        let (send, sent) = oneshot::channel();
        (send, CancellationToken::from_signal(signal::when(sent)))
    }

    #[tokio::test]
    async fn a_thousand_adopted_tokens_make_no_task() {
        let theirs = Theirs::new();
        let adopted: Vec<_> = (0..1000)
            .map(|_| CancellationToken::from(&theirs))
            .collect();
        let back: Vec<_> = adopted
            .iter()
            .map(CancellationToken::to_tokio_util)
            .collect();
        assert_eq!(alive_tasks(), 0);
        theirs.cancel();
        assert!(adopted.iter().all(CancellationToken::is_cancelled));
        assert!(back.iter().all(Theirs::is_cancelled));
        assert_eq!(alive_tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn theirs_is_cancelled_at_a_deadline_by_a_task_and_at_once_if_it_has_passed() {
        let ours = CancellationToken::with_timeout(SECOND);
        let below = ours.child_token();
        let early = below.to_tokio_util();
        advance(SECOND).await;
        assert!(below.to_tokio_util().is_cancelled());
        early.cancelled().await;

        let parent = CancellationToken::new();
        let timed = parent.child_with_timeout(SECOND).to_tokio_util();
        parent.cancel();
        assert!(timed.is_cancelled(), "linked to what is above");
    }

    #[tokio::test]
    async fn a_token_of_a_signal_is_cancelled_when_it_fires_with_all_that_is_below() {
        let (send, token) = signalled();
        let child = token.child_token();
        assert_eq!(alive_tasks(), 1);
        yield_now().await;
        assert!(!child.is_cancelled());
        send.send(()).unwrap();
        child.cancelled().await;
        assert!(is_plainly_cancelled(&token));
        yield_now().await;
        assert_eq!(alive_tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_a_signal_has_the_reason_of_the_signal() {
        let timed = CancellationToken::with_timeout(SECOND);
        let either = signal::any(&timed, signal::when(pending::<()>()));
        let token = CancellationToken::from_signal(either);
        sleep(2 * SECOND).await;
        let reason = token.stop_reason();
        assert!(matches!(reason, Some(StopReason::DeadlineExceeded)));
    }

    #[tokio::test]
    async fn a_signal_that_has_fired_makes_a_cancelled_token_and_no_task() {
        let token = CancellationToken::from_signal(signal::when(async {}));
        assert!(is_plainly_cancelled(&token));
        assert_eq!(alive_tasks(), 0);
    }

    #[test]
    fn a_signal_that_never_fires_takes_neither_a_task_nor_a_runtime() {
        let never = signal::any(signal::never(), signal::never());
        let token = CancellationToken::from_signal(never);
        assert!(!token.is_cancelled());
        assert!(wakes(&token, || token.cancel()));
    }

    /// A token need not be watched by a task.
    #[test]
    fn the_token_of_a_token_is_its_child_without_a_runtime() {
        let parent = CancellationToken::new();
        let token = CancellationToken::from_signal(&parent);
        token.cancel();
        assert!(!parent.is_cancelled());
        let token = CancellationToken::from_signal(parent.clone());
        parent.cancel_with("enough");
        assert_eq!(token.stop_reason().unwrap().to_string(), "enough");
    }

    #[test]
    fn a_foreign_signal_needs_a_runtime() {
        let said = panic_of(|| CancellationToken::from_signal(signal::when(pending::<()>())));
        assert!(said.contains("`Handle::enter`"), "{said}");
    }

    #[tokio::test]
    async fn the_task_ends_with_the_last_handle_of_the_token_or_of_one_below() {
        for has_run in [true, false] {
            let (send, token) = signalled();
            let child = token.child_token();
            let linked = CancellationToken::linked([&child, &CancellationToken::new()]);
            for last in [Some(token), Some(child), Some(linked), None] {
                if has_run {
                    yield_now().await;
                }
                assert_eq!((alive_tasks(), send.is_closed()), (1, false));
                drop(last);
                if has_run {
                    yield_now().await;
                }
                // The next drop is that of the last handle.
                if send.is_closed() {
                    break;
                }
            }
            yield_now().await;
            assert_eq!((alive_tasks(), send.is_closed()), (0, true));
        }
    }

    #[tokio::test]
    async fn a_thousand_dropped_tokens_of_a_signal_leave_no_task() {
        let (_keep, token) = signalled();
        for _ in 0..1000 {
            let signal = signal::any(
                token.clone().cancelled_owned(),
                signal::when(pending::<()>()),
            );
            drop(CancellationToken::from_signal(signal));
        }
        // The runtime polls some of its tasks, then that of the test.
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(alive_tasks(), 1);
    }

    #[tokio::test]
    async fn the_task_ends_when_the_token_is_cancelled_by_other_means() {
        for has_run in [true, false] {
            let (send, token) = signalled();
            if has_run {
                yield_now().await;
            }
            token.cancel_with("enough");
            yield_now().await;
            assert_eq!((alive_tasks(), send.is_closed()), (0, true));
            assert_eq!(token.stop_reason().unwrap().to_string(), "enough");
        }
    }

    #[test]
    fn a_runtime_that_ends_first_cancels_the_token() {
        for has_run in [true, false] {
            let runtime = runtime();
            let (_send, token) = runtime.block_on(async {
                let signalled = signalled();
                if has_run {
                    yield_now().await;
                }
                signalled
            });
            let child = token.child_token();
            assert!(wakes(&child, || drop(runtime)));
            assert!(is_plainly_cancelled(&token));
        }
    }

    #[test]
    fn a_runtime_that_has_ended_makes_a_cancelled_token() {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _context = handle.enter();
        let (_send, token) = signalled();
        assert!(is_plainly_cancelled(&token));
    }

    #[test]
    fn the_end_of_the_runtime_does_not_affect_a_dropped_token() {
        let runtime = runtime();
        let (send, token) = runtime.block_on(async {
            let signalled = signalled();
            yield_now().await;
            signalled
        });
        drop(token);
        drop(runtime);
        assert!(send.is_closed());

        // And the other way.
        let runtime = self::runtime();
        let (_send, token) = runtime.block_on(async { signalled() });
        drop(runtime);
        drop(token);
    }

    #[tokio::test]
    async fn a_signal_that_panics_in_the_task_cancels_the_token() {
        let (send, sent) = oneshot::channel::<()>();
        let signal = signal::when(async move {
            sent.await.unwrap();
            panic!("in a signal");
        });
        let token = CancellationToken::from_signal(signal);
        send.send(()).unwrap();
        token.cancelled().await;
        assert!(is_plainly_cancelled(&token));
    }

    /// So waiting for the one waits for the streams of the other.
    #[tokio::test]
    async fn a_token_in_the_signal_has_settled_once_the_token_of_the_signal_has() {
        let server = CancellationToken::new();
        let either = signal::any(&server, signal::when(pending::<()>()));
        let token = CancellationToken::from_signal(either);
        let mut stream = stream::pending::<()>().take_until_cancelled(&token);
        let mut settled = pin!(stream::once(server.cancel_and_settle()));
        let wakes = Wakes::new();
        yield_now().await;
        assert!(token.is_cancelled());
        assert!(wakes.poll(settled.as_mut()).is_pending());
        assert_eq!(stream.next().await, None);
        settled.next().await.unwrap();
    }

    /// A poll of a signal in which the last handle is dropped.
    #[tokio::test]
    async fn the_last_handle_may_be_dropped_by_the_signal() {
        let handle = Arc::new(Mutex::new(None::<CancellationToken>));
        let drops = Arc::clone(&handle);
        let token = CancellationToken::from_signal(signal::when(poll_fn(move |cx| {
            drop(drops.lock().unwrap().take());
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })));
        *handle.lock().unwrap() = Some(token);
        for _ in 0..4 {
            yield_now().await;
        }
        assert!(handle.lock().unwrap().is_none());
        assert_eq!(alive_tasks(), 0);
    }

    #[test]
    fn drops_and_signals_on_other_threads_leave_no_task_and_lose_no_cancel() {
        const ROUNDS: usize = if cfg!(miri) { 5 } else { 500 };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        for round in 0..ROUNDS {
            let (send, token) = runtime.block_on(async { signalled() });
            let child = token.child_token();
            let start = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    drop(token);
                });
                start.wait();
                if round % 2 == 0 {
                    send.send(()).unwrap();
                    runtime.block_on(child.cancelled());
                } else {
                    drop(child);
                    runtime.block_on(async {
                        let mut send = send;
                        send.closed().await;
                    });
                }
            });
        }
        runtime.block_on(async {
            while alive_tasks() > 0 {
                yield_now().await;
            }
        });
    }
}
