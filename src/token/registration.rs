use super::{CancellationToken, listeners::NO_KEY, tree::Listener};
use crate::StopReason;
use std::{mem, sync::Arc};

/// What a cancel runs.
pub(crate) enum Callback {
    /// On the thread that cancels, or at a deadline on a task of the deadline's runtime.
    Boxed(Box<dyn FnOnce(&StopReason) + Send>),
    /// What is there already, so that it takes no allocation of its own.
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

/// A callback's place on a token: what [`CancellationToken::on_cancel`] makes. Dropping it unregisters the callback.
///
/// It keeps the token, as a clone does.
#[derive(Debug)]
#[must_use = "a registration that is dropped at once unregisters the callback at once"]
pub struct Registration {
    token: CancellationToken,
    /// `NO_KEY` once it registers nothing any more.
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

    /// Unregisters the callback, and says whether it came in time.
    ///
    /// `true`: the callback has not run, never will, and has been dropped. `false`: a cancel came before. The callback
    /// has run, is running, or is still in that cancel's line, and this does not wait for it. So an earlier callback of
    /// the same token is too late to call it off.
    pub fn unregister(mut self) -> bool {
        self.leave()
    }

    /// Keeps the callback registered for as long as the token lives, with no way back.
    pub fn detach(mut self) {
        self.key = NO_KEY;
    }

    /// Like `unregister`, for one that is kept.
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
