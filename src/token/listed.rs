//! Lists holders in the nodes that track them.

use super::{
    CancellationToken,
    holders::{Holder, Tracking},
    tree::{Ancestors, Node},
};
use crate::sync::Ordering;
use std::{iter, panic::Location, sync::Arc};

/// A holder's keys in the lists of its node and the ancestors. Must be dropped before the holder stops counting.
pub(crate) struct Listed(Box<[(Arc<Node>, u64)]>);

impl Listed {
    /// Lists a holder of `token` in the tracking nodes among the token's own and its ancestors.
    #[cold]
    pub(crate) fn new(
        token: &CancellationToken,
        what: &'static str,
        location: &'static Location<'static>,
    ) -> Option<Self> {
        let holder = Holder::new(what, location);
        let mut places = Vec::new();
        for node in iter::once(&token.node).chain(Ancestors::of(&token.node)) {
            if !node.is_tracking.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(tracking) = node.lock().tracking() {
                let key = tracking.holders.push(holder.clone());
                places.push((Arc::clone(node), key));
            }
        }
        (!places.is_empty()).then(|| Self(places.into()))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        for (node, key) in &self.0 {
            if let Some(tracking) = node.lock().tracking() {
                tracking.holders.remove(*key);
            }
        }
    }
}

impl Node {
    pub(super) fn track_holders(&self) {
        let mut guarded = self.lock();
        let rare = guarded.rare();
        rare.tracking.get_or_insert_with(Tracking::begin);
        self.is_tracking.store(true, Ordering::Relaxed);
    }

    pub(super) fn holders(&self) -> Vec<Holder> {
        let mut guarded = self.lock();
        let tracking = guarded.tracking();
        tracking.map_or_else(Vec::new, |tracking| {
            tracking.holders.iter().cloned().collect()
        })
    }
}
