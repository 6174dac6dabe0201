//! What short-lived tokens, waiters and the like leave behind (T8), and what they cost while they exist, in heap bytes.

use crate::support::poll as poll_stream;
use futures::{Stream, stream};
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    task::{Context, Poll, Waker},
    thread,
};
use stopcock::{
    CancelStreamExt, CancellationToken, CancelledOwned, generator,
    signal::{any, never},
};

use tokio_util::sync::CancellationToken as Theirs;

#[cfg(feature = "tokio")]
use {
    futures::{FutureExt, channel::oneshot, future},
    std::time::Duration,
    stopcock::spawn_generator,
};

/// Counts what each thread allocates and frees, so tests on other threads do not interfere.
#[allow(
    unsafe_code,
    reason = "an allocator cannot be written without, and only hands on to the system's"
)]
mod counting {
    use std::{
        alloc::{GlobalAlloc, Layout, System},
        cell::Cell,
    };

    thread_local! {
        static HEAP: Cell<Heap> = const { Cell::new(Heap { bytes: 0, allocations: 0 }) };
        static HOOK: Cell<Option<fn()>> = const { Cell::new(None) };
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) struct Heap {
        /// Allocated and not freed, by this thread.
        pub(super) bytes: isize,
        /// The number of allocations so far.
        pub(super) allocations: isize,
    }

    impl Heap {
        pub(super) fn now() -> Self {
            HEAP.get()
        }

        /// The difference to an earlier reading.
        pub(super) fn growth(self) -> Self {
            let now = Self::now();
            Self {
                bytes: now.bytes - self.bytes,
                allocations: now.allocations - self.allocations,
            }
        }

        fn count(bytes: isize, allocations: isize) {
            let Self {
                bytes: before,
                allocations: earlier,
            } = Self::now();
            HEAP.set(Self {
                bytes: before + bytes,
                allocations: earlier + allocations,
            });
        }
    }

    /// Runs the hook, which allocates nothing, when this thread next allocates.
    pub(super) fn at_the_next_allocation(hook: fn()) {
        HOOK.set(Some(hook));
    }

    struct Counting;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    // SAFETY: all methods call those of the system's allocator. The count is in a thread-local that
    // needs neither an allocation nor a destructor.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            Heap::count(layout.size() as isize, 1);
            if let Some(hook) = HOOK.take() {
                hook();
            }
            // SAFETY: the caller guarantees the layout.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            Heap::count(layout.size() as isize, 1);
            // SAFETY: the caller guarantees the layout.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
            Heap::count(-(layout.size() as isize), 0);
            // SAFETY: the caller guarantees the pointer and its layout. It came from the system's allocator.
            unsafe { System.dealloc(place, layout) }
        }

        unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            Heap::count(size as isize - layout.size() as isize, 1);
            // SAFETY: the caller guarantees the pointer, its layout and the size. It came from the system's allocator.
            unsafe { System.realloc(place, layout, size) }
        }
    }
}

use counting::{Heap, at_the_next_allocation};

const MILLION: usize = if cfg!(miri) { 200 } else { 1_000_000 };

/// Enough to detect what each of them would leave.
const MANY: usize = if cfg!(miri) { 8 } else { 10_000 };

/// In bytes.
const RESIDUE: isize = 4096;

fn poll(future: &mut (impl Future<Output = ()> + Unpin)) -> Poll<()> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn waiter(token: &CancellationToken) -> CancelledOwned {
    let mut cancelled = token.clone().cancelled_owned();
    assert!(poll(&mut cancelled).is_pending());
    cancelled
}

/// Holds something until it is dropped.
type Guest = Box<dyn FnOnce()>;

fn guest<T: 'static>(guest: T) -> Guest {
    Box::new(move || drop(guest))
}

/// Something that uses a token for a short time.
type Visit = fn(&CancellationToken) -> Guest;

