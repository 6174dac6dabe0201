//! `settled` and `cancel_and_settle`: what counts, until when, and which tasks are woken.

use crate::{
    sequences::sequences,
    support::{Wakes, panic_of},
};
use futures::{
    Stream, StreamExt,
    executor::block_on,
    stream::{self, FusedStream},
};
use std::{
    fmt::Debug,
    future::{Future, pending, ready},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, ThreadId},
};
use stopcock::{
    CancelStreamExt, CancellationToken, IntoSignal, Settled, StopReason, Yielder, generator,
    signal,
    testing::{Moment, Script, Source},
};

fn poll<Fut: Future>(future: Pin<&mut Fut>, wakes: &Arc<Wakes>) -> Poll<Fut::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

/// One poll by hand, without a check of the wake-ups.
fn poll_once(settled: &mut Settled) -> Poll<()> {
    poll(Pin::new(settled), &Wakes::new())
}

fn next<S: Stream + ?Sized>(stream: Pin<&mut S>) -> Poll<Option<S::Item>> {
    stream.poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Who waits for `token` to settle, was polled once, and is pending.
fn waiter(token: &CancellationToken) -> (Settled, Arc<Wakes>) {
    let wakes = Wakes::new();
    let mut settled = token.settled();
    assert!(poll(Pin::new(&mut settled), &wakes).is_pending());
    (settled, wakes)
}

fn hold(token: &CancellationToken) -> impl Send + use<> {
    stream::pending::<u8>().take_until_cancelled(token)
}

/// Something that holds what a token is to stop.
type Hold = fn(&CancellationToken) -> Box<dyn Send>;

/// None of them has been polled.
const HOLDS: [(&str, Hold); 16] = [
    ("a stream", |token| {
        Box::new(Source::new("").take_until_cancelled(token))
    }),
    ("a stream that owns the token", |token| {
        Box::new(Source::new("").take_until_cancelled(token.clone()))
    }),
    ("a boxed stream", |token| {
        Box::new(Source::new("").take_until_cancelled(token).boxed())
    }),
    ("a stream of a boxed stream", |token| {
        Box::new(Source::new("").boxed().take_until_cancelled(token))
    }),
    ("two adapters", |token| {
        let inner = Source::new("").take_until_cancelled(token);
        Box::new(inner.take_until_cancelled(token))
    }),
    ("a generator", |token| {
        Box::new(generator(token, async |mut y| y.yield_item(1).await))
    }),
    ("a boxed generator", |token| {
        let items = generator(token.clone(), async |mut y| y.yield_item(1).await);
        Box::new(items.boxed())
    }),
    ("a future", |token| {
        Box::new(token.run_until_cancelled(ready(1)))
    }),
    ("a future that owns the token", |token| {
        Box::new(token.clone().run_until_cancelled_owned(pending::<u8>()))
    }),
    ("a waiter as a signal", |token| {
        Box::new(Source::new("").take_until_cancelled(token.clone().cancelled_owned()))
    }),
    ("the first of two signals", |token| {
        Box::new(Source::new("").take_until_cancelled(signal::any(token, signal::never())))
    }),
    ("the second of two signals", |token| {
        Box::new(Source::new("").take_until_cancelled(signal::any(signal::never(), token)))
    }),
    ("one of three signals", |token| {
        let inner = signal::any(signal::when(pending::<()>()), token);
        Box::new(Source::new("").take_until_cancelled(signal::any(inner, token)))
    }),
    ("a signal of nobody", |token| Box::new(token.into_signal())),
    ("a hold", |token| Box::new(token.hold())),
    ("a clone of a hold", |token| Box::new(token.hold().clone())),
];

/// Of a tower. More than a walk can note without the heap.
const LEVELS: usize = if cfg!(miri) { 10 } else { 40 };

/// A token under another one. Of those between there is no handle any more.
type Place = fn(&CancellationToken) -> CancellationToken;

const PLACES: [(&str, Place); 12] = [
    ("the token itself", CancellationToken::clone),
    ("a child", CancellationToken::child_token),
    ("a grandchild", |root| root.child_token().child_token()),
    ("a distant descendant", |root| {
        (0..9).fold(root.clone(), |token, _| token.child_token())
    }),
    ("linked, as the first parent", |root| {
        CancellationToken::linked([root, &CancellationToken::new()])
    }),
    ("linked, as the last parent", |root| {
        let [one, other] = [CancellationToken::new(), CancellationToken::new()];
        CancellationToken::linked([&one, &other.child_token(), root])
    }),
    ("linked to a grandchild", |root| {
        let below = root.child_token().child_token();
        CancellationToken::linked([CancellationToken::new(), below])
    }),
    ("a grandchild of a linked one", |root| {
        let linked = CancellationToken::linked([root, &CancellationToken::new()]);
        linked.child_token().child_token()
    }),
    ("linked to it and its child", |root| {
        CancellationToken::linked([root, &root.child_token()])
    }),
    ("a diamond", |root| {
        CancellationToken::linked([root.child_token(), root.child_token()])
    }),
    ("a diamond under the child of a diamond", |root| {
        let diamond = CancellationToken::linked([root.child_token(), root.child_token()]);
        let below = diamond.child_token();
        CancellationToken::linked([diamond.child_token(), below.child_token(), below])
    }),
    // More paths lead up than could ever be walked.
    ("a tower of diamonds", |root| {
        (0..LEVELS).fold(root.clone(), |below, _| {
            CancellationToken::linked([below.child_token(), below.child_token()])
        })
    }),
];

/// Each way to hold, at each place.
fn for_all(check: impl Fn(Hold, Place, &str)) {
    for (n, (holder, hold)) in HOLDS.into_iter().enumerate() {
        for (m, (at, place)) in PLACES.into_iter().enumerate() {
            // Miri is slow.
            if !cfg!(miri) || n == m % HOLDS.len() || m == n % PLACES.len() {
                check(hold, place, &format!("{holder}, at {at}"));
            }
        }
    }
}

#[test]
fn it_is_pending_until_the_cancel_even_without_a_holder() {
    let token = CancellationToken::new();
    let (mut settled, wakes) = waiter(&token);
    drop(hold(&token));
    assert_eq!(wakes.count(), 0);
    assert!(poll_once(&mut settled).is_pending());
    token.cancel();
    assert!(poll_once(&mut settled).is_ready());
}

#[test]
fn it_is_ready_after_a_cancel_of_its_token_or_of_any_ancestor() {
    for (at, place) in PLACES {
        let root = CancellationToken::new();
        let (mut settled, wakes) = waiter(&place(&root));
        root.cancel();
        assert_eq!(wakes.count(), 1, "{at}");
        assert!(poll(Pin::new(&mut settled), &wakes).is_ready(), "{at}");
        assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 1), "{at}");
    }
}

