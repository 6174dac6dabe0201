//! The only file that knows loom: atomics and locks, real ones or the model checker's.

#[cfg(not(all(test, stopcock_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

#[cfg(all(test, stopcock_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::Ordering};
#[cfg(all(test, stopcock_loom))]
pub(crate) use turnstile::{AtomicBool, AtomicU8, AtomicU64};

/// How many cancels are under way in this process.
#[cfg(not(all(test, stopcock_loom)))]
pub(crate) static CANCELS_UNDER_WAY: AtomicU64 = AtomicU64::new(0);

/// How many nodes in this process track their holders.
#[cfg(not(all(test, stopcock_loom)))]
pub(crate) static TRACKING_NODES: AtomicU64 = AtomicU64::new(0);

#[cfg(all(test, stopcock_loom))]
loom::lazy_static! {
    pub(crate) static ref CANCELS_UNDER_WAY: AtomicU64 = AtomicU64::new(0);
    pub(crate) static ref TRACKING_NODES: AtomicU64 = AtomicU64::new(0);
}

/// Loom's atomics with a turnstile before each access.
///
/// Loom 0.7 looks for a conflict of a store only with the last access before it. If that is a load by the storing
/// thread, it never tries the store before an earlier load of another thread: a cancel, which looks before it stores,
/// would never be seen by a look that another thread makes first. A read-modify-write conflicts with every other one,
/// so all orders are tried, and a relaxed one synchronises nothing.
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
    with_turnstile!(AtomicU8, u8);
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
    with_store!(AtomicU8, u8);

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
