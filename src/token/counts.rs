//! Counts of cancels, by which a node knows without a walk that nothing above it has been cancelled since its last one.
//!
//! A tree has one of a few counts; it may share it with others, so that a cancel in one of them costs a check in another
//! a walk, and nothing else. A count belongs to no tree, so that nothing keeps it and nothing is freed.

use crate::sync::{Ordering, cancel_counts};
use std::{array, iter};

/// How many counts there are. A model has few, so that it has few accesses.
const COUNTS: usize = match cfg!(all(test, stopcock_loom)) {
    false => 64,
    true => 2,
};

/// How many of them a bit of a mask stands for.
const COUNTS_PER_BIT: usize = match cfg!(all(test, stopcock_loom)) {
    false => 4,
    true => 2,
};

/// How far apart they are: two of them share a cache line.
const SPACING: u8 = 4;

/// What no count is part of: the place of a node of several trees. It is never counted in.
const OF_SEVERAL: u8 = 1;

/// These bits of a count are always set, and are of use to a node that notes the count, see `Node::state`.
pub(super) const FLAGS: u64 = 0b101;

/// One cancel that is under way. Of fewer bits than there can be threads, as it lasts some instructions.
const IN_PROGRESS: u64 = 1 << 4;

/// One cancel that has begun.
const BEGUN: u64 = 1 << 20;

/// What a count starts with: more than any state of a node that notes none.
pub(crate) const START: u64 = BEGUN | FLAGS;

/// The counts of the trees that a node is in: several, if its parents are in several.
// Packed, so that it takes a node three bytes.
#[derive(Clone, Copy)]
#[repr(Rust, packed)]
pub(super) struct Trees {
    /// A bit for each of them, together with its neighbours.
    mask: u16,
    /// Where the count is, if it is one, or `OF_SEVERAL`.
    index: u8,
}

impl Trees {
    /// Those of a new root.
    #[inline(always)]
    pub(super) fn for_root() -> Self {
        let number = crate::sync::next_tree() % COUNTS as u8;
        Self {
            mask: 1 << (number / COUNTS_PER_BIT as u8),
            index: number * SPACING,
        }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self {
            mask: self.mask | other.mask,
            index: match self.index == other.index {
                true => self.index,
                false => OF_SEVERAL,
            },
        }
    }

    /// Those of the counts: one, or those that the bits of the mask stand for.
    fn numbers(self) -> impl Iterator<Item = usize> {
        let (one, mut mask) = match self.are_several() {
            true => (None, self.mask),
            false => (Some(usize::from(self.index / SPACING)), 0),
        };
        let several = iter::from_fn(move || {
            let bit = mask.trailing_zeros();
            mask &= mask.wrapping_sub(1);
            (bit < u16::BITS).then_some(bit as usize * COUNTS_PER_BIT)
        });
        one.into_iter()
            .chain(several.flat_map(|first| first..first + COUNTS_PER_BIT))
    }

    #[inline(always)]
    pub(super) fn are_several(self) -> bool {
        self.index == OF_SEVERAL
    }

    /// Whether `noted`, with `NOTES` set, is the count of now. Of several trees it never is: see [`count`](Self::count).
    // ORDERING: pairs with the `Release` of a cancel that has ended, like all loads of a count.
    #[inline(always)]
    pub(super) fn is_count(self, noted: u64) -> bool {
        // One access less for a model.
        #[cfg(all(test, stopcock_loom))]
        if noted < START {
            return false;
        }
        noted == cancel_counts()[self.index as usize].load(Ordering::Acquire)
    }

    /// The count of all trees together, unless a cancel is under way. It never comes twice: each one only grows.
    #[inline]
    pub(super) fn count(self) -> Option<u64> {
        if self.are_several() {
            return sum(self.numbers().map(load));
        }
        let count = cancel_counts()[self.index as usize].load(Ordering::Acquire);
        is_quiescent(count).then_some(count)
    }

    /// Counts a cancel, from before a node is closed by it until after.
    pub(super) fn count_cancel(self, close: impl FnOnce()) {
        // Each node below is in these trees, so that any of the counts will do.
        let count = &cancel_counts()[self.numbers().next().map_or(0, index)];
        // ORDERING: `Relaxed`. What sees the node closed sees this as well, which came before.
        count.fetch_add(BEGUN + IN_PROGRESS, Ordering::Relaxed);
        close();
        // ORDERING: `Release`. What sees that the cancel has ended sees the node closed.
        count.fetch_sub(IN_PROGRESS, Ordering::Release);
    }
}

/// All counts at one time, for a walk that notes them in nodes of several trees.
pub(super) struct Counts([u64; COUNTS]);

impl Counts {
    pub(super) fn now() -> Self {
        Self(array::from_fn(load))
    }

    pub(super) fn of(&self, trees: Trees) -> Option<u64> {
        sum(trees.numbers().map(|number| self.0[number]))
    }
}

fn index(number: usize) -> usize {
    number * usize::from(SPACING)
}

fn load(number: usize) -> u64 {
    cancel_counts()[index(number)].load(Ordering::Acquire)
}

/// Whether no cancel is under way.
#[inline]
fn is_quiescent(count: u64) -> bool {
    count & (BEGUN - 1) == FLAGS
}

fn sum(counts: impl Iterator<Item = u64>) -> Option<u64> {
    let mut begun = 0_u64;
    for count in counts {
        if !is_quiescent(count) {
            return None;
        }
        begun = begun.wrapping_add(count - FLAGS);
    }
    Some(begun | FLAGS)
}
