//! Real threads, at random.

use crate::support::poll;
use futures::{StreamExt, executor::block_on, stream};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::Poll,
    thread,
};
use stopcock::{CancelStreamExt, CancellationToken, generator};

const ROUNDS: u64 = if cfg!(miri) { 20 } else { 1_000_000 };

/// Two threads step by step: cheaper than a `Barrier`, a million times.
#[derive(Default)]
struct Steps(AtomicU64);

impl Steps {
    fn take(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    fn wait_for(&self, step: u64) {
        while self.0.load(SeqCst) < step {
            thread::yield_now();
        }
    }
}

#[test]
fn a_million_racing_cancels_let_no_item_by_late_and_lose_none() {
    let token = Arc::new(Mutex::new(CancellationToken::new()));
    let begun = Arc::new(Steps::default());
    let returned = Arc::new(Steps::default());
    let canceller = {
        let (token, begun, returned) = (token.clone(), begun.clone(), returned.clone());
        thread::spawn(move || {
            for round in 1..=ROUNDS {
                begun.wait_for(round);
                let token = token.lock().unwrap().clone();
                token.cancel();
                returned.take();
            }
        })
    };
    let taken = AtomicU64::new(0);
    for round in 1..=ROUNDS {
        let fresh = CancellationToken::new();
        *token.lock().unwrap() = fresh.clone();
        taken.store(0, SeqCst);
        let source = stream::repeat_with(|| taken.fetch_add(1, SeqCst));
        let mut stream = pin!(source.take_until_cancelled(fresh.child_token()));
        begun.take();
        let mut given = 0;
        loop {
            let had_returned = returned.0.load(SeqCst) == round;
            match poll(stream.as_mut()) {
                Poll::Ready(Some(item)) => {
                    assert!(!had_returned, "round {round}: an item came late");
                    assert_eq!(item, given, "round {round}: not a prefix");
                    given += 1;
                }
                Poll::Ready(None) => break,
                Poll::Pending => {}
            }
        }
        assert_eq!(given, taken.load(SeqCst), "round {round}: an item was lost");
        returned.wait_for(round);
    }
    canceller.join().unwrap();
}

#[test]
fn a_stream_that_waits_is_always_woken_by_a_cancel_of_another_thread() {
    for round in 0..ROUNDS / 100 {
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
    for _ in 0..ROUNDS / 1000 {
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