#[test]
fn every_holder_at_or_under_the_token_keeps_it_from_settling_until_it_is_dropped() {
    for_all(|hold, place, case| {
        for at_last in [false, true] {
            let root = CancellationToken::new();
            let below = place(&root);
            let held = hold(&below);
            if at_last {
                drop(below);
            }
            root.cancel();
            let (mut settled, wakes) = waiter(&root);
            assert!(poll(Pin::new(&mut settled), &wakes).is_pending(), "{case}");
            assert_eq!(wakes.count(), 0, "{case}");
            drop(held);
            assert_eq!(wakes.count(), 1, "{case}");
            assert!(poll(Pin::new(&mut settled), &wakes).is_ready(), "{case}");
            assert!(poll_once(&mut root.settled()).is_ready(), "{case}");
            assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 1), "{case}");
        }
    });
}

#[test]
fn a_holder_that_is_dropped_before_the_cancel_does_not_count() {
    for_all(|hold, place, case| {
        let root = CancellationToken::new();
        let (mut settled, wakes) = waiter(&root);
        drop(hold(&place(&root)));
        assert_eq!(wakes.count(), 0, "{case}");
        root.cancel();
        assert!(poll_once(&mut settled).is_ready(), "{case}");
    });
}

#[test]
fn a_holder_that_is_made_after_the_cancel_counts_as_well() {
    for_all(|hold, place, case| {
        let root = CancellationToken::new();
        let mut settled = root.cancel_and_settle();
        let held = hold(&place(&root));
        assert!(poll_once(&mut settled).is_pending(), "{case}");
        drop(held);
        assert!(poll_once(&mut settled).is_ready(), "{case}");
    });
}

#[test]
fn a_holder_of_an_ancestor_or_a_sibling_does_not_count() {
    for (at, place) in PLACES.into_iter().skip(1) {
        let root = CancellationToken::new();
        let token = place(&root);
        let _above = hold(&root);
        let _beside = [hold(&root.child_token()), hold(&place(&root))];
        root.cancel();
        assert!(poll_once(&mut token.settled()).is_ready(), "{at}");
        assert!(poll_once(&mut root.settled()).is_pending(), "{at}");
    }
}

#[test]
fn a_linked_token_counts_for_each_of_its_parents() {
    let parents = [(); 3].map(|()| CancellationToken::new());
    let linked = CancellationToken::linked(&parents);
    let held = hold(&linked.child_token());
    parents[1].cancel();
    assert!(poll_once(&mut linked.settled()).is_pending());
    let mut waiters: Vec<_> = parents
        .iter()
        .map(|token| token.cancel_and_settle())
        .collect();
    for settled in &mut waiters {
        assert!(poll_once(settled).is_pending());
    }
    drop(held);
    for settled in &mut waiters {
        assert!(poll_once(settled).is_ready());
    }
}

#[test]
fn futures_that_only_wait_do_not_count() {
    let token = CancellationToken::new();
    let child = token.child_token();
    let mut waiting = child.cancelled();
    assert!(poll(Pin::new(&mut waiting), &Wakes::new()).is_pending());
    let _unpolled = (child.cancelled(), child.clone().cancelled_owned());
    let _registration = child.on_cancel(|_| {});
    let _guard = child.drop_guard_ref();
    let _waiter = waiter(&child);
    assert!(poll_once(&mut token.cancel_and_settle()).is_ready());
}

// Until when: the end of the source, not that of the adapter.

#[test]
fn an_adapter_counts_until_its_source_is_dropped_wherever_it_ends_and_is_stopped() {
    for script in Script::all("a-|", if cfg!(miri) { 1 } else { 4 }) {
        let steps = script.steps().len();
        for cancel_before in 0..=steps + 1 {
            let case = format!("{script}, cancelled before poll {cancel_before}");
            let root = CancellationToken::new();
            let source = Source::from(script.clone());
            let record = source.record();
            let mut stream = source.take_until_cancelled(root.child_token());
            let mut settled = root.settled();
            for n in 0..steps + 2 {
                if n == cancel_before {
                    root.cancel();
                }
                let is_settled = poll_once(&mut settled).is_ready();
                let expected = record.is_dropped() && root.is_cancelled();
                assert_eq!(is_settled, expected, "before poll {n}: {case}");
                let _ = next(pin!(&mut stream));
            }
            root.cancel();
            assert_eq!(
                poll_once(&mut settled).is_ready(),
                record.is_dropped(),
                "{case}"
            );
            assert_eq!(stream.is_terminated(), record.is_dropped(), "{case}");
            drop(stream);
            assert!(poll_once(&mut settled).is_ready(), "{case}");
        }
    }
}

