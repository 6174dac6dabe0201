use crate::keyed_queue::{IntoIter, KeyedQueue};
use std::mem;

/// The listeners of a node, in the order of insertion.
///
/// Most nodes never have more than one listener at a time, and that one needs no allocation. Further ones are in a
/// `KeyedQueue`, which shares its allocation with `B`, other state that few nodes need.
pub(super) struct Listeners<L, B = ()> {
    /// The listener that was inserted when there was none.
    first: Option<L>,
    /// `None` until there is a second listener, or `B` is needed.
    rare: Option<Box<Rare<L, B>>>,
}

struct Rare<L, B> {
    queue: KeyedQueue<L>,
    extra: B,
}

/// A key that no listener has.
pub(super) const NO_KEY: u64 = 0;

/// The key of `first`.
const FIRST: u64 = 1;

impl<L, B> Default for Listeners<L, B> {
    fn default() -> Self {
        Self {
            first: None,
            rare: None,
        }
    }
}

impl<L, B: Default> Listeners<L, B> {
    /// Returns the key of the listener, valid until the listener is removed or taken.
    #[inline(always)]
    pub(super) fn insert(&mut self, listener: L) -> u64 {
        if self.is_empty() {
            self.first = Some(listener);
            return FIRST;
        }
        self.rare_mut().queue.push(listener)
    }

    /// The other state. Allocates it if there is none.
    pub(super) fn extra_mut(&mut self) -> &mut B {
        &mut self.rare_mut().extra
    }

    #[inline]
    fn rare_mut(&mut self) -> &mut Rare<L, B> {
        self.rare.get_or_insert_with(|| {
            Box::new(Rare {
                queue: KeyedQueue::with_first_key(FIRST + 1),
                extra: B::default(),
            })
        })
    }
}

impl<L, B> Listeners<L, B> {
    /// The other state, if it has been allocated.
    pub(super) fn extra(&self) -> Option<&B> {
        self.rare.as_ref().map(|rare| &rare.extra)
    }

    /// Replaces the listener under `key` and returns it. If there is none, returns the new listener as an `Err`.
    pub(super) fn replace(&mut self, key: u64, listener: L) -> Result<L, L> {
        let slot = match (key, &mut self.rare) {
            (FIRST, _) => self.first.as_mut(),
            (_, rare) => rare.as_mut().and_then(|rare| rare.queue.get_mut(key)),
        };
        match slot {
            Some(slot) => Ok(mem::replace(slot, listener)),
            None => Err(listener),
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: u64) -> Option<L> {
        if key == FIRST {
            return self.first.take();
        }
        self.rare.as_mut()?.queue.remove(key)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rare.as_ref().is_none_or(|rare| rare.queue.is_empty())
    }

    #[cfg(feature = "tokio")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &L> {
        let rest = self.rare.iter().flat_map(|rare| rare.queue.iter());
        self.first.iter().chain(rest)
    }

    #[inline]
    pub(super) fn take(&mut self) -> Taken<L> {
        Taken {
            first: self.first.take(),
            rest: self.rare.as_mut().map(|rare| rare.take_queue()),
        }
    }
}

impl<L, B> Rare<L, B> {
    #[inline(never)]
    fn take_queue(&mut self) -> IntoIter<L> {
        mem::replace(&mut self.queue, KeyedQueue::with_first_key(FIRST + 1)).into_iter()
    }
}

/// The listeners that were taken from a node.
pub(super) struct Taken<L> {
    first: Option<L>,
    rest: Option<IntoIter<L>>,
}

impl<L> Default for Taken<L> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<L> Taken<L> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(IntoIter::is_empty)
    }
}

impl<L> Iterator for Taken<L> {
    type Item = L;

    #[inline]
    fn next(&mut self) -> Option<L> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.rest.as_mut()?.next()
    }
}
