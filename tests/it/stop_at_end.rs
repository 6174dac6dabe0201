//! S12 and S14: a stop that came before the end of the source is reported as a stop, whatever has ended the source.

use crate::support::{Wakes, panic_of, poll};
use futures::{
    Stream, StreamExt,
    stream::{self, FusedStream},
};
use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, Signal, StopReason, Yielder, generator,
    signal::{any, never, when},
    testing::Stoppable,
    try_generator,
};

/// A source that yields 'a', and then cancels the token in the poll in which it ends.
fn cancelling(token: &CancellationToken) -> impl Stream<Item = char> + Unpin + use<> {
    let token = token.clone();
    let mut letters = "a".chars();
    stream::poll_fn(move |_| {
        let letter = letters.next();
        if letter.is_none() {
            token.cancel_with("enough");
        }
        Poll::Ready(letter)
    })
}

/// The items, with the text of an error in brackets.
fn reported<S: Stoppable<Item = Result<char, StopReason>>>(stream: S) -> String {
    let mut stream = pin!(stream);
    let mut reported = String::new();
    while let Poll::Ready(Some(item)) = poll(stream.as_mut()) {
        match item {
            Ok(item) => reported.push(item),
            Err(reason) => reported += &format!("({reason})"),
        }
    }
    assert!(stream.is_terminated());
    assert_eq!(stream.stop_reason().is_some(), reported.ends_with(')'));
    reported
}