#[test]
fn a_waiter_is_woken_by_the_poll_that_stops_the_last_stream() {
    let root = CancellationToken::new();
    let mut streams: Vec<_> = ["", "aa", "--", "|"]
        .map(|script| Source::new(script).take_until_cancelled(root.child_token()))
        .into();
    root.cancel();
    let (mut settled, wakes) = waiter(&root);
    for (n, stream) in streams.iter_mut().enumerate() {
        assert_eq!(wakes.count(), 0);
        assert_eq!(next(pin!(stream)), Poll::Ready(None));
        let is_settled = poll(Pin::new(&mut settled), &wakes).is_ready();
        assert_eq!(is_settled, n == 3);
    }
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_body_counts_until_it_is_dropped_at_any_of_its_yields() {
    for yields in 0..4 {
        for is_stopped in [false, true] {
            let token = CancellationToken::new();
            let alive = Arc::new(());
            let mut items = Box::pin(generator(&token, {
                let alive = Arc::clone(&alive);
                async move |mut y| {
                    let _alive = alive;
                    for item in 0..3 {
                        y.yield_item(item).await;
                    }
                }
            }));
            for _ in 0..yields {
                let _ = next(items.as_mut());
            }
            let has_ended = yields == 3 && next(items.as_mut()) == Poll::Ready(None);
            let mut settled = token.cancel_and_settle();
            assert_eq!(poll_once(&mut settled).is_ready(), has_ended, "{yields}");
            assert_eq!(Arc::strong_count(&alive), 2 - usize::from(has_ended));
            // The stream is kept, or not.
            let _kept = is_stopped.then(|| {
                assert_eq!(next(items.as_mut()), Poll::Ready(None));
                items
            });
            assert_eq!(Arc::strong_count(&alive), 1);
            assert!(poll_once(&mut settled).is_ready(), "{yields}");
        }
    }
}

#[test]
fn a_future_counts_until_it_is_ready_or_stopped_though_it_is_kept() {
    let token = CancellationToken::new();
    let mut done = pin!(token.run_until_cancelled(ready(1)));
    let mut waits = pin!(token.run_until_cancelled(pending::<u8>()));
    let mut unpolled = pin!(token.run_until_cancelled(ready(1)));
    assert!(poll(waits.as_mut(), &Wakes::new()).is_pending());
    assert_eq!(poll(done.as_mut(), &Wakes::new()), Poll::Ready(Some(1)));
    let mut settled = token.cancel_and_settle();
    assert!(poll_once(&mut settled).is_pending());
    assert_eq!(poll(waits.as_mut(), &Wakes::new()), Poll::Ready(None));
    assert!(poll_once(&mut settled).is_pending());
    assert_eq!(poll(unpolled.as_mut(), &Wakes::new()), Poll::Ready(None));
    assert!(poll_once(&mut settled).is_ready());
}

#[test]
fn of_nested_adapters_each_counts_for_its_own_token() {
    for outer_is_cancelled in [false, true] {
        let [inner, outer] = [CancellationToken::new(), CancellationToken::new()];
        let mut stream = Source::new("--")
            .take_until_cancelled(inner.child_token())
            .take_until_cancelled(outer.child_token());
        assert!(next(pin!(&mut stream)).is_pending());
        let [mut first, mut second] = match outer_is_cancelled {
            true => [outer.cancel_and_settle(), inner.settled()],
            false => [inner.cancel_and_settle(), outer.settled()],
        };
        assert!(poll_once(&mut first).is_pending());
        // To the outer one a stop of the inner one is an end: both are over.
        assert_eq!(next(pin!(&mut stream)), Poll::Ready(None));
        assert!(poll_once(&mut first).is_ready());
        assert!(poll_once(&mut second).is_pending());
        inner.cancel();
        outer.cancel();
        assert!(poll_once(&mut second).is_ready());
    }
}

#[test]
fn nested_adapters_under_one_token_settle_when_the_last_is_dropped_whichever_is_cancelled() {
    for inner_is_below in [false, true] {
        let root = CancellationToken::new();
        let child = root.child_token();
        let [inner, outer] = match inner_is_below {
            true => [&child, &root],
            false => [&root, &child],
        };
        let mut stream = Source::new("--")
            .take_until_cancelled(inner)
            .take_until_cancelled(outer);
        let (mut at_root, mut at_child) = (root.settled(), child.cancel_and_settle());
        assert!(poll_once(&mut at_child).is_pending());
        assert_eq!(next(pin!(&mut stream)), Poll::Ready(None));
        assert!(poll_once(&mut at_child).is_ready());
        assert!(poll_once(&mut at_root).is_pending());
        root.cancel();
        assert!(poll_once(&mut at_root).is_ready());
    }
}

#[test]
fn a_stream_that_is_lent_counts_until_the_loan_is_over() {
    let token = CancellationToken::new();
    let source = Source::new("ab");
    let record = source.record();
    let mut source = source;
    {
        let mut lent = (&mut source).take_until_cancelled(&token);
        assert_eq!(next(pin!(&mut lent)), Poll::Ready(Some('a')));
        let mut settled = token.cancel_and_settle();
        assert!(poll_once(&mut settled).is_pending());
        // The adapter has ended the borrow, and still exists.
        assert_eq!(next(pin!(&mut lent)), Poll::Ready(None));
        assert!(poll_once(&mut settled).is_ready());
        assert!(lent.is_terminated());
    }
    {
        let _unpolled = (&mut source).take_until_cancelled(&token);
        assert!(poll_once(&mut token.settled()).is_pending());
    }
    assert!(poll_once(&mut token.settled()).is_ready());
    assert!(!record.is_dropped());
    assert_eq!(next(pin!(&mut source)), Poll::Ready(Some('b')));
}

#[test]
fn a_loan_of_an_adapter_leaves_what_is_lent_counted() {
    let [token, other] = [CancellationToken::new(), CancellationToken::new()];
    let mut lender = Source::new("ab").take_until_cancelled(&token);
    let mut lent = (&mut lender).take_until_cancelled(&other);
    assert_eq!(next(pin!(&mut lent)), Poll::Ready(Some('a')));
    assert!(poll_once(&mut other.cancel_and_settle()).is_pending());
    assert_eq!(next(pin!(&mut lent)), Poll::Ready(None));
    assert!(poll_once(&mut other.settled()).is_ready());
    assert!(poll_once(&mut token.cancel_and_settle()).is_pending());
    drop(lender);
    assert!(poll_once(&mut token.settled()).is_ready());
}

#[test]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
fn an_adapter_that_is_forgotten_counts_for_ever_and_does_no_other_harm() {
    let root = CancellationToken::new();
    let child = root.child_token();
    mem::forget(hold(&child));
    root.cancel();
    let (mut settled, wakes) = waiter(&root);
    drop(hold(&child));
    assert_eq!(wakes.count(), 0);
    assert!(poll_once(&mut settled).is_pending());
    assert!(poll_once(&mut child.settled()).is_pending());
    assert!(poll_once(&mut root.child_token().settled()).is_ready());
    drop(settled);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn whatever_panics_in_its_drop_does_not_count_any_more() {
    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    let source = || Source::new("a").with_hook(|moment| assert!(moment != Moment::Drop, "dropped"));
    let body = |token: &CancellationToken| {
        let panics = PanicsOnDrop;
        generator(token, async move |mut y: Yielder<'_, u8>| {
            let _panics = panics;
            y.yield_item(1).await;
        })
    };
    let future = async |panics: PanicsOnDrop| {
        let _panics = panics;
        pending::<u8>().await
    };
    type Way<'a> = dyn Fn(&CancellationToken) -> Box<dyn FnMut()> + 'a;

    // Dropped by hand, or by the poll that stops it: then it is kept.
    let ways: [&Way<'_>; 6] = [
        &|token| {
            let mut stream = Some(source().take_until_cancelled(token));
            Box::new(move || drop(stream.take()))
        },
        &|token| {
            let mut stream = source().take_until_cancelled(token);
            Box::new(move || {
                let _ = next(pin!(&mut stream));
            })
        },
        &|token| {
            let mut items = Some(body(token));
            Box::new(move || drop(items.take()))
        },
        &|token| {
            let mut items = Box::pin(body(token));
            assert_eq!(next(items.as_mut()), Poll::Ready(Some(1)));
            Box::new(move || {
                let _ = next(items.as_mut());
            })
        },
        &|token| {
            let mut answer = Some(token.run_until_cancelled(future(PanicsOnDrop)));
            Box::new(move || drop(answer.take()))
        },
        &|token| {
            let mut answer = Box::pin(token.run_until_cancelled(future(PanicsOnDrop)));
            assert!(poll(answer.as_mut(), &Wakes::new()).is_pending());
            Box::new(move || {
                let _ = poll(answer.as_mut(), &Wakes::new());
            })
        },
    ];
    for (which, make) in ways.iter().enumerate() {
        let root = CancellationToken::new();
        let mut end = make(&root.child_token());
        root.cancel();
        let (mut settled, wakes) = waiter(&root);
        assert_eq!(panic_of(&mut end), "dropped", "{which}");
        assert_eq!(wakes.count(), 1, "{which}");
        assert!(poll_once(&mut settled).is_ready(), "{which}");
    }
}

#[test]
fn a_source_that_panicked_counts_until_it_is_dropped() {
    let token = CancellationToken::new();
    let mut stream = Source::new("!").take_until_cancelled(&token);
    assert_eq!(panic_of(|| next(pin!(&mut stream))), "the script says so");
    let mut settled = token.cancel_and_settle();
    assert!(poll_once(&mut settled).is_pending());
    assert_eq!(next(pin!(&mut stream)), Poll::Ready(None));
    assert!(poll_once(&mut settled).is_ready());
}

/// A source that is dropped by an adapter of the cancelled token still counts while its drop runs.
#[test]
fn a_check_in_the_drop_of_a_source_finds_the_token_not_settled() {
    for (at, place) in PLACES {
        for is_polled in [false, true] {
            let root = CancellationToken::new();
            let drops = Arc::new(AtomicUsize::new(0));
            let source = {
                let (root, drops) = (root.clone(), Arc::clone(&drops));
                Source::new("").with_hook(move |moment| {
                    if moment == Moment::Drop {
                        assert!(poll_once(&mut root.settled()).is_pending());
                        drops.fetch_add(1, SeqCst);
                    }
                })
            };
            let mut stream = source.take_until_cancelled(place(&root));
            let mut settled = root.cancel_and_settle();
            assert!(poll_once(&mut settled).is_pending());
            if is_polled {
                assert_eq!(next(pin!(&mut stream)), Poll::Ready(None), "{at}");
            } else {
                drop(stream);
            }
            assert_eq!(drops.load(SeqCst), 1, "{at}");
            assert!(poll_once(&mut settled).is_ready(), "{at}");
        }
    }
}

/// The waker that the source's own drop leaves behind is woken by that very drop.
#[test]
fn a_source_that_begins_to_wait_in_its_own_drop_is_woken_after_it() {
    let token = CancellationToken::new();
    let (waiting, begun) = mpsc::channel();
    let source = {
        let token = token.clone();
        Source::new("").with_hook(move |moment| {
            if moment == Moment::Drop {
                waiting.send(waiter(&token)).unwrap();
            }
        })
    };
    let stream = source.take_until_cancelled(&token);
    token.cancel();
    drop(stream);
    let (mut settled, wakes) = begun.recv().unwrap();
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut settled).is_ready());
}

