//! On real threads.

use super::{next, poll_once};
use futures::{Stream, StreamExt, executor::block_on};
use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    thread,
};
use stopcock::{
    CancelStreamExt, CancellationToken,
    testing::{Moment, Source},
};

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