/// A future that is ready once the source has ended, and wakes no task.
#[test]
fn a_future_that_is_ready_by_the_end_has_stopped_it_though_it_has_woken_nothing() {
    let is_over = Cell::new(false);
    let source = stream::poll_fn(|_| {
        is_over.set(true);
        Poll::Ready(None)
    });
    let over = poll_fn(|_| match is_over.get() {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    let stopped = format!("({})", StopReason::Cancelled);
    assert_eq!(reported(source.with_cancellation(when(over))), stopped);
}

#[test]
fn of_two_signals_that_have_fired_by_the_end_the_first_gives_its_reason() {
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let source = stream::poll_fn(|_| {
        second.cancel_with("the second");
        first.cancel_with("the first");
        Poll::Ready(None)
    });
    let stream = source.with_cancellation(any(&first, &second));
    assert_eq!(reported(stream), "(the first)");
}

fn reason_of<S: Stoppable>(stream: S) -> Option<String> {
    let mut stream = pin!(stream);
    while let Poll::Ready(Some(_)) = poll(stream.as_mut()) {}
    stream.stop_reason().map(ToString::to_string)
}

#[test]
fn a_source_that_ends_in_the_poll_in_which_the_stop_fires_was_stopped() {
    let new = CancellationToken::new;
    let enough = Some("enough".to_owned());
    let t = new();
    assert_eq!(reason_of(cancelling(&t).take_until_cancelled(&t)), enough);
    let t = new();
    let stream = cancelling(&t).take_until_cancelled(&t).drop_on_cancel();
    assert_eq!(reason_of(stream), enough);
    let t = new();
    assert_eq!(reported(cancelling(&t).with_cancellation(&t)), "a(enough)");
    let t = new();
    let stream = cancelling(&t).with_cancellation(&t).drop_on_cancel();
    assert_eq!(reported(stream), "a(enough)");
    let t = new();
    let stream = cancelling(&t).map(Ok).try_with_cancellation(&t);
    assert_eq!(reported(stream), "a(enough)");
    let t = new();
    let stream = cancelling(&t).with_cancellation(t.child_token().child_token());
    assert_eq!(reported(stream), "a(enough)");
    let t = new();
    let stream = cancelling(&t).with_cancellation(any(never(), any(&t, never())));
    assert_eq!(reported(stream), "a(enough)");
    let t = new();
    let stream = cancelling(&t).with_cancellation(when(t.cancelled()));
    assert_eq!(reported(stream), "a(cancelled)");
}

#[test]
fn a_body_that_returns_in_the_poll_in_which_the_stop_fires_was_stopped() {
    let token = CancellationToken::new();
    let stream = generator(&token, async |mut y: Yielder<'_, char>| {
        y.yield_item('a').await;
        token.cancel_with("enough");
    });
    assert_eq!(reason_of(stream), Some("enough".to_owned()));
    for fails in [true, false] {
        let token = CancellationToken::new();
        let stream = try_generator(&token, async |mut y| {
            y.yield_item('a').await;
            token.cancel_with("enough");
            match fails {
                true => Err(StopReason::from("it broke")),
                false => Ok(()),
            }
        });
        assert_eq!(reported(stream), "a(enough)");
    }
}

#[test]
fn the_stop_of_an_inner_stream_is_reported_by_the_outer_one() {
    // In the poll in which the inner one notices it.
    type Inner = Pin<Box<dyn Stream<Item = char>>>;
    let inner: [fn(&CancellationToken) -> Inner; 3] = [
        |t| Box::pin(stopping(t).take_until_cancelled(t)),
        |t| {
            let mut source = stopping(t);
            Box::pin(generator(t, async move |mut y| {
                while let Some(item) = source.next().await {
                    y.yield_item(item).await;
                }
            }))
        },
        |t| Box::pin(stopping(t).take_until_cancelled(t).drop_on_cancel()),
    ];
    for inner in inner {
        let t = CancellationToken::new();
        assert_eq!(reported(inner(&t).with_cancellation(&t)), "a(enough)");
        let t = CancellationToken::new();
        assert_eq!(
            reported(inner(&t).with_cancellation(t.child_token())),
            "a(enough)"
        );
        let t = CancellationToken::new();
        let tries = inner(&t).map(Ok).try_with_cancellation(&t);
        assert_eq!(reported(tries), "a(enough)");
        let t = CancellationToken::new();
        // For the outer one the error of the inner one is an item.
        let twice = inner(&t).with_cancellation(&t).try_with_cancellation(&t);
        assert_eq!(reported(twice), "a(enough)(enough)");
        // For its parent the stop of a child is a natural end.
        let t = CancellationToken::new();
        assert_eq!(reported(inner(&t.child_token()).with_cancellation(&t)), "a");
    }
}

/// A source that yields 'a', and then cancels the token in a poll that is pending.
fn stopping(token: &CancellationToken) -> impl Stream<Item = char> + Unpin + use<> {
    let token = token.clone();
    let mut letters = "a".chars();
    stream::poll_fn(move |_| match letters.next() {
        None => {
            token.cancel_with("enough");
            Poll::Pending
        }
        letter => Poll::Ready(letter),
    })
}

#[test]
fn a_signal_that_fires_after_the_end_changes_nothing() {
    let token = CancellationToken::new();
    let mut stream = pin!(stream::iter("a".chars()).with_cancellation(&token));
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(Some(Ok('a')))));
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
    token.cancel();
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
    assert!(stream.stop_reason().is_none());
}

#[test]
fn a_signal_that_panics_at_the_end_ends_the_stream() {
    struct Faulty;
    impl Signal for Faulty {
        fn is_fired(self: Pin<&mut Self>) -> bool {
            false
        }
        fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
            panic!("the signal is broken")
        }
    }
    let mut stream = pin!(stream::empty::<char>().with_cancellation(Faulty));
    assert_eq!(panic_of(|| poll(stream.as_mut())), "the signal is broken");
    assert!(stream.is_terminated());
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
    assert!(stream.stop_reason().is_none());
}

