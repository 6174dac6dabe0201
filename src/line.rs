use std::collections::{VecDeque, vec_deque};

/// Values in the order in which they came, each under a key of its own that is never given out again.
///
/// Where one is removed it leaves a gap. Gaps are closed once they are the greater part, so a value is moved at most
/// once for each that is removed, and to remove `n` in any order costs `O(n log n)`, with the search for their keys. A
/// line takes no more than four times the room of what is in it, or of a few entries.
pub(crate) struct Line<L> {
    /// In the order of their keys. Neither the first nor the last is a gap.
    entries: VecDeque<Entry<L>>,
    /// How many of them are no gaps.
    live: usize,
    next_key: u64,
}

struct Entry<L> {
    key: u64,
    value: Option<L>,
}

/// So few entries are not worth the moving.
const FEW: usize = 16;

impl<L> Line<L> {
    /// A line whose first key this is.
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

    /// The key is this value's until it is removed or taken.
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
        self.place(key)?.as_mut()
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: u64) -> Option<L> {
        // Its values may all have been taken.
        if self.is_empty() {
            return None;
        }
        self.remove_from_some(key)
    }

    #[inline(never)]
    fn remove_from_some(&mut self, key: u64) -> Option<L> {
        let value = self.place(key)?.take()?;
        self.live -= 1;
        self.close_gaps();
        Some(value)
    }

    pub(crate) fn pop_front(&mut self) -> Option<L> {
        let value = self.entries.pop_front()?.value;
        self.live -= 1;
        self.close_gaps();
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

    fn place(&mut self, key: u64) -> Option<&mut Option<L>> {
        let at = match self.entries.back() {
            // The last to come is often the first to leave.
            Some(last) if last.key == key => self.entries.len() - 1,
            _ => self.search(key)?,
        };
        Some(&mut self.entries[at].value)
    }

    fn search(&self, key: u64) -> Option<usize> {
        // Where it is as long as no gap before it has been closed.
        let first = self.entries.front()?.key;
        let place = usize::try_from(key.checked_sub(first)?).ok()?;
        match self.entries.get(place) {
            Some(entry) if entry.key == key => Some(place),
            _ => self
                .entries
                .binary_search_by_key(&key, |entry| entry.key)
                .ok(),
        }
    }

    fn close_gaps(&mut self) {
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

impl<L> IntoIterator for Line<L> {
    type Item = L;
    type IntoIter = IntoIter<L>;

    fn into_iter(self) -> IntoIter<L> {
        IntoIter(self.entries.into_iter())
    }
}

/// The values of a line, which are nobody's any more.
pub(crate) struct IntoIter<L>(vec_deque::IntoIter<Entry<L>>);

impl<L> IntoIter<L> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // The last one is no gap.
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

/// A line that allocates nothing for the one that came when there was none.
pub(crate) struct ShortLine<L> {
    /// Before all the others.
    first: Option<(u64, L)>,
    others: Line<L>,
    len: usize,
}

impl<L> ShortLine<L> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            others: Line::with_first_key(0),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key is this value's until it is removed or taken.
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
        // As a rule nobody waits.
        if self.is_empty() {
            return None;
        }
        self.pop_first_of_some()
    }

    #[inline(never)]
    fn pop_first_of_some(&mut self) -> Option<L> {
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
