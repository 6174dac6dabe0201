//! Why a node was stopped.

use crate::{
    StopReason,
    sync::Ordering,
    token::deadline::{self, Instant, OwnDeadline},
};
use std::{
    panic::Location,
    sync::{Arc, atomic},
};

/// Why, when and where a node was stopped. All nodes that the same event stopped share it.
pub(crate) struct Outcome {
    /// The time of the cancel; for a deadline its own point in time, even if it is seen later. `None` without a clock.
    pub(super) at: Option<Instant>,
    /// Orders outcomes of the same time: of two cancels that did not overlap, the earlier one has the lower number. A
    /// deadline has the lowest: at that time it has passed.
    pub(super) order: u64,
    pub(crate) reason: StopReason,
    /// The line that cancelled, or that made the deadline.
    pub(crate) location: &'static Location<'static>,
}

impl Outcome {
    pub(super) fn new(reason: StopReason, location: &'static Location<'static>) -> Arc<Self> {
        // ORDERING: `Relaxed`. If one cancel happened before another, their numbers have that order.
        static ORDER: atomic::AtomicU64 = atomic::AtomicU64::new(1);
        Arc::new(Self {
            at: deadline::now(),
            order: ORDER.fetch_add(1, Ordering::Relaxed),
            reason,
            location,
        })
    }

    pub(super) fn of_deadline(deadline: &OwnDeadline) -> Arc<Self> {
        Arc::new(Self {
            at: deadline.at(),
            order: 0,
            reason: deadline.reason(),
            location: deadline.made_at(),
        })
    }
}
