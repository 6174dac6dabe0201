//! The reference model: what the laws say of tokens, and nothing else.

use std::{collections::BTreeSet, mem};
use stopcock::StopReason;

/// What the laws require of tokens, without a tree: each token stores all its ancestors, and what happened to it. Every
/// result is computed by iterating over all tokens.
#[derive(Default)]
pub(super) struct Model {
    pub(super) now: Stamp,
    pub(super) tokens: Vec<Token>,
    pub(super) notified: Vec<Notified>,
    /// No law says whether these are notified.
    pub(super) unsure: BTreeSet<usize>,
}

/// The clock, in nanoseconds, and the place among the steps. At a point in time deadlines come before all steps.
pub(super) type Stamp = (u64, usize);

/// The token, the waker or callback, and the reason that a callback got.
pub(super) type Notified = (usize, usize, Option<Reason>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Cancelled,
    DeadlineExceeded,
    /// The number of the step that stopped it.
    Step(usize),
}

impl Reason {
    pub(super) fn of(reason: &StopReason) -> Self {
        match reason {
            StopReason::Cancelled => Self::Cancelled,
            StopReason::DeadlineExceeded => Self::DeadlineExceeded,
            reason => Self::Step(reason.to_string().parse().unwrap()),
        }
    }
}

pub(super) struct Token {
    /// The tokens with which it is cancelled: itself and its ancestors.
    pub(super) lineage: BTreeSet<usize>,
    pub(super) born: Stamp,
    /// Its own.
    pub(super) deadline: Option<u64>,
    pub(super) cancelled: Option<(Stamp, Reason)>,
    /// The number of its owners, other than descendants.
    pub(super) handles: usize,
    /// The number of adapters under this token that still have their source.
    pub(super) sources: usize,
    /// In the order of registration.
    pub(super) listeners: Vec<Listener>,
    /// The waiters of `settled`.
    pub(super) settle_waiters: Vec<usize>,
}

#[derive(PartialEq)]
pub(super) enum Listener {
    Waker(usize),
    Callback(usize),
}

impl Listener {
    pub(super) fn id(&self) -> usize {
        let (Self::Waker(id) | Self::Callback(id)) = *self;
        id
    }
}

impl Model {
    pub(super) fn add(&mut self, parents: &[usize], deadline: Option<u64>) {
        let above = parents
            .iter()
            .flat_map(|parent| &self.tokens[*parent].lineage);
        let lineage = above.copied().chain([self.tokens.len()]).collect();
        self.tokens.push(Token {
            lineage,
            born: self.now,
            deadline,
            cancelled: None,
            handles: 1,
            sources: 0,
            listeners: Vec::new(),
            settle_waiters: Vec::new(),
        });
    }

    /// The first event of it or of an ancestor.
    pub(super) fn outcome(&self, token: usize) -> Option<Reason> {
        let lineage = self.tokens[token].lineage.iter();
        let events = lineage.filter_map(|token| self.event(&self.tokens[*token]));
        events.min().map(|(_, reason)| reason)
    }

    /// The first event of this token itself.
    pub(super) fn event(&self, token: &Token) -> Option<(Stamp, Reason)> {
        let deadline = token.deadline.filter(|at| *at <= self.now.0);
        let over = deadline.map(|at| {
            let seen = token.born.max((at, 0));
            (seen, Reason::DeadlineExceeded)
        });
        over.into_iter().chain(token.cancelled).min()
    }

    #[cfg(feature = "tokio")]
    pub(super) fn deadline(&self, token: usize) -> Option<u64> {
        let lineage = self.tokens[token].lineage.iter();
        lineage
            .filter_map(|token| self.tokens[*token].deadline)
            .min()
    }

    pub(super) fn cancel(&mut self, token: usize, reason: Reason) -> bool {
        let wins = self.outcome(token).is_none();
        if wins {
            self.tokens[token].cancelled = Some((self.now, reason));
        }
        for below in 0..self.tokens.len() {
            if self.tokens[below].lineage.contains(&token) {
                self.notify(below);
            }
        }
        wins
    }

