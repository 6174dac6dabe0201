use std::collections::{VecDeque, vec_deque};

/// A queue whose values have keys, by which any of them can be removed. A key is never used twice.
///
/// A removed value leaves a gap. Gaps are closed once more than half of the entries are gaps. So a value is moved at
/// most once for each value that is removed, and removing `n` values in any order costs `O(n log n)`, including the
/// search for their keys. The capacity is at most four times the number of values, or a small constant.
pub(crate) struct KeyedQueue<L> {
    /// Sorted by key. Neither the first nor the last is a gap.
    entries: VecDeque<Entry<L>>,
    /// The number of entries that are not gaps.
    live: usize,
    next_key: u64,
}

struct Entry<L> {
    key: u64,
    value: Option<L>,
}

/// The gaps of so few entries are not closed.
const FEW: usize = 16;

impl<L> KeyedQueue<L> {
    /// Makes an empty queue. `key` is the key of its first value.
    pub(crate) const fn with_first_key(key: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            live: 0,
            next_key: key,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Returns the key of the value, valid until the value is removed or taken.
    pub(crate) fn push(&mut self, value: L) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.entries.push_back(Entry {
            key,
            value: Some(value),
        });
        self.live += 1;
        key
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut L> {
        self.slot(key)?.as_mut()
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: u64) -> Option<L> {
        // Fast path: all values may have been taken.
        if self.is_empty() {
            return None;
        }
        self.remove_nonempty(key)
    }

    #[inline(never)]
    fn remove_nonempty(&mut self, key: u64) -> Option<L> {
        let value = self.slot(key)?.take()?;
        self.live -= 1;
        self.compact();
        Some(value)
    }

    pub(crate) fn pop_front(&mut self) -> Option<L> {
        let value = self.entries.pop_front()?.value;
        self.live -= 1;
        self.compact();
        value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &L> {
        self.entries.iter().filter_map(|entry| entry.value.as_ref())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.entries
            .iter_mut()
            .filter_map(|entry| entry.value.as_mut())
    }

    fn slot(&mut self, key: u64) -> Option<&mut Option<L>> {
        let at = match self.entries.back() {
            // The last value is often the first one to be removed.
            Some(last) if last.key == key => self.entries.len() - 1,
            _ => self.search(key)?,
        };
        Some(&mut self.entries[at].value)
    }

    fn search(&self, key: u64) -> Option<usize> {
        // The index of the entry, as long as no gap before it has been closed.
        let first = self.entries.front()?.key;
        let index = usize::try_from(key.checked_sub(first)?).ok()?;
        match self.entries.get(index) {
            Some(entry) if entry.key == key => Some(index),
            _ => self
                .entries
                .binary_search_by_key(&key, |entry| entry.key)
                .ok(),
        }
    }

    fn compact(&mut self) {
        while matches!(self.entries.front(), Some(Entry { value: None, .. })) {
            self.entries.pop_front();
        }
        while matches!(self.entries.back(), Some(Entry { value: None, .. })) {
            self.entries.pop_back();
        }
        if self.entries.len() > FEW.max(2 * self.live) {
            self.entries.retain(|entry| entry.value.is_some());
        }
        if self.entries.capacity() > 4 * FEW.max(self.live) {
            self.entries.shrink_to(2 * self.live);
        }
    }
}

impl<L> IntoIterator for KeyedQueue<L> {
    type Item = L;
    type IntoIter = IntoIter<L>;

    fn into_iter(self) -> IntoIter<L> {
        IntoIter(self.entries.into_iter())
    }
}

/// The values of a queue, without their keys.
pub(crate) struct IntoIter<L>(vec_deque::IntoIter<Entry<L>>);

impl<L> IntoIter<L> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // The last entry is not a gap.
        self.0.len() == 0
    }
}

impl<L> Iterator for IntoIter<L> {
    type Item = L;

    #[inline]
    fn next(&mut self) -> Option<L> {
        loop {
            if let Some(value) = self.0.next()?.value {
                return Some(value);
            }
        }
    }
}

/// A [`KeyedQueue`] that needs no allocation for a value that is pushed while it is empty.
pub(crate) struct SmallKeyedQueue<L> {
    /// Precedes all others.
    first: Option<(u64, L)>,
    others: KeyedQueue<L>,
    len: usize,
}

impl<L> SmallKeyedQueue<L> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            others: KeyedQueue::with_first_key(0),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the key of the value, valid until the value is removed or taken.
    pub(crate) fn push(&mut self, value: L) -> u64 {
        self.len += 1;
        if self.len > 1 {
            return self.others.push(value);
        }
        let key = self.others.next_key;
        self.others.next_key += 1;
        self.first = Some((key, value));
        key
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut L> {
        match &mut self.first {
            Some((first, value)) if *first == key => Some(value),
            _ => self.others.get_mut(key),
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<L> {
        let removed = match self.first {
            Some((first, _)) if first == key => self.first.take().map(|(_, value)| value),
            _ => self.others.remove(key),
        };
        self.len -= usize::from(removed.is_some());
        removed
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<L> {
        // Fast path: usually the queue is empty.
        if self.is_empty() {
            return None;
        }
        self.pop_front_nonempty()
    }

    #[inline(never)]
    fn pop_front_nonempty(&mut self) -> Option<L> {
        self.len -= 1;
        match self.first.take() {
            Some((_, value)) => Some(value),
            None => self.others.pop_front(),
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut L> {
        let first = self.first.iter_mut().map(|(_, value)| value);
        first.chain(self.others.iter_mut())
    }
}
