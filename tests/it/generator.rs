//! The laws G1 to G4, and what a body may do with its yielder.

mod token;
mod try_generator;

use crate::support::{Wakes, panic_of, poll};
use futures::{
    FutureExt, StreamExt,
    executor::block_on,
    future::{self, join, join_all, poll_fn},
    stream::FuturesUnordered,
};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use stopcock::{CancellationToken, Yielder, generator, signal};

/// Logs its name when it is dropped.
struct Dropped<'a>(&'a RefCell<Vec<&'static str>>, &'static str);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

/// Pending once, and wakes its task.
async fn turn() {
    let mut turned = false;
    future::poll_fn(|cx| {
        if std::mem::replace(&mut turned, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn collect<T>(stream: impl futures::Stream<Item = T>) -> Vec<T> {
    block_on(stream.collect())
}

#[test]
fn a_body_runs_only_up_to_the_yield_of_the_polled_item() {
    let steps = Cell::new(0);
    let mut items = pin!(generator(signal::never(), async |mut y| {
        for n in 1..=3 {
            steps.set(n);
            y.yield_item(n).await;
        }
        steps.set(4);
    }));
    assert_eq!(steps.get(), 0);
    for n in 1..=3 {
        assert_eq!(poll(items.as_mut()), Poll::Ready(Some(n)));
        assert_eq!(steps.get(), n);
    }
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert_eq!(steps.get(), 4);
}

#[test]
fn dropping_or_stopping_drops_the_locals_in_reverse_order_and_the_body_never_resumes() {
    for stop in [true, false] {
        let dropped = RefCell::new(Vec::new());
        let resumed = Cell::new(false);
        let token = CancellationToken::new();
        let captured = Dropped(&dropped, "captured");
        let mut items = Box::pin(generator(&token, async |mut y: Yielder<'_, u8>| {
            let _captured = &captured;
            let _first = Dropped(&dropped, "first");
            let _second = Dropped(&dropped, "second");
            y.yield_item(1).await;
            resumed.set(true);
        }));
        assert_eq!(poll(items.as_mut()), Poll::Ready(Some(1)));
        if stop {
            token.cancel();
            assert_eq!(poll(items.as_mut()), Poll::Ready(None));
            assert_eq!(*dropped.borrow(), ["second", "first"]);
        }
        drop(items);
        assert_eq!(*dropped.borrow(), ["second", "first"]);
        assert!(!resumed.get());
        drop(captured);
    }
}

#[test]
fn bodies_borrow_and_take_async_fns_and_helpers() {
    async fn countdown(mut y: Yielder<'_, u32>) {
        helper(&mut y, 2).await;
        helper(&mut y, 1).await;
    }
    async fn helper(y: &mut Yielder<'_, u32>, n: u32) {
        y.yield_item(n).await;
    }
    assert_eq!(collect(generator(signal::never(), countdown)), [2, 1]);

    let words = vec![String::from("a"), String::from("b")];
    let borrowed = generator(signal::never(), async |mut y| {
        for word in &words {
            y.yield_item(word.as_str()).await;
        }
    });
    assert_eq!(collect(borrowed), ["a", "b"]);
}

#[test]
fn the_item_of_a_yield_that_was_dropped_after_its_first_poll_is_yielded() {
    let items = generator(signal::never(), async |mut y| {
        for n in [1, 3, 5] {
            // The yield is polled first and hands over; the other one is ready in the same poll.
            futures::select_biased! {
                () = y.yield_item(n).fuse() => {}
                () = future::ready(()).fuse() => {}
            }
            y.yield_item(n + 1).await;
        }
        let mut last = y.yield_item(7);
        assert!((&mut last).now_or_never().is_none());
    });
    assert_eq!(collect(items), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn the_item_of_a_yield_that_was_dropped_unpolled_is_dropped_with_it() {
    let items = generator(signal::never(), async |mut y| {
        drop(y.yield_item(1));
        y.yield_item(2).await;
    });
    assert_eq!(collect(items), [2]);
}

#[test]
fn the_item_of_the_last_poll_is_yielded_before_the_end_and_after_the_drop_of_the_body() {
    let dropped = RefCell::new(Vec::new());
    let mut items = pin!(generator(signal::never(), async |mut y| {
        let _local = Dropped(&dropped, "local");
        assert!(y.yield_item(1).now_or_never().is_none());
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(1)));
    assert_eq!(*dropped.borrow(), ["local"]);
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
fn a_yield_is_joined_with_other_work() {
    let items = generator(signal::never(), async |mut y| {
        for n in 0..3 {
            join(y.yield_item(n), async {
                turn().await;
                turn().await;
            })
            .await;
        }
    });
    assert_eq!(collect(items), [0, 1, 2]);
}

#[test]
fn a_yield_inside_futures_unordered_continues() {
    let items = generator(signal::never(), async |mut y| {
        let mut all: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + '_>>> =
            FuturesUnordered::new();
        all.push(Box::pin(turn()));
        all.push(Box::pin(async {
            for n in 0..3 {
                y.yield_item(n).await;
            }
        }));
        while all.next().await.is_some() {}
        drop(all);
        // More than 30 futures, and `join_all` is a `FuturesUnordered` as well.
        let mut waits: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for _ in 0..40 {
            waits.push(Box::pin(turn()));
        }
        waits.push(Box::pin(y.yield_item(3)));
        join_all(waits).await;
    });
    assert_eq!(collect(items), [0, 1, 2, 3]);
}

#[test]
fn a_blocked_yield_inside_futures_unordered_continues() {
    let items = generator(signal::never(), async |mut y| {
        assert!(y.yield_item(1).now_or_never().is_none());
        let mut all: FuturesUnordered<_> = [y.yield_item(2)].into_iter().collect();
        while all.next().await.is_some() {}
    });
    assert_eq!(collect(items), [1, 2]);
}

#[test]
fn an_item_costs_no_wake_up_of_the_consumer() {
    let wakes = Wakes::new();
    let mut items = pin!(generator(signal::never(), async |mut y| {
        for n in 0..3 {
            y.yield_item(n).await;
            // The slot is occupied for one poll.
            assert!(y.yield_item(10 + n).now_or_never().is_none());
            y.yield_item(20 + n).await;
        }
    }));
    let mut all = Vec::new();
    while let Poll::Ready(Some(n)) = wakes.poll(items.as_mut()) {
        all.push(n);
    }
    assert_eq!(all, [0, 10, 20, 1, 11, 21, 2, 12, 22]);
    assert_eq!(wakes.count(), 0);
}

#[test]
fn what_is_ready_often_beside_a_yield_is_not_taken_for_an_executor() {
    const READY: u32 = if cfg!(miri) { 100 } else { 100_000 };

    // With the stream's waker, as `select!` does, and with another one.
    let mut items = pin!(generator(signal::never(), async |mut y| {
        for item in [1, 2] {
            let mut yielding = pin!(y.yield_item(item));
            let mut ready = 0;
            poll_fn(|cx| {
                while yielding.as_mut().poll(cx).is_pending() {
                    ready += 1;
                    if ready == READY {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(())
            })
            .await;
        }
        let mut yielding = FuturesUnordered::from_iter([y.yield_item(3)]);
        let mut ready = 0;
        poll_fn(|cx| {
            while yielding.poll_next_unpin(cx).is_pending() {
                ready += 1;
                if ready == READY {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
    }));
    let wakes = Wakes::new();
    for item in [1, 2] {
        assert_eq!(wakes.poll(items.as_mut()), Poll::Ready(Some(item)));
        assert_eq!(wakes.count(), 0, "the stream is not woken for nothing");
    }
    assert_eq!(wakes.poll(items.as_mut()), Poll::Ready(Some(3)));
    assert_eq!(wakes.poll(items.as_mut()), Poll::Ready(None));
}

#[test]
#[cfg_attr(miri, ignore = "it takes millions of polls")]
fn a_loop_that_polls_a_yield_for_ever_panics_and_does_not_hang() {
    let mut items = pin!(generator(signal::never(), async |mut y| {
        let mut yielding = pin!(y.yield_item(1));
        poll_fn(|cx| {
            while yielding.as_mut().poll(cx).is_pending() {}
            Poll::Ready(())
        })
        .await;
    }));
    assert!(panic_of(|| poll(items.as_mut())).contains("never awaits"));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
#[cfg_attr(miri, ignore = "it takes a million polls")]
fn an_executor_inside_of_the_body_panics_and_does_not_hang() {
    /// The smallest `block_on`: it parks until it is woken.
    fn block_on_it(future: impl Future<Output = ()>) {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
        let mut future = pin!(future);
        while future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            std::thread::park();
        }
    }

    let mut items = pin!(generator(signal::never(), async |mut y| {
        block_on_it(y.yield_item(1));
    }));
    assert!(panic_of(|| poll(items.as_mut())).contains("`block_on`"));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));

    // And in a `Drop`, between two polls.
    struct YieldsInDrop<'a>(Yielder<'a, u8>);
    impl Drop for YieldsInDrop<'_> {
        fn drop(&mut self) {
            block_on_it(self.0.yield_item(2));
        }
    }
    let mut items = Box::pin(generator(signal::never(), async |y| {
        let mut local = YieldsInDrop(y);
        local.0.yield_item(1).await;
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(1)));
    assert!(panic_of(|| drop(items)).contains("`block_on`"));
}

#[test]
fn an_item_that_a_drop_yields_after_the_stop_is_dropped() {
    struct YieldsInDrop<'a>(Yielder<'a, u8>);
    impl Drop for YieldsInDrop<'_> {
        fn drop(&mut self) {
            assert!(self.0.yield_item(2).now_or_never().is_none());
        }
    }
    let token = CancellationToken::new();
    let mut items = pin!(generator(&token, async |y| {
        let mut local = YieldsInDrop(y);
        local.0.yield_item(1).await;
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(1)));
    token.cancel();
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
fn generators_nest_and_the_inner_body_may_yield_to_the_outer_stream() {
    let items = generator(signal::never(), async |mut outer: Yielder<'_, u32>| {
        for n in 0..2 {
            let inner = generator(signal::never(), async |mut inner: Yielder<'_, u32>| {
                outer.yield_item(10 * n).await;
                inner.yield_item(1).await;
                outer.yield_item(10 * n + 2).await;
                inner.yield_item(3).await;
            });
            let inner: Vec<_> = inner.collect().await;
            assert_eq!(inner, [1, 3]);
        }
    });
    assert_eq!(collect(items), [0, 2, 10, 12]);
}

#[test]
fn a_scoped_thread_may_borrow_a_yielder_while_the_body_waits_for_it() {
    let items = generator(signal::never(), async |mut y: Yielder<'_, u32>| {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(y.yield_item(1).now_or_never().is_none()));
        });
        y.yield_item(2).await;
    });
    assert_eq!(collect(items), [1, 2]);
}

#[test]
fn a_generator_moves_to_another_thread_between_two_polls() {
    let mut items = Box::pin(generator(signal::never(), async |mut y| {
        let local = [1, 2, 3];
        for n in &local {
            y.yield_item(*n).await;
        }
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(1)));
    let mut items = std::thread::spawn(move || {
        assert_eq!(poll(items.as_mut()), Poll::Ready(Some(2)));
        items
    })
    .join()
    .unwrap();
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(3)));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
fn yields_that_wait_do_not_add_up_over_the_polls() {
    let items = generator(signal::never(), async |mut y: Yielder<'_, u32>| {
        for n in 0..2000 {
            // One in the slot, and some that are polled in vain in the same poll.
            for _ in 0..4 {
                assert!(y.yield_item(n).now_or_never().is_none());
            }
            turn().await;
        }
    });
    assert_eq!(collect(items), Vec::from_iter(0..2000));
}

#[test]
fn an_item_that_a_drop_yields_is_dropped_with_the_stream() {
    struct YieldsInDrop<'a, 'b>(Yielder<'a, Dropped<'b>>, &'b RefCell<Vec<&'static str>>);
    impl Drop for YieldsInDrop<'_, '_> {
        fn drop(&mut self) {
            let item = Dropped(self.1, "item");
            assert!(self.0.yield_item(item).now_or_never().is_none());
            self.1.borrow_mut().push("body");
        }
    }
    let dropped = RefCell::new(Vec::new());
    let mut items = Box::pin(generator(signal::never(), async |y| {
        let _local = YieldsInDrop(y, &dropped);
        future::pending::<()>().await;
    }));
    assert!(poll(items.as_mut()).is_pending());
    drop(items);
    assert_eq!(*dropped.borrow(), ["body", "item"]);
}

#[test]
fn in_a_drop_no_waker_is_taken_for_the_streams() {
    struct YieldsInDrop<'a, 'b>(Yielder<'a, u8>, &'b Waker);
    impl Drop for YieldsInDrop<'_, '_> {
        fn drop(&mut self) {
            let mut cx = Context::from_waker(self.1);
            assert!(self.0.yield_item(1).poll_unpin(&mut cx).is_pending());
        }
    }
    // The same waker as in the last poll, at the same address.
    let wakes = Wakes::new();
    let waker = Waker::from(wakes.clone());
    let mut items = Box::pin(generator(signal::never(), async |y| {
        let _local = YieldsInDrop(y, &waker);
        future::pending::<()>().await;
    }));
    assert!(
        items
            .poll_next_unpin(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(items);
    assert_eq!(wakes.count(), 1, "who waits for the yield would hang");
}

#[test]
fn items_of_no_size_and_huge_ones_come_out() {
    let nothing = generator(signal::never(), async |mut y| {
        for _ in 0..5 {
            y.yield_item(()).await;
        }
    });
    assert_eq!(collect(nothing).len(), 5);
    let huge = generator(signal::never(), async |mut y| {
        for n in 0..3 {
            y.yield_item([n; 4096]).await;
        }
    });
    assert_eq!(collect(huge), [[0; 4096], [1; 4096], [2; 4096]]);
}
