use super::{CancellationToken, listeners::NO_KEY, tree::Listener};
use crate::StopReason;
use std::{mem, sync::Arc};

/// A callback that a cancel runs.
pub(crate) enum Callback {
    /// Run on the thread that cancels, or at a deadline on a task of the deadline's runtime.
    Boxed(Box<dyn FnOnce(&StopReason) + Send>),
    /// A part of an existing allocation, so that it needs none of its own.
    Shared(Arc<dyn SharedCallback>),
}

pub(crate) trait SharedCallback: Send + Sync {
    /// Runs it on the thread that cancels.
    fn run(self: Arc<Self>, reason: &StopReason);

    /// Runs it at a deadline, on a task of the deadline's runtime.
    fn run_at_deadline(self: Arc<Self>, reason: &StopReason);
}

impl Callback {
    pub(super) fn run(self, reason: &StopReason) {
        match self {
            Self::Boxed(callback) => callback(reason),
            Self::Shared(callback) => callback.run(reason),
        }
    }

    #[cfg_attr(
        not(feature = "tokio"),
        allow(dead_code, reason = "without a clock there are no deadlines")
    )]
    pub(super) fn run_at_deadline(self, reason: &StopReason) {
        match self {
            Self::Boxed(callback) => callback(reason),
            Self::Shared(callback) => callback.run_at_deadline(reason),
        }
    }
}

/// The registration of a callback by [`CancellationToken::on_cancel`]. Dropping it unregisters the callback.
///
/// Like a clone, it keeps the token alive.
#[derive(Debug)]
#[must_use = "a registration that is dropped at once unregisters the callback at once"]
pub struct Registration {
    token: CancellationToken,
    /// `NO_KEY` once nothing is registered.
    key: u64,
}

impl Registration {
    pub(crate) fn new(token: &CancellationToken, callback: Callback) -> Self {
        let listener = Listener::Callback(callback);
        let listed = match token.node.is_cancelled() {
            true => Err(listener),
            false => token.node.add(listener),
        };
        let key = listed.unwrap_or_else(|listener| {
            if let (Some(reason), Listener::Callback(callback)) = (token.stop_reason(), listener) {
                callback.run(&reason);
            }
            NO_KEY
        });
        Self {
            token: token.clone(),
            key,
        }
    }

    /// Unregisters the callback. Returns whether that was in time.
    ///
    /// Go's counterpart is the `stop` function that `context.AfterFunc` returns.
    ///
    /// `true`: the callback has not run, will never run, and has been dropped. `false`: a cancel came first. The
    /// callback has run, is running, or is queued to run by that cancel; this call does not wait for it. So a callback
    /// cannot unregister a later callback of the same token.
    pub fn unregister(mut self) -> bool {
        self.leave()
    }

    /// Keeps the callback registered for as long as the token lives. It cannot be unregistered any more.
    pub fn detach(mut self) {
        self.key = NO_KEY;
    }

    /// Like `unregister`, for a registration that the caller keeps.
    pub(crate) fn leave(&mut self) -> bool {
        match mem::replace(&mut self.key, NO_KEY) {
            NO_KEY => false,
            key => {
                // Dropped here, without the lock.
                let listener = self.token.node.remove(key);
                listener.is_some()
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
    }
}
