use std::{mem, vec};

/// Who is to be told, in the order in which they came.
///
/// Most nodes never have more than one at once: that one needs no allocation. The rest are a vector in the order of
/// their keys, with gaps where somebody left. It takes no more than four times the room of those that are there,
/// whoever leaves first: gaps are closed once they are the greater part.
pub(super) struct Listeners<L> {
    /// Who came when there was nobody.
    first: Option<L>,
    rest: Vec<Entry<L>>,
    /// How many of the rest are no gaps.
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
            rest: Vec::new(),
            live: 0,
        }
    }
}

impl<L> Listeners<L> {
    /// The key is this listener's until it is removed or taken.
    #[inline]
    pub(super) fn insert(&mut self, listener: L) -> u64 {
        let last = match self.rest.last() {
            Some(last) => last.key,
            None if self.first.is_none() => {
                self.first = Some(listener);
                return FIRST;
            }
            None => FIRST,
        };
        let key = last + 1;
        self.rest.push(Entry {
            key,
            listener: Some(listener),
        });
        self.live += 1;
        key
    }

    /// Puts a listener in another's place and answers with that one, or gives it back if there is none.
    pub(super) fn replace(&mut self, key: u64, listener: L) -> Result<L, L> {
        match self.place(key) {
            Some(Some(place)) => Ok(mem::replace(place, listener)),
            _ => Err(listener),
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: u64) -> Option<L> {
        if key == FIRST {
            return self.first.take();
        }
        let listener = self.place(key)?.take()?;
        self.live -= 1;
        self.close_gaps();
        Some(listener)
    }

    pub(super) fn take(&mut self) -> Taken<L> {
        self.live = 0;
        Taken {
            first: self.first.take(),
            rest: mem::take(&mut self.rest).into_iter(),
        }
    }

    fn place(&mut self, key: u64) -> Option<&mut Option<L>> {
        if key == FIRST {
            return Some(&mut self.first);
        }
        let at = match self.rest.last() {
            // Who comes last often leaves first.
            Some(last) if last.key == key => self.rest.len() - 1,
            _ => self
                .rest
                .binary_search_by_key(&key, |entry| entry.key)
                .ok()?,
        };
        Some(&mut self.rest[at].listener)
    }

    fn close_gaps(&mut self) {
        while matches!(self.rest.last(), Some(Entry { listener: None, .. })) {
            self.rest.pop();
        }
        if self.rest.len() > FEW.max(2 * self.live) {
            self.rest.retain(|entry| entry.listener.is_some());
        }
        if self.rest.capacity() > 4 * FEW.max(self.live) {
            self.rest.shrink_to(2 * self.live);
        }
    }
}

/// The listeners of a node that has been cancelled.
pub(super) struct Taken<L> {
    first: Option<L>,
    rest: vec::IntoIter<Entry<L>>,
}

impl<L> Taken<L> {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.len() == 0
    }
}

impl<L> Iterator for Taken<L> {
    type Item = L;

    fn next(&mut self) -> Option<L> {
        let first = self.first.take();
        first.or_else(|| self.rest.find_map(|entry| entry.listener))
    }
}