// Which tasks are woken.

#[test]
fn only_the_latest_waker_is_woken_and_once() {
    let token = CancellationToken::new();
    let held = hold(&token.child_token());
    let mut settled = token.settled();
    let wakes = [(); 4].map(|()| Wakes::new());
    // The first one waits for the cancel.
    assert!(poll(Pin::new(&mut settled), &wakes[0]).is_pending());
    token.cancel();
    assert_eq!((wakes[0].count(), Arc::strong_count(&wakes[0])), (1, 1));
    for wakes in [
        &wakes[1], &wakes[1], &wakes[2], &wakes[1], &wakes[3], &wakes[3],
    ] {
        assert!(poll(Pin::new(&mut settled), wakes).is_pending());
    }
    for wakes in &wakes[..3] {
        assert_eq!(Arc::strong_count(wakes), 1, "it is not kept");
    }
    drop(held);
    assert_eq!(wakes.each_ref().map(|wakes| wakes.count()), [1, 0, 0, 1]);
    assert_eq!(Arc::strong_count(&wakes[3]), 1);
    assert!(poll(Pin::new(&mut settled), &wakes[3]).is_ready());
}

#[test]
fn one_that_was_moved_is_woken() {
    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let (settled, wakes) = waiter(&token);
    let mut moved = Box::new(settled);
    assert!(poll(Pin::new(&mut *moved), &wakes).is_pending());
    drop(held);
    assert_eq!(wakes.count(), 1);
    assert!(poll(Pin::new(&mut *moved), &wakes).is_ready());
}