#[test]
fn a_signal_wakes_no_task_after_its_source_has_ended() {
    let token = CancellationToken::new();
    let wakes = Wakes::new();
    let mut stream = pin!(stream::empty::<char>().with_cancellation(&token));
    assert!(matches!(wakes.poll(stream.as_mut()), Poll::Ready(None)));
    token.cancel();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn on_two_threads_the_outer_one_never_takes_the_stop_for_an_end() {
    type Stack = Pin<Box<dyn Stoppable<Item = Result<u32, StopReason>>>>;
    let stacks: [fn(&CancellationToken) -> Stack; 3] = [
        |t| {
            Box::pin(
                stream::repeat(1)
                    .take_until_cancelled(t)
                    .with_cancellation(t),
            )
        },
        |t| {
            let inner = stream::repeat(1).take_until_cancelled(t);
            Box::pin(inner.with_cancellation(t.child_token()))
        },
        |t| {
            let numbers = generator(t, async |mut y: Yielder<'_, u32>| {
                loop {
                    y.yield_item(1).await;
                }
            });
            Box::pin(numbers.with_cancellation(t))
        },
    ];
    for stack in stacks {
        for round in 0..500 {
            race(round, |token| {
                let mut stream = stack(token);
                loop {
                    match poll(stream.as_mut()) {
                        Poll::Ready(Some(Err(_))) => break,
                        Poll::Ready(None) => panic!("round {round}: it ended without an error"),
                        _ => {}
                    }
                }
            });
        }
    }
}

