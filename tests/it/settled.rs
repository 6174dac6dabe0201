//! `settled` and `cancel_and_settle`: what counts, until when, and which tasks are woken.

mod foreign_code;
mod stories;
mod threads;
mod waiting;

use crate::support::{Wakes, panic_of};
use futures::{
    Stream, StreamExt,
    stream::{self, FusedStream},
};
use std::{
    future::{Future, pending, ready},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Waker},
};
use stopcock::{
    CancelStreamExt, CancellationToken, IntoSignal, Settled, Yielder, generator, signal,
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
fn a_borrowed_stream_counts_until_the_borrow_ends() {
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
fn a_borrowed_adapter_still_counts() {
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
fn a_forgotten_adapter_counts_forever_and_has_no_other_effect() {
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