#[test]
fn of_many_waiters_all_are_woken_except_those_that_were_dropped() {
    let count: usize = if cfg!(miri) { 8 } else { 40 };
    for leaving in [0, 1, 2, 3, count - 1] {
        let root = CancellationToken::new();
        let tokens = [root.child_token(), root.clone(), root.child_token()];
        let held = hold(&tokens[0].child_token());
        root.cancel();
        let mut waiters: Vec<_> = (0..count).map(|n| waiter(&tokens[n % 2])).collect();
        assert!(poll_once(&mut tokens[2].settled()).is_ready());
        let stays = |n: usize| leaving == 0 || n % leaving != 0;
        let all: Vec<_> = waiters.iter().map(|(_, wakes)| Arc::clone(wakes)).collect();
        let mut n = 0;
        waiters.retain(|_| {
            n += 1;
            stays(n - 1)
        });
        // And some that never waited.
        drop((root.settled(), tokens[0].settled()));
        drop(held);
        for (n, wakes) in all.iter().enumerate() {
            assert_eq!(wakes.count(), usize::from(stays(n)), "{n} of {leaving}");
        }
        for (settled, _) in &mut waiters {
            assert!(poll_once(settled).is_ready());
        }
        drop(waiters);
        assert!(all.iter().all(|wakes| Arc::strong_count(wakes) == 1));
    }
}

#[test]
fn waiters_are_woken_in_the_order_in_which_they_came() {
    struct Entry(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Entry {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let log = Arc::new(Mutex::new(Vec::new()));
    let waiters: Vec<_> = (0..5)
        .map(|n| {
            let mut settled = token.settled();
            let waker = Waker::from(Arc::new(Entry(n, Arc::clone(&log))));
            let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            settled
        })
        .collect();
    drop(held);
    assert_eq!(*log.lock().unwrap(), [0, 1, 2, 3, 4]);
    drop(waiters);
}

#[test]
fn a_waiter_that_leaves_after_it_was_woken_takes_no_other_ones_place() {
    let token = CancellationToken::new();
    token.cancel();
    let first = hold(&token);
    let (notified, _) = waiter(&token);
    drop(first);
    let second = hold(&token);
    let (mut waits, wakes) = waiter(&token);
    // Its place is the one that the other had.
    drop(notified);
    drop(second);
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut waits).is_ready());
}

#[test]
fn a_waiter_that_was_woken_is_ready_though_there_is_a_holder_by_then() {
    let token = CancellationToken::new();
    token.cancel();
    let held = hold(&token);
    let (mut settled, wakes) = waiter(&token);
    drop(held);
    let _late = hold(&token);
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut settled).is_ready(), "that moment has been");
    assert!(poll_once(&mut token.settled()).is_pending());
}

#[test]
fn each_level_settles_when_the_last_under_it_is_dropped() {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    root.cancel();
    let held = [hold(&root), hold(&middle), hold(&leaf)];
    let waiters = [&root, &middle, &leaf].map(waiter);
    let notified = || waiters.each_ref().map(|(_, wakes)| wakes.count());
    let [at_root, at_middle, at_leaf] = held;
    drop(at_middle);
    assert_eq!(notified(), [0, 0, 0]);
    drop(at_leaf);
    assert_eq!(notified(), [0, 1, 1]);
    drop(at_root);
    assert_eq!(notified(), [1, 1, 1]);
}

