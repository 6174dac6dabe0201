use std::{mem, vec};

/// Who is to be told, in the order in which they came.
///
/// Most nodes never have more than one at once: that one needs no allocation. The rest are a vector in the order of
/// their keys, with gaps where somebody left. It takes no more than four times the room of those that are there,
/// whoever leaves first: gaps are closed once they are the greater part.
pub(super) struct Listeners<L> {
    /// Who came when there was nobody.
    first: Option<L>,
    /// `None` until a second one came. Boxed, as most nodes go without it.
    rest: Option<Box<Rest<L>>>,
}

struct Rest<L> {
    entries: Vec<Entry<L>>,
    /// How many of them are no gaps.
    live: usize,
}

/// The last one is never a gap.
struct Entry<L> {
    key: u64,
    listener: Option<L>,
}

/// No listener has this key.
pub(super) const NO_KEY: u64 = 0;

/// The key of the first.
const FIRST: u64 = 1;

/// So few entries are not worth the moving.
const FEW: usize = 16;

impl<L> Default for Listeners<L> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<L> Listeners<L> {
    /// The key is this listener's until it is removed or taken.
    #[inline(always)]
    pub(super) fn insert(&mut self, listener: L) -> u64 {
        if self.is_empty() {
            self.first = Some(listener);
            return FIRST;
        }
        self.rest.get_or_insert_default().push(listener)
    }

    /// Puts a listener in another's place and answers with that one, or gives it back if there is none.
    pub(super) fn replace(&mut self, key: u64, listener: L) -> Result<L, L> {
        let place = match (key, &mut self.rest) {
            (FIRST, _) => Some(&mut self.first),
            (_, rest) => rest.as_mut().and_then(|rest| rest.place(key)),
        };
        match place {
            Some(Some(place)) => Ok(mem::replace(place, listener)),
            _ => Err(listener),
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: u64) -> Option<L> {
        if key == FIRST {
            return self.first.take();
        }
        self.rest.as_mut()?.remove(key)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.live == 0)
    }

    #[inline]
    pub(super) fn take(&mut self) -> Taken<L> {
        Taken {
            first: self.first.take(),
            rest: self.rest.take().map(|rest| rest.entries.into_iter()),
        }
    }
}

impl<L> Default for Rest<L> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            live: 0,
        }
    }
}

impl<L> Rest<L> {
    fn push(&mut self, listener: L) -> u64 {
        let key = self.entries.last().map_or(FIRST, |last| last.key) + 1;
        self.entries.push(Entry {
            key,
            listener: Some(listener),
        });
        self.live += 1;
        key
    }

    fn remove(&mut self, key: u64) -> Option<L> {
        let listener = self.place(key)?.take()?;
        self.live -= 1;
        self.close_gaps();
        Some(listener)
    }

    fn place(&mut self, key: u64) -> Option<&mut Option<L>> {
        let at = match self.entries.last() {
            // Who comes last often leaves first.
            Some(last) if last.key == key => self.entries.len() - 1,
            _ => self
                .entries
                .binary_search_by_key(&key, |entry| entry.key)
                .ok()?,
        };
        Some(&mut self.entries[at].listener)
    }

    fn close_gaps(&mut self) {
        while matches!(self.entries.last(), Some(Entry { listener: None, .. })) {
            self.entries.pop();
        }
        if self.entries.len() > FEW.max(2 * self.live) {
            self.entries.retain(|entry| entry.listener.is_some());
        }
        if self.entries.capacity() > 4 * FEW.max(self.live) {
            self.entries.shrink_to(2 * self.live);
        }
    }
}

/// The listeners of a node that has been cancelled.
pub(super) struct Taken<L> {
    first: Option<L>,
    rest: Option<vec::IntoIter<Entry<L>>>,
}

impl<L> Taken<L> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.len() == 0)
    }
}

impl<L> Iterator for Taken<L> {
    type Item = L;

    #[inline]
    fn next(&mut self) -> Option<L> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.rest.as_mut()?.find_map(|entry| entry.listener)
    }
}
