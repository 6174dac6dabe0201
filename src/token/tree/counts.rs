//! Counts of cancels. By comparing one, a node knows without a walk that no ancestor has been cancelled since its last
//! walk.
//!
//! There are few counts, and each tree uses one of them. Trees may share a count: then a cancel in one of them costs a
//! check in another a walk, and nothing else. Counts are static, so nothing has to own or to free them.

use crate::sync::{COUNT_START, Ordering, cancel_counts};
use std::{array, iter};

/// How many counts there are. A loom model has few, which keeps the number of accesses low.
const COUNTS: usize = match cfg!(all(test, stopcock_loom)) {
    false => 64,
    true => 2,
};

/// How many counts a bit of the mask stands for.
const COUNTS_PER_BIT: usize = match cfg!(all(test, stopcock_loom)) {
    false => 4,
    true => 2,
};

/// The distance of two counts in the array: two counts share a cache line.
const SPACING: u8 = 4;

/// The `index` of a node of several trees. The array element there is not a count and never changes.
const OF_SEVERAL: u8 = 1;

/// These bits are always set in a count. A node that caches a count uses them for its own flags, see `Node::state`.
pub(super) const FLAGS: u64 = 0b101;

/// One cancel in progress. There can be more threads than this field can count, but a cancel is in progress for only a
/// few instructions.
const IN_PROGRESS: u64 = 1 << 4;

/// One cancel that has begun.
const BEGUN: u64 = 1 << 20;

/// The start value of a count: greater than any `state` without a cached count.
pub(super) const START: u64 = BEGUN | FLAGS;

const _: () = assert!(START == COUNT_START);

/// The counts of the trees that a node is in. There are several if its parents are in several trees.
// Packed, so that it takes only three bytes of a node.
#[derive(Clone, Copy)]
#[repr(Rust, packed)]
pub(super) struct Trees {
    /// One bit for each group of `COUNTS_PER_BIT` counts that has one of them.
    mask: u16,
    /// The index of the count in the array, if it is a single one; otherwise `OF_SEVERAL`.
    index: u8,
}

impl Trees {
    /// The count of a new root.
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

    /// The numbers of the counts: a single one, or all that the bits of the mask stand for.
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

    /// Whether `cached`, with `FLAGS` set, is the current count. Always `false` with several trees: see
    /// [`count`](Self::count).
    // ORDERING: pairs with the `Release` at the end of a cancel, like all loads of a count.
    #[inline(always)]
    pub(super) fn is_count(self, cached: u64) -> bool {
        // Saves a loom model an access.
        #[cfg(all(test, stopcock_loom))]
        if cached < START {
            return false;
        }
        cached == cancel_counts()[self.index as usize].load(Ordering::Acquire)
    }

    /// The sum of the counts of all trees, or `None` while a cancel is in progress. A sum never recurs after a cancel,
    /// since each count only grows.
    #[inline]
    pub(super) fn count(self) -> Option<u64> {
        if self.are_several() {
            return sum(self.numbers().map(load));
        }
        let count = cancel_counts()[self.index as usize].load(Ordering::Acquire);
        is_quiescent(count).then_some(count)
    }

    /// Counts a cancel, which is in progress while `close` runs.
    pub(super) fn count_cancel(self, close: impl FnOnce()) {
        // Each node below is in these trees too, so any one of the counts will do.
        let count = &cancel_counts()[self.numbers().next().map_or(0, index)];
        // ORDERING: `Relaxed`. A thread that sees the node closed also sees this, which is sequenced before it.
        count.fetch_add(BEGUN + IN_PROGRESS, Ordering::Relaxed);
        close();
        // ORDERING: `Release`. A thread that sees that the cancel has ended sees the node closed.
        count.fetch_sub(IN_PROGRESS, Ordering::Release);
    }
}

/// All counts, loaded before a walk that caches their sums in nodes of several trees.
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

/// Whether no cancel is in progress.
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