#[test]
fn the_wake_up_is_on_the_thread_that_drops_the_last_after_that_drop() {
    struct Notes {
        alive: Arc<()>,
        seen: Mutex<Option<(ThreadId, usize)>>,
    }

    impl Wake for Notes {
        fn wake(self: Arc<Self>) {
            let seen = (thread::current().id(), Arc::strong_count(&self.alive));
            *self.seen.lock().unwrap() = Some(seen);
        }
    }

    let token = CancellationToken::new();
    let alive = Arc::new(());
    let stream = {
        let alive = Arc::clone(&alive);
        let source = stream::repeat_with(move || Arc::strong_count(&alive));
        source.take_until_cancelled(token.child_token())
    };
    let mut settled = token.cancel_and_settle();
    let notes = Arc::new(Notes {
        alive,
        seen: Mutex::default(),
    });
    let waker = Waker::from(Arc::clone(&notes));
    let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let dropper = thread::spawn(move || drop(stream));
    let id = dropper.thread().id();
    dropper.join().unwrap();
    assert_eq!(*notes.seen.lock().unwrap(), Some((id, 1)));
}

#[test]
fn it_keeps_its_token_and_no_more() {
    let root = CancellationToken::new();
    let alive = Arc::new(());
    let child = root.child_token();
    child
        .on_cancel({
            let alive = Arc::clone(&alive);
            move |_| drop(alive)
        })
        .detach();
    let held = hold(&child);
    let (mut settled, wakes) = waiter(&child);
    drop((child, held));
    assert_eq!((wakes.count(), Arc::strong_count(&alive)), (0, 2));
    root.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut settled).is_ready());

    let (settled, wakes) = waiter(&CancellationToken::new());
    drop(settled);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

#[test]
fn one_that_was_ready_is_ready_again() {
    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let (mut settled, _) = waiter(&token);
    drop(held);
    for _ in 0..3 {
        assert!(poll_once(&mut settled).is_ready());
    }
}

#[test]
fn cancel_and_settle_cancels_when_it_is_called() {
    let token = CancellationToken::new();
    let settled = token.cancel_and_settle();
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
    drop(settled);
    let token = CancellationToken::new();
    token.cancel_with("first");
    assert!(poll_once(&mut token.cancel_and_settle()).is_ready());
    assert_eq!(token.stop_reason().unwrap().to_string(), "first");
    let _settled = token.child_token().settled();
    assert!(!CancellationToken::new().is_cancelled());
}

#[test]
fn settled_itself_cancels_nothing() {
    let token = CancellationToken::new();
    drop(waiter(&token));
    assert!(!token.is_cancelled());
}

#[test]
fn its_future_can_be_sent_kept_and_printed() {
    fn is_everything<T: Send + Sync + Unpin + Debug + 'static>() {}
    is_everything::<Settled>();
    let token = CancellationToken::new();
    let settled = token.settled();
    assert!(!format!("{settled:?}").contains("ConsumerDropped"));
    token.cancel_with(StopReason::ConsumerDropped);
    assert!(format!("{settled:?}").contains("ConsumerDropped"));
}

// T7: no lock is held while a waker is woken or dropped.

/// A waker that does something once when it is woken, or when it is dropped.
#[derive(Default)]
struct Hooks {
    on_wake: Mutex<Option<Deed>>,
    on_drop: Mutex<Option<Deed>>,
}

type Deed = Box<dyn FnOnce() + Send>;

impl Hooks {
    fn on_wake(deed: Deed) -> Waker {
        let hooks = Self::default();
        *hooks.on_wake.lock().unwrap() = Some(deed);
        Waker::from(Arc::new(hooks))
    }

    fn on_drop(deed: Deed) -> Waker {
        let hooks = Self::default();
        *hooks.on_drop.lock().unwrap() = Some(deed);
        Waker::from(Arc::new(hooks))
    }
}

impl Wake for Hooks {
    fn wake(self: Arc<Self>) {
        let deed = self.on_wake.lock().unwrap().take();
        deed.into_iter().for_each(|deed| deed());
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let deed = self.on_drop.get_mut().unwrap().take();
        deed.into_iter().for_each(|deed| deed());
    }
}

/// What foreign code does with a root, its child and its grandchild, and with what is held elsewhere.
type ForeignCode = fn([CancellationToken; 3], Box<dyn Send>);

const FOREIGN_CODES: [(&str, ForeignCode); 5] = [
    ("makes and drops adapters", |tokens, _| {
        for token in &tokens {
            drop([hold(token), hold(&token.child_token())]);
        }
    }),
    ("drops adapters", |_, held| drop(held)),
    ("drops the last handles", |tokens, _| drop(tokens)),
    ("waits and leaves", |tokens, _| {
        for token in &tokens {
            let held = hold(token);
            let (mut settled, _) = waiter(token);
            assert!(poll_once(&mut settled).is_pending());
            drop(held);
            let _ = poll_once(&mut settled);
        }
    }),
    ("cancels", |tokens, _| {
        for token in &tokens {
            token.cancel();
            assert!(!token.child_token().cancel_with("late"));
        }
    }),
];

/// When it does so.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// A waiter is woken.
    Woken,
    /// The waker is dropped, as it was the last of its kind, after it was woken,
    Notified,
    /// or as another one came,
    Replaced,
    /// or when the waiter was dropped.
    Left,
}