const VISITS: &[(&str, Visit)] = &[
    ("child", |token| guest(token.child_token())),
    ("waiter", |token| guest(waiter(token))),
    ("waiter at a child", |token| {
        guest(waiter(&token.child_token()))
    }),
    ("waiter at a grandchild", |token| {
        guest(waiter(&token.child_token().child_token()))
    }),
    ("callback", |token| guest(token.on_cancel(|_| ()))),
    ("callback at a child", |token| {
        token.child_token().on_cancel(|_| ()).detach();
        guest(token.child_token().on_cancel(|_| ()))
    }),
    ("link", |token| {
        let short_lived = CancellationToken::new();
        guest(CancellationToken::linked([token, &short_lived]))
    }),
    ("waiter at a link of children", |token| {
        let children = [token.child_token(), token.child_token()];
        guest(waiter(&CancellationToken::linked(children)))
    }),
    ("adapter", |token| guest(adapter(token))),
    ("adapter at a child", |token| {
        guest(adapter(&token.child_token()))
    }),
    ("hold", |token| guest(token.hold())),
    ("clone of a hold at a child", |token| {
        let hold = token.child_token().hold();
        guest((hold.clone(), hold))
    }),
    ("token of tokio-util's", |token| {
        guest(token.to_tokio_util())
    }),
    (
        "token of tokio-util's of a grandchild that is dropped first",
        |token| guest(token.child_token().child_token().to_tokio_util()),
    ),
    ("token of tokio-util's and back", |token| {
        let theirs = token.to_tokio_util();
        guest(waiter(&CancellationToken::from(theirs)))
    }),
    ("settled", |token| {
        let mut settled = token.settled();
        assert!(poll(&mut settled).is_pending());
        guest(settled)
    }),
    #[cfg(feature = "tokio")]
    ("deadline", |token| {
        guest(token.child_with_timeout(Duration::from_secs(60)))
    }),
    #[cfg(feature = "tokio")]
    ("later deadline", |token| {
        let timed = token.child_with_timeout(Duration::from_secs(60));
        guest(timed.child_with_timeout(Duration::from_secs(120)))
    }),
    #[cfg(feature = "tokio")]
    ("waiter at a child of a deadline", |token| {
        let timed = token.child_with_timeout(Duration::from_secs(60));
        guest(waiter(&timed.child_token()))
    }),
];

fn adapter(token: &CancellationToken) -> impl Sized + use<> {
    let mut stream = Box::pin(stream::pending::<()>().take_until_cancelled(token.clone()));
    assert!(poll_stream(stream.as_mut()).is_pending());
    stream
}

#[derive(Clone, Copy, Debug)]
enum Order {
    FirstInFirstOut,
    LastInFirstOut,
    Shuffled,
}

const ORDERS: [Order; 3] = [
    Order::FirstInFirstOut,
    Order::LastInFirstOut,
    Order::Shuffled,
];

impl Order {
    fn send_away(self, mut guests: Vec<Guest>) {
        match self {
            Self::FirstInFirstOut => {}
            Self::LastInFirstOut => guests.reverse(),
            Self::Shuffled => {
                let mut state = 1_u32;
                for place in (1..guests.len()).rev() {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    guests.swap(place, (state >> 8) as usize % (place + 1));
                }
            }
        }
        guests.into_iter().for_each(|leave| leave());
    }
}

/// In the context of a runtime, as deadlines need one. It runs nothing else.
fn on_a_clock(test: impl FnOnce()) {
    #[cfg(feature = "tokio")]
    let runtime = {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap()
    };
    #[cfg(feature = "tokio")]
    let _context = runtime.enter();
    test();
}

#[track_caller]
fn check_residue<T>(
    case: &str,
    token: &CancellationToken,
    visits: impl FnOnce(&CancellationToken) -> T,
) {
    let before = Heap::now();
    let _stays = visits(token);
    let left = before.growth().bytes;
    assert!(left <= RESIDUE, "{case}: {left} bytes are left");
}

#[test]
fn a_million_in_turn_leave_nothing() {
    on_a_clock(|| {
        let token = CancellationToken::new().child_token();
        check_residue("all kinds", &token, |token| {
            for (_, visit) in VISITS.iter().cycle().take(MILLION) {
                visit(token)();
            }
        });
        assert!(!token.is_cancelled());
    });
}

#[test]
fn a_million_in_turn_leave_nothing_where_they_are_listed() {
    on_a_clock(|| {
        let root = CancellationToken::new();
        root.track_holders();
        let token = root.child_token();
        token.track_holders();
        check_residue("all kinds", &token, |token| {
            for (_, visit) in VISITS.iter().cycle().take(MILLION) {
                visit(token)();
            }
        });
        assert!(root.holders().is_empty() && token.holders().is_empty());
    });
}

