//! How many holders a node has, and the tasks that wait until it has none.

use super::listeners::{Listeners, Taken};
use crate::sync::{AtomicU64, Ordering};
use std::task::Waker;

/// The number of holders of a node and its descendants, and whether a task waits for it to become zero.
///
/// It can neither wrap nor reach the bit of `AWAITED`: that takes 2^63 increments, which is some centuries.
pub(super) struct HolderCount {
    // ORDERING: `Release` for decrements, `Acquire` for loads, by a waiting task or by the thread that wakes it: a
    // thread that sees the count at zero sees all that the holders did before, including the last drop. `Relaxed` for
    // increments: a thread that must not miss a new holder is synchronised with its construction in some other way.
    held: AtomicU64,
}

/// Set in `held` while tasks wait.
const AWAITED: u64 = 1 << 63;

impl Default for HolderCount {
    fn default() -> Self {
        Self {
            held: AtomicU64::new(0),
        }
    }
}

impl HolderCount {
    #[inline(always)]
    pub(super) fn increment(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether the count is zero now, and tasks wait for that.
    #[inline(always)]
    pub(super) fn decrement(&self) -> bool {
        self.held.fetch_sub(1, Ordering::Release) == AWAITED | 1
    }

    pub(super) fn is_zero(&self) -> bool {
        self.held.load(Ordering::Acquire) & !AWAITED == 0
    }

    pub(super) fn is_zero_and_awaited(&self) -> bool {
        self.held.load(Ordering::Acquire) == AWAITED
    }

    /// To be called after the waker of a waiting task is registered, under the lock of the waiters: a thread that
    /// decrements to zero from now on wakes it. Returns whether the count is zero already.
    pub(super) fn set_awaited(&self) -> bool {
        self.held.fetch_or(AWAITED, Ordering::Acquire) & !AWAITED == 0
    }

    /// To be called under the lock of the waiters, which are taken.
    pub(super) fn clear_awaited(&self) {
        self.held.fetch_and(!AWAITED, Ordering::Relaxed);
    }
}

/// The tasks that wait until there are no holders.
#[derive(Default)]
pub(super) struct SettleWaiters {
    /// How often the waiters have been taken to be woken. A key is valid in one generation only.
    generation: u64,
    wakers: Listeners<Waker>,
}

/// The key of a waiter, with its generation.
pub(super) struct Registered {
    generation: u64,
    key: u64,
}

impl SettleWaiters {
    /// Takes the waiters, to be woken.
    pub(super) fn take(&mut self) -> Taken<Waker> {
        self.generation += 1;
        self.wakers.take()
    }

    /// Registers `waker`, and returns the one that it replaces. If the waiter has been taken since it was registered,
    /// returns `waker` as an `Err`. Either is to be dropped without the lock.
    pub(super) fn register(
        &mut self,
        registered: &mut Option<Registered>,
        waker: Waker,
    ) -> Result<Option<Waker>, Waker> {
        match registered {
            Some(earlier) if earlier.generation != self.generation => Err(waker),
            Some(earlier) => self.wakers.replace(earlier.key, waker).map(Some),
            None => {
                *registered = Some(Registered {
                    generation: self.generation,
                    key: self.wakers.insert(waker),
                });
                Ok(None)
            }
        }
    }

    /// Removes a waiter, and returns its waker, to be dropped without the lock.
    pub(super) fn remove(&mut self, registered: &Registered) -> Option<Waker> {
        match registered.generation == self.generation {
            true => self.wakers.remove(registered.key),
            false => None,
        }
    }
}