#[test]
fn foreign_code_may_do_anything_in_a_wake_up_and_in_the_drop_of_a_waker() {
    for when in [When::Woken, When::Notified, When::Replaced, When::Left] {
        for (what, do_it) in FOREIGN_CODES {
            for waits_at in 0..3 {
                let case = format!("{when:?}: {what}, {waits_at}");
                let root = CancellationToken::new();
                let middle = root.child_token();
                let tokens = [root, middle.clone(), middle.child_token()];
                let held = hold(&tokens[2]);
                let mut settled = tokens[0].cancel_and_settle();
                if waits_at > 0 {
                    settled = tokens[waits_at].settled();
                }
                let elsewhere = CancellationToken::new();
                elsewhere.cancel();
                let held_elsewhere = Box::new([hold(&elsewhere), hold(&elsewhere.child_token())]);
                let (_waiter, woken_elsewhere) = waiter(&elsewhere);

                let done = Arc::new(AtomicUsize::new(0));
                let deed: Deed = Box::new({
                    let done = Arc::clone(&done);
                    move || {
                        do_it(tokens, held_elsewhere);
                        done.fetch_add(1, SeqCst);
                    }
                });
                let waker = match when {
                    When::Woken => Hooks::on_wake(deed),
                    When::Notified | When::Replaced | When::Left => Hooks::on_drop(deed),
                };
                let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending(), "{case}");
                drop(waker);
                assert_eq!(done.load(SeqCst), 0, "{case}");
                let mut settled = Some(settled);
                match when {
                    When::Woken | When::Notified => {}
                    When::Replaced => assert!(poll_once(settled.as_mut().unwrap()).is_pending()),
                    When::Left => settled = None,
                }
                drop(held);
                assert_eq!(done.load(SeqCst), 1, "{case}");
                assert_eq!(woken_elsewhere.count(), 1, "{case}");
                if let Some(mut settled) = settled {
                    assert!(poll_once(&mut settled).is_ready(), "{case}");
                }
                assert!(poll_once(&mut middle.settled()).is_ready(), "{case}");
            }
        }
    }
}

#[test]
fn a_wake_may_drop_its_own_settler_and_with_it_the_last_handle() {
    for neighbours in 0..3 {
        let token = CancellationToken::new();
        let held = hold(&token.child_token());
        token.cancel();
        let slot = Arc::new(Mutex::new(None::<Settled>));
        let mut settled = token.settled();
        let waker = Hooks::on_wake(Box::new({
            let slot = Arc::clone(&slot);
            move || {
                let settled = slot.lock().unwrap().take();
                drop(settled);
            }
        }));
        let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let neighbours: Vec<_> = (0..neighbours).map(|_| waiter(&token)).collect();
        *slot.lock().unwrap() = Some(settled);
        drop(token);
        drop(held);
        assert!(slot.lock().unwrap().is_none());
        assert!(neighbours.iter().all(|(_, wakes)| wakes.count() == 1));
    }
}

#[test]
fn a_wake_may_drop_a_holder_that_another_level_waits_for() {
    let root = CancellationToken::new();
    let child = root.child_token();
    root.cancel();
    let held_at_root = hold(&root);
    let held = hold(&child);
    let (mut at_root, wakes) = waiter(&root);
    let mut at_child = child.settled();
    let waker = Hooks::on_wake(Box::new(move || drop(held_at_root)));
    let polled = Pin::new(&mut at_child).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(held);
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut at_root).is_ready());
}

#[test]
fn a_wake_that_makes_and_drops_an_adapter_leaves_no_waiter() {
    let root = CancellationToken::new();
    let child = root.child_token();
    root.cancel();
    let held = hold(&child);
    let mut at_child = child.settled();
    let waker = Hooks::on_wake(Box::new(move || drop(hold(&child))));
    let polled = Pin::new(&mut at_child).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let waiters = [waiter(&root), waiter(&root)];
    drop(held);
    for (_, wakes) in waiters {
        assert_eq!(wakes.count(), 1);
    }
}

fn panicking_waker(message: &'static str) -> Waker {
    Hooks::on_wake(Box::new(move || panic!("{message}")))
}

#[test]
fn a_panicking_waker_stops_no_other_and_the_first_panic_comes_out_of_the_drop() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let held = hold(&child);
    root.cancel();
    let mut waiters = Vec::new();
    let mut panicking = Vec::new();
    for (token, message) in [(&child, "first"), (&child, "second"), (&root, "third")] {
        let mut settled = token.settled();
        let waker = panicking_waker(message);
        let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        panicking.push(settled);
        waiters.push(waiter(token));
    }
    assert_eq!(panic_of(|| drop(held)), "first");
    for (settled, wakes) in &mut waiters {
        assert_eq!(wakes.count(), 1);
        assert!(poll_once(settled).is_ready());
    }
    // Once.
    drop(hold(&child));
}

#[test]
fn a_panicking_waker_does_not_throw_into_an_unwinding() {
    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let mut settled = token.settled();
    let waker = panicking_waker("woken");
    let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let (mut other, wakes) = waiter(&token);
    let message = panic_of(|| {
        let _held = held;
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut other).is_ready());
}

// Short sequences of operations.

/// What is done at a token of a small tree.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel(usize),
    Hold(usize),
    LetGo(usize),
    /// Polls the waiter there.
    Poll(usize),
}

/// 0 is a root with a child 1. 2 is linked to 1 and another root, 3.
const ABOVE: [&[usize]; 4] = [&[0], &[1, 0], &[2, 1, 3, 0], &[3]];

#[derive(Default)]
struct Model {
    is_cancelled: [bool; ABOVE.len()],
    held: [usize; ABOVE.len()],
    state: [State; ABOVE.len()],
    woken: [usize; ABOVE.len()],
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    New,
    WaitsForCancel,
    WaitsForOthers,
    /// Nobody held anything at some moment since it had to wait.
    Notified,
}

impl Model {
    fn wake(&mut self, node: usize, from: State, to: State) {
        if self.state[node] == from {
            self.state[node] = to;
            self.woken[node] += 1;
        }
    }

    fn cancel(&mut self, token: usize) {
        for node in (0..ABOVE.len()).filter(|node| ABOVE[*node].contains(&token)) {
            self.is_cancelled[node] = true;
            self.wake(node, State::WaitsForCancel, State::New);
        }
    }

    fn let_go(&mut self, token: usize) {
        for &node in ABOVE[token] {
            self.held[node] -= 1;
            if self.held[node] == 0 {
                self.wake(node, State::WaitsForOthers, State::Notified);
            }
        }
    }