#[test]
fn many_of_a_kind_leave_nothing_in_turn_or_at_once_in_any_order_of_drops() {
    on_a_clock(|| {
        for (case, visit) in VISITS {
            let token = CancellationToken::new().child_token();
            check_residue(case, &token, |token| {
                (0..MANY).for_each(|_| visit(token)());
            });
            check_residue(
                &format!("{case}, each until the next has come"),
                &token,
                |token| {
                    // The last one is still there.
                    (0..MANY).fold(visit(token), |earlier, _| {
                        let next = visit(token);
                        earlier();
                        next
                    })
                },
            );
            for order in ORDERS {
                check_residue(&format!("{case}, {order:?}"), &token, |token| {
                    order.send_away((0..MANY).map(|_| visit(token)).collect());
                });
            }
        }
    });
}

#[test]
fn many_of_all_kinds_at_once_leave_nothing_in_any_order_of_drops() {
    on_a_clock(|| {
        let token = CancellationToken::new().child_token();
        for order in ORDERS {
            check_residue(&format!("{order:?}"), &token, |token| {
                let visits = VISITS.iter().cycle().take(MANY);
                order.send_away(visits.map(|(_, visit)| visit(token)).collect());
            });
        }
    });
}

/// Adopted from one token of theirs, in turn or all at once.
#[test]
fn many_adopted_tokens_leave_nothing_in_any_order_of_drops() {
    type Adopt = fn(&Theirs) -> Guest;

    let theirs = Theirs::new().child_token();
    let adopt: [(&str, Adopt); 4] = [
        ("token", |theirs| guest(CancellationToken::from(theirs))),
        ("token of a child", |theirs| {
            guest(CancellationToken::from(theirs.child_token()))
        }),
        ("waiter at a child", |theirs| {
            guest(waiter(&CancellationToken::from(theirs).child_token()))
        }),
        ("cancelled token", |theirs| {
            let token = CancellationToken::from(theirs);
            token.cancel();
            guest(token)
        }),
    ];
    let check = |case: String, visits: &mut dyn FnMut()| {
        let before = Heap::now();
        visits();
        let left = before.growth().bytes;
        assert!(left <= RESIDUE, "{case}: {left} bytes are left");
    };
    check("a million".into(), &mut || {
        for (_, adopt) in adopt.iter().cycle().take(MILLION) {
            adopt(&theirs)();
        }
    });
    for (case, adopt) in adopt {
        for order in ORDERS {
            check(format!("{case}, {order:?}"), &mut || {
                order.send_away((0..MANY).map(|_| adopt(&theirs)).collect());
            });
        }
    }
    // A token that is cancelled itself is unregistered from theirs, even while it is kept.
    let token = CancellationToken::from(&theirs);
    let before = Heap::now();
    token.cancel();
    assert!(before.growth().bytes < 0, "nothing was released");
}

/// While there is a holder.
#[test]
fn waiters_for_a_cancelled_token_to_settle_leave_nothing() {
    let token = CancellationToken::new().child_token();
    let _held = adapter(&token);
    token.cancel();
    let settled = |token: &CancellationToken| {
        let mut settled = token.settled();
        assert!(poll(&mut settled).is_pending());
        guest(settled)
    };
    check_residue("one by one", &token, |token| {
        (0..MANY).for_each(|_| settled(token)());
    });
    for order in ORDERS {
        check_residue(&format!("{order:?}"), &token, |token| {
            order.send_away((0..MANY).map(|_| settled(token)).collect());
        });
    }
}

