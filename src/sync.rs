//! Atomics and locks: those of `std`, or loom's in its models. The only file that knows loom.

#[cfg(not(all(test, stopcock_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[cfg(all(test, stopcock_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::Ordering};
#[cfg(all(test, stopcock_loom))]
pub(crate) use turnstile::{AtomicBool, AtomicU64};

/// What a count of cancels begins with: see `token/tree/counts.rs`, which gives its bits their meaning.
pub(crate) const COUNT_START: u64 = 1 << 20 | 0b101;

#[cfg(not(all(test, stopcock_loom)))]
mod counts {
    use super::{AtomicU64, COUNT_START};
    use std::cell::Cell;

    /// Only a few elements are used, so far apart that a cache line holds no more than two of them.
    static CANCEL_COUNTS: [AtomicU64; 256] = [const { AtomicU64::new(COUNT_START) }; 256];

    #[inline(always)]
    pub(crate) fn cancel_counts() -> &'static [AtomicU64; 256] {
        &CANCEL_COUNTS
    }

    /// A number for a new tree. Each thread counts up; two threads rarely have the same number at the same time.
    #[inline(always)]
    pub(crate) fn next_tree() -> u8 {
        thread_local! {
            static TREES: Cell<u8> = const { Cell::new(0) };
        }
        TREES.with(|trees| {
            let number = trees.get();
            trees.set(number.wrapping_add(1));
            // The address of the thread-local is different in each thread.
            number.wrapping_add((std::ptr::from_ref(trees).addr() >> 12) as u8)
        })
    }
}
#[cfg(not(all(test, stopcock_loom)))]
pub(crate) use counts::{cancel_counts, next_tree};

/// How many nodes in this process track their holders.
#[cfg(not(all(test, stopcock_loom)))]
pub(crate) static TRACKING_NODES: AtomicU64 = AtomicU64::new(0);

#[cfg(all(test, stopcock_loom))]
loom::lazy_static! {
    pub(crate) static ref TRACKING_NODES: AtomicU64 = AtomicU64::new(0);
    static ref CANCEL_COUNTS: ModelCounts = ModelCounts::new();
}

/// Two counts for all trees: a model should have few accesses.
#[cfg(all(test, stopcock_loom))]
pub(crate) struct ModelCounts {
    counts: [AtomicU64; 2],
    /// Stands for all other elements. It never changes.
    none: AtomicU64,
    trees: std::sync::atomic::AtomicU8,
}

#[cfg(all(test, stopcock_loom))]
impl ModelCounts {
    fn new() -> Self {
        let count = || AtomicU64::new(COUNT_START);
        Self {
            counts: [count(), count()],
            none: count(),
            trees: std::sync::atomic::AtomicU8::new(0),
        }
    }
}

#[cfg(all(test, stopcock_loom))]
impl std::ops::Index<usize> for ModelCounts {
    type Output = AtomicU64;

    fn index(&self, place: usize) -> &AtomicU64 {
        match place % 4 {
            0 => &self.counts[place / 4 % 2],
            _ => &self.none,
        }
    }
}

#[cfg(all(test, stopcock_loom))]
pub(crate) fn cancel_counts() -> &'static ModelCounts {
    &CANCEL_COUNTS
}

/// Models make all trees in one thread, so the order is the same in each run.
#[cfg(all(test, stopcock_loom))]
pub(crate) fn next_tree() -> u8 {
    CANCEL_COUNTS.trees.fetch_add(1, Ordering::Relaxed)
}

/// Loom's atomics with a turnstile before each access.
///
/// Loom 0.7 checks a store for a conflict only with the last access before it. If that is a load by the storing thread,
/// loom never tries the store before an earlier load of another thread: a cancel, which loads before it stores, would
/// never be seen by a check that another thread makes first. A read-modify-write conflicts with every other one, so
/// loom tries all orders, and a relaxed one synchronises nothing.
#[cfg(all(test, stopcock_loom))]
mod turnstile {
    use loom::sync::atomic::{self, AtomicUsize, Ordering};

    macro_rules! with_turnstile {
        ($atomic:ident, $value:ty) => {
            #[derive(Debug)]
            pub(crate) struct $atomic {
                turnstile: AtomicUsize,
                atomic: atomic::$atomic,
            }

            impl $atomic {
                pub(crate) fn new(value: $value) -> Self {
                    Self {
                        turnstile: AtomicUsize::new(0),
                        atomic: atomic::$atomic::new(value),
                    }
                }

                pub(crate) fn load(&self, ordering: Ordering) -> $value {
                    self.turnstile.fetch_add(1, Ordering::Relaxed);
                    self.atomic.load(ordering)
                }
            }
        };
    }

    with_turnstile!(AtomicBool, bool);
    with_turnstile!(AtomicU64, u64);

    macro_rules! with_store {
        ($atomic:ident, $value:ty) => {
            impl $atomic {
                pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                    self.turnstile.fetch_add(1, Ordering::Relaxed);
                    self.atomic.store(value, ordering);
                }
            }
        };
    }

    with_store!(AtomicBool, bool);

    macro_rules! with_read_modify_writes {
        ($atomic:ident, $value:ty, $($operation:ident),+) => {
            impl $atomic {
                $(
                    pub(crate) fn $operation(&self, value: $value, ordering: Ordering) -> $value {
                        self.turnstile.fetch_add(1, Ordering::Relaxed);
                        self.atomic.$operation(value, ordering)
                    }
                )+
            }
        };
    }

    with_read_modify_writes!(AtomicU64, u64, fetch_add, fetch_sub, fetch_or, fetch_and);

    impl AtomicU64 {
        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.turnstile.fetch_add(1, Ordering::Relaxed);
            self.atomic.compare_exchange(current, new, success, failure)
        }
    }
}