/// Reads a stream under a token that another thread cancels meanwhile, at a different time in each round.
fn race(round: usize, read: impl FnOnce(&CancellationToken)) {
    let token = CancellationToken::new();
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for _ in 0..round * 37 % 4000 {
                std::hint::spin_loop();
            }
            token.cancel();
        });
        start.wait();
        read(&token);
    });
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::{cancelling, poll, race, reason_of, reported};
    use futures::{Stream, StreamExt, executor::block_on, stream};
    use std::{
        cell::Cell,
        future::{pending, poll_fn},
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
        time::Duration,
    };
    use stopcock::{
        BlockingGenerator, CancelStreamExt, CancelTryStreamExt, CancellationToken,
        SpawnedGenerator, StopReason, blocking_generator, signal, spawn_generator,
        try_blocking_generator, try_spawn_generator, try_spawn_generator_on,
    };
    use tokio::{
        task::yield_now,
        time::{Instant, advance},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);

    /// Advances the paused clock without firing timers.
    fn tick(time: Duration) {
        let _ = pin!(advance(time)).poll(&mut Context::from_waker(Waker::noop()));
    }

    /// A source that yields 'a', and ends in a poll during which this much time passes.
    fn slow(time: Duration) -> impl Stream<Item = char> + Unpin {
        let mut letters = "a".chars();
        stream::poll_fn(move |_| {
            let letter = letters.next();
            if letter.is_none() {
                tick(time);
            }
            Poll::Ready(letter)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_read_at_the_end_though_no_timer_has_fired() {
        const LATE: &str = "a(deadline exceeded)";
        for (time, expected) in [(SECOND, LATE), (SECOND - NANOSECOND, "a")] {
            let at = Instant::now() + SECOND;
            assert_eq!(reported(slow(time).with_deadline(at)), expected);
            let tries = slow(time).map(Ok).try_with_timeout(SECOND);
            assert_eq!(reported(tries), expected);
            let token = CancellationToken::with_timeout(SECOND);
            assert_eq!(reported(slow(time).with_cancellation(token)), expected);
            let token = CancellationToken::with_timeout(SECOND).child_token();
            assert_eq!(reported(slow(time).with_cancellation(&token)), expected);
            let silent = reason_of(slow(time).take_until_timeout(SECOND));
            assert_eq!(silent.is_some(), expected == LATE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_read_at_the_end_of_a_source_that_was_pending_as_well() {
        for (time, is_stop) in [(SECOND, true), (SECOND - NANOSECOND, false)] {
            let mut was_pending = false;
            let source = stream::poll_fn(move |_| {
                if !was_pending {
                    was_pending = true;
                    return Poll::Pending;
                }
                tick(time);
                Poll::Ready(None::<char>)
            });
            let mut stream = pin!(source.with_timeout(SECOND));
            assert!(poll(stream.as_mut()).is_pending());
            let end = poll(stream.as_mut());
            assert_eq!(end.map(|item| item.is_some()), Poll::Ready(is_stop));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_deadline_twice_the_outer_one_reports_what_the_inner_one_saw() {
        let at = Instant::now() + SECOND;
        let mut inner = stream::repeat('a').take_until_deadline(at);
        // The time passes between the two checks.
        let inner = stream::poll_fn(move |cx| {
            tick(SECOND / 2);
            inner.poll_next_unpin(cx)
        });
        assert_eq!(reported(inner.with_deadline(at)), "a(deadline exceeded)");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_counts_as_an_item_for_an_idle_timeout() {
        for timeout in [Duration::ZERO, SECOND] {
            assert_eq!(reported(slow(2 * SECOND).with_idle_timeout(timeout)), "a");
        }
        let mut stream = pin!(
            stream::once(pending::<char>())
                .take_until_timeout(SECOND)
                .with_idle_timeout(SECOND)
        );
        assert!(poll(stream.as_mut()).is_pending());
        tick(SECOND);
        assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
        assert!(stream.stop_reason().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_within_the_grace_period_is_natural() {
        let check = async |grace: Duration, expected: &str| {
            let t = CancellationToken::new();
            let stream = cancelling(&t).with_cancellation(&t).drain_for(grace);
            assert_eq!(reported(stream), expected);
        };
        check(SECOND, "a").await;
        check(Duration::ZERO, "a(enough)").await;
        for (time, expected) in [(SECOND, "a(enough)"), (SECOND - NANOSECOND, "a")] {
            let token = CancellationToken::new();
            let stream = slow(time).with_cancellation(&token).drain_for(SECOND);
            token.cancel_with("enough");
            assert_eq!(reported(stream), expected);
        }
    }

    /// All items until the end, as text.
    async fn read<S>(stream: S) -> String
    where
        S: Stream<Item = Result<char, StopReason>>,
    {
        let letter = |item| match item {
            Ok(item) => String::from(item),
            Err(reason) => format!("({reason})"),
        };
        stream.map(letter).collect().await
    }

    fn spawned(token: &CancellationToken) -> SpawnedGenerator<char> {
        let stop = token.clone();
        spawn_generator(token, 1, |tx| async move {
            tx.send('a').await?;
            // The consumer has taken the item.
            tx.send('b').await?;
            stop.cancel_with("enough");
            Ok(())
        })
    }

    #[tokio::test]
    async fn a_producer_whose_body_ends_as_the_stop_fires_was_stopped() {
        let token = CancellationToken::new();
        let mut stream = spawned(&token);
        while stream.next().await.is_some() {}
        assert_eq!(stream.stop_reason().unwrap().to_string(), "enough");
        let token = CancellationToken::new();
        let outer = read(spawned(&token).with_cancellation(&token)).await;
        assert!(outer.ends_with("(enough)"), "{outer}");
    }

    #[tokio::test]
    async fn a_try_producer_reports_its_stop_as_an_error_once() {
        let token = CancellationToken::new();
        let mut stream = try_spawn_generator(&token, 1, |tx| async move {
            loop {
                tx.send('a').await?;
            }
            #[allow(unreachable_code, reason = "it names the error")]
            Ok::<_, StopReason>(())
        });
        assert!(matches!(stream.next().await, Some(Ok('a'))));
        assert_eq!(stream.size_hint(), (0, None));
        token.cancel_with("enough");
        assert_eq!(read(&mut stream).await, "(enough)");
        assert_eq!(stream.size_hint(), (0, Some(0)));
        assert_eq!(stream.stop_reason().unwrap().to_string(), "enough");

        let token = CancellationToken::new();
        token.cancel_with("beforehand");
        let unbegun = try_blocking_generator(&token, 1, |_| Ok::<(), StopReason>(()));
        assert_eq!(
            read(unbegun.map(|item| item.map(|()| 'a'))).await,
            "(beforehand)"
        );
    }

    #[test]
    fn the_stop_of_a_try_producer_on_a_thread_is_an_error() {
        let token = CancellationToken::new();
        let mut stream: BlockingGenerator<Result<char, StopReason>> =
            try_blocking_generator(&token, 1, |tx| {
                loop {
                    tx.send('a')?;
                }
            });
        assert!(matches!(block_on(stream.next()), Some(Ok('a'))));
        token.cancel_with("enough");
        assert_eq!(block_on(read(&mut stream)), "(enough)");
        assert!(block_on(stream.join()).is_err());
    }

    #[tokio::test]
    async fn the_error_of_a_body_is_the_only_one_even_if_the_stop_fires_then() {
        let token = CancellationToken::new();
        let mut stream = try_spawn_generator(&token, 1, |tx| async move {
            tx.send('a').await?;
            Err(StopReason::from("it broke"))
        });
        assert!(matches!(stream.next().await, Some(Ok('a'))));
        assert!(matches!(stream.next().await, Some(Err(_))));
        token.cancel();
        assert_eq!(read(&mut stream).await, "");
        assert!(stream.stop_reason().is_none());
        assert_eq!(stream.size_hint(), (0, Some(0)));

        // The stop came first, and the error is still in the channel.
        let token = CancellationToken::new();
        let mut stream = try_spawn_generator(&token, 1, |tx| async move {
            tx.send('a').await?;
            Err(StopReason::from("it broke"))
        });
        for _ in 0..3 {
            yield_now().await;
        }
        token.cancel_with("enough");
        assert_eq!(read(&mut stream).await, "(enough)");
    }

    #[test]
    fn a_runtime_that_shuts_down_is_reported_by_a_try_producer() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let stream = try_spawn_generator_on(&handle, signal::never(), 1, |tx| async move {
            tx.send('a').await?;
            pending::<Result<(), StopReason>>().await
        });
        drop(runtime);
        assert_eq!(block_on(read(stream)), "(cancelled)");
    }

    #[test]
    fn on_two_threads_no_producer_ends_without_an_error() {
        type Stack = Pin<Box<dyn Stream<Item = Result<u32, StopReason>>>>;
        let stacks: [fn(&CancellationToken) -> Stack; 5] = [
            |t| Box::pin(endless(t).with_cancellation(t)),
            |t| {
                Box::pin(
                    endless(&t.child_token())
                        .map(Ok)
                        .try_with_cancellation(t.child_token()),
                )
            },
            |t| Box::pin(try_endless(t)),
            |t| Box::pin(try_endless(t).try_with_cancellation(t)),
            |t| Box::pin(on_a_thread(t).with_cancellation(t)),
        ];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let _context = runtime.enter();
        for (n, stack) in stacks.iter().enumerate() {
            for round in 0..60 {
                // For its parent the stop of a child alone would be a natural end; both are children of the one that is cancelled.
                race(round, |token| {
                    let last = block_on(stack(token).fold(None, async |_, item| Some(item)));
                    assert!(matches!(last, Some(Err(_))), "stack {n}, round {round}");
                });
            }
        }
    }

    fn endless(token: &CancellationToken) -> SpawnedGenerator<u32> {
        spawn_generator(token, 16, |tx| async move {
            loop {
                tx.send(1).await?;
            }
        })
    }

    fn try_endless(token: &CancellationToken) -> SpawnedGenerator<Result<u32, StopReason>> {
        try_spawn_generator(token, 16, |tx| async move {
            loop {
                tx.send(1).await?;
            }
        })
    }

    fn on_a_thread(token: &CancellationToken) -> BlockingGenerator<u32> {
        blocking_generator(token, 16, |tx| {
            loop {
                tx.send(1)?;
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_has_woken_nothing_is_polled_at_the_end_of_a_draining_stream_as_well() {
        let is_over = Cell::new(false);
        let source = stream::poll_fn(|_| {
            is_over.set(true);
            Poll::Ready(None)
        });
        let over = poll_fn(|_| match is_over.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let stream = source.with_cancellation(signal::when(over));
        let stopped = format!("({})", StopReason::Cancelled);
        assert_eq!(reported(stream.drain_for(Duration::ZERO)), stopped);
    }
}
