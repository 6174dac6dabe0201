//! Lists of what keeps a token from settling: a debugging aid.
//!
//! A holder is listed in each tracking node among its own node and the ancestors. As long as no node of the process
//! tracks, this costs a holder the check of one counter when it is made, and nothing when it is dropped.

use super::deadline::Timestamp;
use crate::{
    keyed_queue::KeyedQueue,
    sync::{Ordering, TRACKING_NODES},
};
use std::{
    fmt::{self, Display, Formatter},
    panic::Location,
    time::Duration,
};

/// Something that keeps [`settled`](crate::CancellationToken::settled) waiting: an item of
/// [`CancellationToken::holders`](crate::CancellationToken::holders).
///
/// It displays as one line for a log: `spawn_generator, made at src/feed.rs:42:18, 12.5s ago`.
#[derive(Clone, Debug)]
pub struct Holder {
    what: &'static str,
    location: &'static Location<'static>,
    since: Timestamp,
}

impl Holder {
    pub(super) fn new(what: &'static str, location: &'static Location<'static>) -> Self {
        Self {
            what,
            location,
            since: Timestamp::now(),
        }
    }

    /// The name of the function that made it, such as `take_until_cancelled`, `spawn_generator` or `hold`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The source line that made it.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// How long ago it was made. With the feature `tokio`, measured by tokio's clock, which tests may pause.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Display for Holder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, location, .. } = self;
        let age = self.elapsed();
        write!(f, "{what}, made at {location}, {age:.1?} ago")
    }
}

/// The list of a node.
pub(super) struct Tracking {
    pub(super) holders: KeyedQueue<Holder>,
    _counted: Counted,
}

impl Tracking {
    pub(super) fn begin() -> Box<Self> {
        Box::new(Self {
            holders: KeyedQueue::with_first_key(0),
            _counted: Counted::new(),
        })
    }
}

/// Counts one node in `TRACKING_NODES` until it is dropped.
struct Counted;

impl Counted {
    fn new() -> Self {
        // ORDERING: `Relaxed`. A holder that is made after `track_holders` has returned sees this; the node's lock
        // synchronises the list.
        TRACKING_NODES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        TRACKING_NODES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether any node of the process tracks its holders. If not, there is nothing to list.
#[inline(always)]
pub(crate) fn is_tracked_anywhere() -> bool {
    TRACKING_NODES.load(Ordering::Relaxed) > 0
}