    fn poll(&mut self, node: usize) -> bool {
        if !self.is_cancelled[node] {
            self.state[node] = State::WaitsForCancel;
            return false;
        }
        if self.held[node] == 0 || self.state[node] == State::Notified {
            return true;
        }
        self.state[node] = State::WaitsForOthers;
        false
    }
}

fn check_sequence(steps: &[Step]) {
    let root = CancellationToken::new();
    let child = root.child_token();
    let other = CancellationToken::new();
    let linked = CancellationToken::linked([&child, &other]);
    let tokens = [root, child, linked, other];
    let mut waiters = tokens
        .each_ref()
        .map(|token| (token.settled(), Wakes::new()));
    let mut held: [Vec<_>; ABOVE.len()] = Default::default();
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Cancel(node) => {
                tokens[node].cancel();
                model.cancel(node);
            }
            Step::Hold(node) => {
                held[node].push(hold(&tokens[node]));
                ABOVE[node].iter().for_each(|above| model.held[*above] += 1);
            }
            Step::LetGo(node) => {
                if held[node].pop().is_some() {
                    model.let_go(node);
                }
            }
            Step::Poll(node) => {
                let (settled, wakes) = &mut waiters[node];
                let is_ready = poll(Pin::new(settled), wakes).is_ready();
                assert_eq!(is_ready, model.poll(node), "{node}: {steps:?}");
            }
        }
        let woken = waiters.each_ref().map(|(_, wakes)| wakes.count());
        assert_eq!(woken, model.woken, "{steps:?}");
    }
    drop(held);
    drop(tokens);
    for (settled, wakes) in waiters {
        drop(settled);
        assert_eq!(Arc::strong_count(&wakes), 1, "{steps:?}");
    }
}

#[test]
fn every_short_sequence_of_holders_and_waiters_matches_a_simple_model() {
    let steps: Vec<_> = (0..ABOVE.len())
        .flat_map(|node| {
            [
                Step::Cancel(node),
                Step::Hold(node),
                Step::LetGo(node),
                Step::Poll(node),
            ]
        })
        .collect();
    // Without holders and waiters little can happen.
    let beginnings: [&[Step]; 3] = [
        &[],
        &[Step::Hold(2), Step::Cancel(0), Step::Poll(0)],
        &[
            Step::Hold(1),
            Step::Poll(1),
            Step::Hold(2),
            Step::Cancel(3),
            Step::Poll(3),
        ],
    ];
    let length = if cfg!(miri) { 1 } else { 4 };
    for beginning in beginnings {
        for rest in sequences(&steps, length) {
            check_sequence(&[beginning, &rest].concat());
        }
    }
}

// Real threads.

/// Counts those of its kind that live.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Stream for Alive {
    type Item = u8;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u8>> {
        Poll::Pending
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn of_adapters_that_are_dropped_on_many_threads_all_are_waited_for_and_no_wait_is_for_ever() {
    const ROUNDS: usize = if cfg!(miri) { 4 } else { 2000 };
    const DROPPERS: usize = 3;
    const CHILDREN: usize = 2;

    let mut state = 1_usize;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005_u64 as usize)
            .wrapping_add(1);
        (state >> 16) % below
    };
    for round in 0..ROUNDS {
        let [root, other] = [CancellationToken::new(), CancellationToken::new()];
        let children: [_; CHILDREN] = [
            root.child_token(),
            CancellationToken::linked([root.child_token(), other]),
        ];
        // Of each child, and of all.
        let alive = [(); CHILDREN + 1].map(|()| Arc::new(AtomicUsize::new(0)));
        let mut held: [Vec<_>; DROPPERS] = Default::default();
        for _ in 0..2 * DROPPERS + random(4) {
            let child = random(CHILDREN);
            let source = Alive::new(&alive[child]).chain(Alive::new(&alive[CHILDREN]));
            let token = match random(2) {
                0 => children[child].clone(),
                _ => children[child].child_token(),
            };
            held[random(DROPPERS)].push(source.take_until_cancelled(token));
        }
        let canceller = random(DROPPERS);
        thread::scope(|scope| {
            for (dropper, held) in held.into_iter().enumerate() {
                let root = &root;
                scope.spawn(move || {
                    for (n, mut stream) in held.into_iter().enumerate() {
                        if (dropper, n) == (canceller, 0) {
                            root.cancel();
                        }
                        if n % 2 == 0 {
                            let _ = next(pin!(&mut stream));
                        }
                    }
                    root.cancel();
                });
            }
            for (token, alive) in children.iter().chain([&root]).zip(&alive) {
                for _ in 0..2 {
                    let settled = token.settled();
                    scope.spawn(move || {
                        // Hangs if a wake-up is lost.
                        block_on(settled);
                        assert_eq!(alive.load(SeqCst), 0, "round {round}: too early");
                    });
                }
            }
        });
        assert!(poll_once(&mut root.settled()).is_ready());
    }
}

#[test]
fn writes_in_the_drops_are_visible_to_a_waiter_on_another_thread() {
    let rounds = if cfg!(miri) { 5 } else { 2000 };
    for _ in 0..rounds {
        let token = CancellationToken::new();
        let (report, reports) = mpsc::channel();
        for n in 0..3 {
            let report = report.clone();
            let source = Source::new("").with_hook(move |moment| {
                if moment == Moment::Drop {
                    report.send(n).unwrap();
                }
            });
            let stream = source.take_until_cancelled(token.child_token());
            thread::spawn(move || drop(stream));
        }
        block_on(token.cancel_and_settle());
        let mut seen: Vec<_> = reports.try_iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }
}