/// Each of the two threads lists the child in the parent, and one entry is enough.
///
/// The first one waits where the parent allocates the entry, under its lock, until the other one has found the
/// child without an entry.
#[test]
fn two_threads_that_wait_on_the_same_new_child_at_once_leave_no_more_than_one_after_the_other() {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 50 };
    static IS_LISTING: AtomicBool = AtomicBool::new(false);
    static IS_COMING: AtomicBool = AtomicBool::new(false);

    fn let_the_other_come() {
        IS_LISTING.store(true, SeqCst);
        until(&IS_COMING);
        // Its last steps, up to the lock, cannot be observed.
        (0..50).for_each(|_| thread::yield_now());
    }

    fn until(flag: &AtomicBool) {
        while !flag.load(SeqCst) {
            thread::yield_now();
        }
    }

    let left = |at_once: bool| {
        let before = Heap::now();
        let mut by_others = 0;
        // Both have a listener already, so the child needs an allocated entry.
        let parents: Vec<_> = (0..ROUNDS).map(|_| CancellationToken::new()).collect();
        let _guests: Vec<_> = parents.iter().map(waiter).collect();
        for parent in &parents {
            let child = parent.child_token();
            IS_LISTING.store(!at_once, SeqCst);
            IS_COMING.store(!at_once, SeqCst);
            by_others += thread::scope(|scope| {
                let other = scope.spawn(|| {
                    until(&IS_LISTING);
                    let before = Heap::now();
                    IS_COMING.store(true, SeqCst);
                    drop(waiter(&child));
                    before.growth().bytes
                });
                if at_once {
                    at_the_next_allocation(let_the_other_come);
                }
                drop(waiter(&child));
                other.join().unwrap()
            });
        }
        // One thread may free what the other one has allocated.
        before.growth().bytes + by_others
    };
    // The first round makes what is made only once.
    left(false);
    assert_eq!(left(true), left(false));
}

/// What it takes to make this.
pub(crate) fn cost<T>(make: impl FnOnce() -> T) -> Heap {
    let before = Heap::now();
    let made = make();
    let cost = before.growth();
    drop(made);
    cost
}

pub(crate) const NOTHING: Heap = Heap {
    bytes: 0,
    allocations: 0,
};

#[test]
fn a_token_or_a_child_is_one_allocation_of_128_bytes_at_most() {
    let root = CancellationToken::new();
    let child = root.child_token();
    drop(waiter(&child));
    for cost in [
        cost(CancellationToken::new),
        cost(|| root.child_token()),
        cost(|| child.child_token()),
    ] {
        assert!(cost.allocations == 1 && cost.bytes <= 128, "{cost:?}");
    }
}

#[test]
fn a_token_linked_to_one_that_comes_twice_takes_no_more_than_a_child() {
    let token = CancellationToken::new();
    let linked = cost(|| CancellationToken::linked([&token, &token]));
    assert_eq!(linked.bytes, cost(|| token.child_token()).bytes);
}

#[test]
fn a_clone_and_a_check_allocate_nothing() {
    let child = CancellationToken::new().child_token();
    drop(waiter(&child));
    assert_eq!(cost(|| child.clone()), NOTHING);
    assert_eq!(cost(|| child.is_cancelled()), NOTHING);
    assert_eq!(cost(|| child.stop_reason()), NOTHING);
}

#[test]
fn an_adapter_on_a_token_that_had_waiters_before_allocates_nothing() {
    let root = CancellationToken::new();
    let child = root.child_token();
    for token in [&root, &child] {
        drop([waiter(token), waiter(token)]);
        let _another = waiter(token);
        let made_and_polled = cost(|| {
            let adapter = stream::pending::<()>().take_until_cancelled(token);
            assert!(poll_stream(pin!(adapter)).is_pending());
        });
        // The waker of `poll_stream` is one.
        assert_eq!(made_and_polled.allocations, 1);
        assert_eq!(made_and_polled.bytes, 0);
    }
}

#[test]
fn a_generator_allocates_for_its_token_only_if_its_body_requests_it() {
    let token = CancellationToken::new();
    let run = |asks: bool, polls| {
        cost(|| {
            let mut items = pin!(generator(&token, async |mut y| {
                let _asked = asks.then(|| y.token());
                y.yield_item(1).await;
            }));
            for _ in 0..polls {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(items.as_mut().poll_next(&mut cx).is_ready());
            }
        })
    };
    // Dropped before its end, and at its end.
    assert_eq!(run(false, 1), NOTHING);
    assert_eq!(run(false, 2), NOTHING);
    assert!(run(true, 1).allocations > 0);
    assert_eq!(run(true, 1).bytes, 0);
    assert_eq!(run(true, 2).bytes, 0);

    // Stopped by a signal that is not a token, with a custom reason.
    let mut items = pin!(generator(any(&token, never()), async |mut y| {
        y.yield_item(1).await;
    }));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(items.as_mut().poll_next(&mut cx).is_ready());
    token.cancel_with("enough");
    let stopped = cost(|| assert_eq!(items.as_mut().poll_next(&mut cx), Poll::Ready(None)));
    // No more than reading the reason of the token takes.
    let asked = cost(|| token.stop_reason());
    assert_eq!(stopped.allocations, asked.allocations);
}

