use crate::line::{IntoIter, Line};
use std::mem;

/// Who is to be told, in the order in which they came.
///
/// Most nodes never have more than one at once: that one needs no allocation. The rest stand in a line.
pub(super) struct Listeners<L> {
    /// Who came when there was nobody.
    first: Option<L>,
    /// `None` until a second one came. Boxed, as most nodes go without it.
    rest: Option<Box<Line<L>>>,
}

/// No listener has this key.
pub(super) const NO_KEY: u64 = 0;

/// The key of the first.
const FIRST: u64 = 1;

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
        let rest = self
            .rest
            .get_or_insert_with(|| Box::new(Line::with_first_key(FIRST + 1)));
        rest.push(listener)
    }

    /// Puts a listener in another's place and answers with that one, or gives it back if there is none.
    pub(super) fn replace(&mut self, key: u64, listener: L) -> Result<L, L> {
        let place = match (key, &mut self.rest) {
            (FIRST, _) => self.first.as_mut(),
            (_, rest) => rest.as_mut().and_then(|rest| rest.get_mut(key)),
        };
        match place {
            Some(place) => Ok(mem::replace(place, listener)),
            None => Err(listener),
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
        self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_empty())
    }

    #[cfg(feature = "tokio")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &L> {
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        self.first.iter().chain(rest)
    }

    #[inline]
    pub(super) fn take(&mut self) -> Taken<L> {
        Taken {
            first: self.first.take(),
            rest: self.rest.take().map(|rest| rest.into_iter()),
        }
    }
}

/// The listeners of a node that has been cancelled.
pub(super) struct Taken<L> {
    first: Option<L>,
    rest: Option<IntoIter<L>>,
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
