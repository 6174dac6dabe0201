use crate::line::{IntoIter, Line};
use std::mem;

/// The listeners of a node, in the order in which they came.
///
/// Most nodes never have more than one at once: that one needs no allocation. The others are in a line, which shares its
/// allocation with `B`: what else most nodes do without.
pub(super) struct Listeners<L, B = ()> {
    /// The one that came when there was none.
    first: Option<L>,
    /// `None` until a second one came, or `B` was needed.
    rare: Option<Box<Rare<L, B>>>,
}

struct Rare<L, B> {
    line: Line<L>,
    extra: B,
}

/// No listener has this key.
pub(super) const NO_KEY: u64 = 0;

/// The key of the first.
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
    /// The key is this listener's until it is removed or taken.
    #[inline(always)]
    pub(super) fn insert(&mut self, listener: L) -> u64 {
        if self.is_empty() {
            self.first = Some(listener);
            return FIRST;
        }
        self.rare_mut().line.push(listener)
    }

    /// What shares the allocation, which is made if there is none.
    pub(super) fn extra_mut(&mut self) -> &mut B {
        &mut self.rare_mut().extra
    }

    #[inline]
    fn rare_mut(&mut self) -> &mut Rare<L, B> {
        self.rare.get_or_insert_with(|| {
            Box::new(Rare {
                line: Line::with_first_key(FIRST + 1),
                extra: B::default(),
            })
        })
    }
}

impl<L, B> Listeners<L, B> {
    /// The same, if there is such an allocation.
    pub(super) fn extra(&self) -> Option<&B> {
        self.rare.as_ref().map(|rare| &rare.extra)
    }

    /// Puts a listener in another's place and answers with that one, or gives it back if there is none.
    pub(super) fn replace(&mut self, key: u64, listener: L) -> Result<L, L> {
        let place = match (key, &mut self.rare) {
            (FIRST, _) => self.first.as_mut(),
            (_, rare) => rare.as_mut().and_then(|rare| rare.line.get_mut(key)),
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
        self.rare.as_mut()?.line.remove(key)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rare.as_ref().is_none_or(|rare| rare.line.is_empty())
    }

    #[cfg(feature = "tokio")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &L> {
        let rest = self.rare.iter().flat_map(|rare| rare.line.iter());
        self.first.iter().chain(rest)
    }

    #[inline]
    pub(super) fn take(&mut self) -> Taken<L> {
        Taken {
            first: self.first.take(),
            rest: self.rare.as_mut().map(|rare| rare.take_line()),
        }
    }
}

impl<L, B> Rare<L, B> {
    #[inline(never)]
    fn take_line(&mut self) -> IntoIter<L> {
        mem::replace(&mut self.line, Line::with_first_key(FIRST + 1)).into_iter()
    }
}

/// The listeners of a node that has been cancelled.
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