/// As documented at the token.
#[test]
fn a_loop_of_child_tokens_costs_a_node_a_turn_until_the_last_one_is_dropped() {
    const TURNS: usize = if cfg!(miri) { 100 } else { 10_000 };

    for is_waited_on in [false, true] {
        let root = CancellationToken::new();
        let before = Heap::now();
        let mut token = root.child_token();
        for _ in 1..TURNS {
            token = token.child_token();
        }
        if is_waited_on {
            drop(waiter(&token));
        }
        let grown = before.growth();
        assert_eq!(grown.allocations, TURNS as isize);
        assert!(grown.bytes <= 128 * TURNS as isize, "{grown:?}");
        drop(token);
        assert_eq!(before.growth().bytes, 0);
    }
}

/// D1: it keeps a handle of the runtime, but no timer.
#[test]
#[cfg(feature = "tokio")]
fn a_deadline_later_than_the_parents_costs_no_timer() {
    on_a_clock(|| {
        let parent = CancellationToken::with_timeout(Duration::from_secs(60));
        let child = |seconds| parent.child_with_timeout(Duration::from_secs(seconds));
        // From now on the parent's list has free capacity.
        let _listed = [child(61), child(61)];
        let with_timer = cost(|| child(59));
        for seconds in [60, 61] {
            let without = cost(|| child(seconds));
            let timer = size_of::<tokio::time::Sleep>() as isize;
            assert!(without.bytes + timer <= with_timer.bytes);
            assert!(without.allocations + 2 <= with_timer.allocations);
        }
    });
}

#[test]
#[cfg(feature = "tokio")]
fn a_deadline_that_is_over_has_no_timer() {
    on_a_clock(|| {
        let timed =
            |seconds| cost(|| CancellationToken::with_timeout(Duration::from_secs(seconds))).bytes;
        assert!(timed(0) < timed(60));
    });
}

/// D5.
#[test]
#[cfg(feature = "tokio")]
fn a_token_with_a_deadline_that_was_cancelled_keeps_no_timer() {
    on_a_clock(|| {
        let root = CancellationToken::new();
        let timed = root.child_with_timeout(Duration::from_secs(60));
        let before = Heap::now();
        root.cancel();
        let timer = -before.growth().bytes;
        assert!(timer > 0, "nothing was released");
        drop(timed);
    });
}

/// The capacity for items in the channel, and that for waiting senders.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_channel_frees_the_capacity_of_a_burst_once_it_was_consumed() {
    // As many as may be sent without a yield.
    const BURST: usize = 1000;
    for capacity in [2 * BURST, 1] {
        let (hand_out, handed_out) = oneshot::channel();
        let mut stream = spawn_generator(never(), capacity, |tx| async move {
            assert!(hand_out.send(tx.clone()).is_ok());
            future::pending().await
        });
        let tx = handed_out.await.unwrap();
        assert!(poll_stream(Pin::new(&mut stream)).is_pending());
        let before = Heap::now();
        let mut sends: Vec<_> = (0..BURST).map(|_| Box::pin(tx.send([0_u8; 16]))).collect();
        for send in &mut sends {
            let _ = send.now_or_never();
        }
        assert!(before.growth().bytes > 16 * BURST as isize);
        for _ in 0..BURST {
            assert!(poll_stream(Pin::new(&mut stream)).is_ready());
        }
        drop(sends);
        // Idle.
        assert!(poll_stream(Pin::new(&mut stream)).is_pending());
        let left = before.growth().bytes;
        assert!(
            left <= RESIDUE,
            "capacity {capacity}: {left} bytes are left"
        );
    }
}