    /// Every listener whose deadline has passed is notified: wakers by the timer, callbacks by a task after it.
    #[cfg(feature = "tokio")]
    pub(super) fn run_timers(&mut self) {
        let earlier = self.notified.len();
        for token in 0..self.tokens.len() {
            if self.outcome(token).is_some() {
                self.notify(token);
            }
        }
        self.notified[earlier..].sort_by_key(|(_, _, reason)| reason.is_some());
    }

    pub(super) fn notify(&mut self, token: usize) {
        let reason = self.outcome(token);
        for listener in mem::take(&mut self.tokens[token].listeners) {
            let reason = match listener {
                Listener::Waker(_) => None,
                Listener::Callback(_) => reason,
            };
            self.notified.push((token, listener.id(), reason));
        }
    }

    /// Registers a callback, or notifies it at once.
    pub(super) fn register(&mut self, token: usize, id: usize) {
        match self.outcome(token) {
            None => self.tokens[token].listeners.push(Listener::Callback(id)),
            reason => self.notified.push((token, id, reason)),
        }
    }

    /// Lists a waker, and replaces an earlier one of the same waiter.
    pub(super) fn wait(&mut self, token: usize, earlier: Option<usize>, id: usize) -> bool {
        if self.outcome(token).is_some() {
            return false;
        }
        let listeners = &mut self.tokens[token].listeners;
        match listeners
            .iter_mut()
            .find(|listener| Some(listener.id()) == earlier)
        {
            Some(listener) => *listener = Listener::Waker(id),
            None => listeners.push(Listener::Waker(id)),
        }
        true
    }

    pub(super) fn wait_for_sources(
        &mut self,
        token: usize,
        earlier: Option<usize>,
        id: usize,
    ) -> bool {
        let Token {
            sources,
            settle_waiters,
            ..
        } = &mut self.tokens[token];
        let place = settle_waiters
            .iter_mut()
            .find(|settle_waiter| Some(**settle_waiter) == earlier);
        match (*sources, earlier, place) {
            (0, ..) => return false,
            // It has been notified.
            (_, Some(_), None) => return false,
            (_, _, Some(place)) => *place = id,
            (_, None, None) => settle_waiters.push(id),
        }
        true
    }

    /// Removes it from every list. Returns whether it was in one.
    pub(super) fn leave(&mut self, id: usize) -> bool {
        let was_listed = self.kept().contains(&id);
        for token in &mut self.tokens {
            token.listeners.retain(|listener| listener.id() != id);
            token
                .settle_waiters
                .retain(|settle_waiter| *settle_waiter != id);
        }
        was_listed
    }

    /// The wakers and callbacks that are still to be notified.
    pub(super) fn kept(&self) -> BTreeSet<usize> {
        let of = |token: &Token| {
            let listeners = token.listeners.iter().map(Listener::id);
            listeners
                .chain(token.settle_waiters.clone())
                .collect::<Vec<_>>()
        };
        self.tokens.iter().flat_map(of).collect()
    }

    pub(super) fn hold_source(&mut self, token: usize) {
        for above in self.tokens[token].lineage.clone() {
            self.tokens[above].sources += 1;
        }
    }

    pub(super) fn drop_source(&mut self, token: usize) {
        for above in self.tokens[token].lineage.clone() {
            self.tokens[above].sources -= 1;
            if self.tokens[above].sources == 0 {
                for id in mem::take(&mut self.tokens[above].settle_waiters) {
                    self.notified.push((above, id, None));
                }
            }
        }
    }

    /// Drops a handle. If cancelled tokens are dropped with it, their callbacks run, if they have not yet.
    pub(super) fn drop_handle(&mut self, token: usize) {
        self.tokens[token].handles -= 1;
        for dropped in 0..self.tokens.len() {
            let is_owned = |owner: &Token| owner.handles > 0 && owner.lineage.contains(&dropped);
            if self.tokens.iter().any(is_owned) {
                continue;
            }
            match self.outcome(dropped) {
                Some(_) => self.notify(dropped),
                None => self.tokens[dropped].listeners.clear(),
            }
        }
    }
}
