//! A hundred thousand producers on real threads, abandoned at any point. All are dropped, and the heap is as before.
//!
//! A program of its own, as it counts the allocations of all threads.
#![cfg(feature = "tokio")]

use futures::StreamExt;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering::SeqCst},
    },
    time::Duration,
};
use stopcock::{
    CancellationToken, Sender, SpawnedGenerator, StopReason, blocking_iter, spawn_generator,
};
use tokio::runtime::{Builder, Handle};

const PRODUCERS: usize = 100_000;
const TASKS: usize = 8;

/// One of this number blocks a thread of its own.
const BLOCKING: u64 = 64;

/// The bytes that may be left: nothing that grows with the number of producers.
const SLACK: isize = 4096;

static BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[allow(
    unsafe_code,
    reason = "an allocator that counts, and hands on to the system's"
)]
// SAFETY: all methods call those of the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as isize, SeqCst);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, SeqCst);
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Vigna's `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// How many items to wait for, for each kind of body.
const ITEMS: [u64; 5] = [3, 1, 3, 3, 0];

/// Owned by every body and every item.
type Held = Arc<()>;

async fn body(tx: Sender<Held>, held: Held, kind: u64) -> Result<(), StopReason> {
    match kind {
        // Never ends by itself.
        0 => loop {
            tx.send(Arc::clone(&held)).await?;
        },
        // Is idle.
        1 => {
            tx.send(held).await?;
            pending().await
        }
        // Ends.
        2 => {
            for _ in 0..3 {
                tx.send(Arc::clone(&held)).await?;
            }
            Ok(())
        }
        // Another task sends, and ends with the body's token.
        3 => {
            let token = tx.token();
            let helper =
                tokio::spawn(async move { while tx.send(Arc::clone(&held)).await.is_ok() {} });
            token.cancelled().await;
            helper.abort();
            Ok(())
        }
        // Cleans up.
        _ => {
            let reason = tx.closed().await;
            tokio::task::yield_now().await;
            drop(held);
            Err(reason)
        }
    }
}

async fn abandon(
    mut stream: SpawnedGenerator<Held>,
    token: CancellationToken,
    random: &mut Random,
    items: u64,
) {
    for _ in 0..random.below(items + 1) {
        drop(stream.next().await);
    }
    match random.below(5) {
        0 => drop(stream),
        1 => {
            token.cancel();
            assert!(stream.next().await.is_none());
        }
        2 => {
            Handle::current().spawn(async move { token.cancel() });
            while stream.next().await.is_some() {}
        }
        3 => drop(stream.with_grace(Duration::from_millis(1))),
        _ => {
            let _ = stream.join().await;
        }
    }
}

async fn abandon_many(root: CancellationToken, held: Held, seed: usize, producers: usize) {
    let mut random = Random(seed as u64);
    for _ in 0..producers {
        let (token, held) = (root.child_token(), Arc::clone(&held));
        let capacity = 1 + random.below(4) as usize;
        if random.below(BLOCKING) == 0 {
            let items = std::iter::repeat_with(move || Arc::clone(&held));
            let mut stream = blocking_iter(&token, capacity, items);
            for _ in 0..random.below(3) {
                drop(stream.next().await);
            }
            if random.below(2) == 0 {
                token.cancel();
            }
            continue;
        }
        let kind = random.below(5);
        let stream = spawn_generator(&token, capacity, |tx| body(tx, held, kind));
        abandon(stream, token, &mut random, ITEMS[kind as usize]).await;
    }
}

/// Makes and abandons this number of producers. Returns the bytes that are still allocated after that.
fn round(producers: usize) -> isize {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (root, held) = (CancellationToken::new(), Held::default());
        let tasks: Vec<_> = (0..TASKS)
            .map(|seed| {
                let all = abandon_many(root.clone(), Arc::clone(&held), seed, producers / TASKS);
                tokio::spawn(all)
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        root.cancel_and_settle().await;
        assert_eq!(Arc::strong_count(&held), 1, "somebody is left");
    });
    drop(runtime);
    BYTES.load(SeqCst)
}

#[test]
fn abandoned_producers_leave_nothing_behind() {
    // Some memory is allocated once, such as what the standard library keeps for its threads.
    let before = round(PRODUCERS / 100);
    let after = round(PRODUCERS);
    assert!(after - before < SLACK, "{} bytes are left", after - before);
}
