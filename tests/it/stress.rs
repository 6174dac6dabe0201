//! Real threads, at random.

use crate::support::poll;
use futures::{StreamExt, executor::block_on, stream};
use std::{
    cell::Cell,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::Poll,
    thread,
};
use stopcock::{CancelStreamExt, CancellationToken, generator};

/// The number of waits, each of which a new thread cancels.
const WAITS: usize = if cfg!(miri) { 5 } else { 2000 };
const ROUNDS: usize = if cfg!(miri) { 40 } else { 1_000_000 };

/// The number of tokens of a batch: the threads synchronise once for each batch.
const BATCH: usize = if cfg!(miri) { 20 } else { 1000 };

#[test]
fn a_million_racing_cancels_let_no_item_by_late_and_lose_none() {
    let (batches, received) = mpsc::sync_channel::<Vec<CancellationToken>>(0);
    // The number of cancels that have returned, in all batches.
    let returned = Arc::new(AtomicUsize::new(0));
    let canceller = {
        let returned = Arc::clone(&returned);
        thread::spawn(move || {
            for token in received.iter().flatten() {
                token.cancel();
                returned.fetch_add(1, SeqCst);
            }
        })
    };
    for batch in 0..ROUNDS / BATCH {
        let before = batch * BATCH;
        let taken: Vec<_> = (0..BATCH).map(|_| Cell::new(0)).collect();
        let tokens: Vec<_> = (0..BATCH).map(|_| CancellationToken::new()).collect();
        let mut streams: Vec<_> = tokens
            .iter()
            .zip(&taken)
            .map(|(token, taken)| {
                let source = stream::repeat_with(|| taken.replace(taken.get() + 1));
                source.take_until_cancelled(token.child_token())
            })
            .collect();
        let mut given = vec![0; BATCH];
        batches.send(tokens).unwrap();

        let mut ended = 0;
        while ended < BATCH {
            // The token that is about to be cancelled.
            let had_returned = returned.load(SeqCst) - before;
            let stream = &mut streams[ended];
            match poll(pin!(stream)) {
                Poll::Ready(Some(item)) => {
                    assert!(had_returned <= ended, "{ended}: an item came late");
                    assert_eq!(item, given[ended], "{ended}: not a prefix");
                    given[ended] += 1;
                }
                Poll::Ready(None) => {
                    assert_eq!(
                        given[ended],
                        taken[ended].get(),
                        "{ended}: an item was lost"
                    );
                    ended = (ended + 1).max(returned.load(SeqCst) - before).min(BATCH);
                }
                Poll::Pending => thread::yield_now(),
            }
        }
        for ((stream, taken), given) in streams.iter_mut().zip(&taken).zip(given) {
            assert_eq!(poll(pin!(stream)), Poll::Ready(None));
            assert_eq!(given, taken.get(), "an item was lost");
        }
    }
    drop(batches);
    canceller.join().unwrap();
}

#[test]
fn a_stream_that_waits_is_always_woken_by_a_cancel_of_another_thread() {
    for round in 0..WAITS {
        let token = CancellationToken::new();
        let child = token.child_token();
        let canceller = thread::spawn(move || token.cancel());
        let mut stream = stream::pending::<u8>().take_until_cancelled(child);
        // Hangs if a wake-up is lost.
        assert_eq!(block_on(stream.next()), None, "round {round}");
        canceller.join().unwrap();
    }
}

#[test]
fn a_body_that_waits_is_dropped_by_a_cancel_of_another_thread() {
    for _ in 0..WAITS {
        let token = CancellationToken::new();
        let child = token.child_token();
        let alive = Arc::new(());
        let canceller = thread::spawn(move || token.cancel());
        let mut items = pin!(generator(child, {
            let alive = Arc::clone(&alive);
            async move |mut y| {
                let _alive = alive;
                y.yield_item(1).await;
                std::future::pending::<()>().await;
            }
        }));
        while block_on(items.next()).is_some() {}
        assert_eq!(Arc::strong_count(&alive), 1);
        canceller.join().unwrap();
    }
}
