//! Who has still to drop what a token has stopped, and who waits for that.

use super::{
    CancellationToken, Listening,
    ancestry::{Ancestors, Ancestry},
    listeners::{Listeners, Taken},
    tree::Node,
};
use crate::{
    first_panic::FirstPanic,
    sync::{AtomicU64, Ordering},
};
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    future::Future,
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

/// How many hold a source under this node, itself and its descendants, and whether somebody waits for the last.
///
/// Everyone counts in itself and in all nodes above, once in each: there is no step of that which could fail, or would
/// have to wait. The count cannot wrap, nor reach the bit of `AWAITED`: that takes 2^63 steps, some centuries.
pub(super) struct Settling {
    // ORDERING: `Release` where it is counted down, `Acquire` where it is read, by who waits or by who tells them:
    // whoever learns that nobody is left sees what everybody did before, the last drop included. `Relaxed` where it is
    // counted up: whoever may not miss that has been told of the new source in some other way.
    held: AtomicU64,
}

/// Set in `held` while there are settlers.
const AWAITED: u64 = 1 << 63;

impl Default for Settling {
    fn default() -> Self {
        Self {
            held: AtomicU64::new(0),
        }
    }
}

/// The tasks that wait until nothing is held.
#[derive(Default)]
pub(super) struct Settlers {
    /// How often they have been told. A key is good for one generation.
    generation: u64,
    wakers: Listeners<Waker>,
}

/// A place among the settlers.
struct Place {
    generation: u64,
    key: u64,
}

impl Node {
    #[inline(always)]
    fn hold(self: &Arc<Self>) {
        self.any_up(|node| {
            node.settling.held.fetch_add(1, Ordering::Relaxed);
            false
        });
    }

    #[inline(always)]
    fn release(self: &Arc<Self>) {
        let is_awaited = self.any_up(|node| {
            let held = node.settling.held.fetch_sub(1, Ordering::Release);
            held == AWAITED | 1
        });
        if is_awaited {
            self.tell_settlers();
        }
    }

    /// Asks this node and each above it once, the same ones at each call; whether any of them answered `true`.
    #[inline(always)]
    fn any_up(self: &Arc<Self>, ask: impl Fn(&Self) -> bool) -> bool {
        let answer = ask(self);
        match &self.ancestry {
            // Without a loop, as most tokens are.
            Ancestry::Other(None) => answer,
            Ancestry::Child(link) if link.parent.ancestry.is_root() => answer | ask(&link.parent),
            _ => answer | self.any_above(ask),
        }
    }

    #[inline(never)]
    fn any_above(&self, ask: impl Fn(&Self) -> bool) -> bool {
        let mut answer = false;
        let mut node = self;
        // As a rule, and in fewer instructions than the walk over several parents.
        while let [link] = node.ancestry.links() {
            node = &link.parent;
            answer |= ask(node);
        }
        Ancestors::of(node).fold(answer, |answer, node| answer | ask(node))
    }

    /// Tells all those above who wait, and whom nobody keeps waiting any more.
    #[cold]
    fn tell_settlers(self: &Arc<Self>) {
        let mut panic = FirstPanic::default();
        for node in iter::once(self).chain(Ancestors::of(self)) {
            // Whoever holds something since then is going to come here as well.
            if node.settling.held.load(Ordering::Acquire) == AWAITED {
                for waker in node.take_settlers() {
                    panic.catch(|| waker.wake());
                }
            }
        }
        panic.resume();
    }

    fn take_settlers(&self) -> Taken<Waker> {
        let mut guarded = self.lock();
        self.settling.held.fetch_and(!AWAITED, Ordering::Relaxed);
        let settlers = &mut guarded.rare().settlers;
        settlers.generation += 1;
        settlers.wakers.take()
    }

    /// Ready at a moment when nobody holds anything; until then `waker`, the latest one, is kept.
    fn poll_settled(&self, place: &mut Option<Place>, waker: &Waker) -> Poll<()> {
        if self.settling.held.load(Ordering::Acquire) & !AWAITED == 0 {
            return Poll::Ready(());
        }
        // Without the lock, as is the drop of the earlier one: they may run anything.
        let waker = waker.clone();
        let mut guarded = self.lock();
        let settlers = &mut guarded.rare().settlers;
        let replaced = match place {
            // Told: that moment has been, whoever holds something since.
            Some(place) if place.generation != settlers.generation => {
                drop(guarded);
                return Poll::Ready(());
            }
            Some(place) => settlers.wakers.replace(place.key, waker).ok(),
            None => {
                *place = Some(Place {
                    generation: settlers.generation,
                    key: settlers.wakers.insert(waker),
                });
                None
            }
        };
        // ORDERING: after the waker is in its place, so that whoever counts to nothing from now on finds it.
        let held = self.settling.held.fetch_or(AWAITED, Ordering::Acquire);
        drop(guarded);
        drop(replaced);
        match held & !AWAITED {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn leave_settlers(&self, place: &Place) {
        let mut guarded = self.lock();
        let settlers = &mut guarded.rare().settlers;
        let waker = match settlers.generation == place.generation {
            true => settlers.wakers.remove(place.key),
            false => None,
        };
        drop(guarded);
        drop(waker);
    }
}

/// A token of somebody who holds what the token is to stop. To be dropped after that.
pub(crate) struct HeldToken(CancellationToken);

impl HeldToken {
    #[inline]
    pub(crate) fn new(token: CancellationToken) -> Self {
        token.node.hold();
        Self(token)
    }
}

impl Borrow<CancellationToken> for HeldToken {
    #[inline]
    fn borrow(&self) -> &CancellationToken {
        &self.0
    }
}

impl Drop for HeldToken {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.node.release();
    }
}

/// The future of [`CancellationToken::settled`] and [`cancel_and_settle`](CancellationToken::cancel_and_settle).
#[must_use = "futures do nothing unless polled"]
pub struct Settled {
    cancelled: Listening<CancellationToken>,
    /// `Some` once it has had to wait for somebody to let go.
    place: Option<Place>,
}

impl Settled {
    pub(super) fn new(token: CancellationToken) -> Self {
        Self {
            cancelled: Listening::new(token),
            place: None,
        }
    }
}

impl Future for Settled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ready!(this.cancelled.poll(cx));
        let node = &this.cancelled.token.node;
        node.poll_settled(&mut this.place, cx.waker())
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            self.cancelled.token.node.leave_settlers(place);
        }
    }
}

impl Debug for Settled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settled")
            .field(&self.cancelled.token)
            .finish()
    }
}
