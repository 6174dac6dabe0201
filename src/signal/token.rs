use super::{IntoSignal, Signal};
use crate::{
    CancellationToken, CancelledOwned, StopReason,
    token::{HeldToken, Listed, Listening, is_tracked_anywhere},
};
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(feature = "tokio")]
use crate::clock::Pace;
#[cfg(feature = "tokio")]
use tokio::time::Instant;

/// The signal of a [`CancellationToken`].
///
/// Until it is dropped, [`CancellationToken::settled`] waits. An adapter drops it after its source.
pub struct TokenSignal(Watch<HeldToken>);

/// The signal of a token that is owned, borrowed or counted for `settled`.
pub(crate) struct Watch<T: Borrow<CancellationToken>> {
    // Dropped before `listening`: a listed holder has to be a counted one.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "kept until it is dropped")
    )]
    rest: Rest,
    listening: Listening<T>,
}

/// The state that few signals need.
#[derive(Default)]
struct Rest(Option<Box<Inside>>);

#[derive(Default)]
struct Inside {
    /// `Some` if this token or an ancestor tracks its holders.
    _listed: Option<Listed>,
    /// For a token with a deadline.
    #[cfg(feature = "tokio")]
    pace: Pace,
}

impl TokenSignal {
    #[inline(always)]
    #[track_caller]
    fn new(token: CancellationToken, what: &'static str) -> Self {
        Self::made_at(token, what, Location::caller())
    }

    /// The signal of a holder that was made at `location`, which [`holders`](CancellationToken::holders) shows.
    #[inline(always)]
    pub(crate) fn made_at(
        token: CancellationToken,
        what: &'static str,
        location: &'static Location<'static>,
    ) -> Self {
        let token = HeldToken::new(token);
        let rest = match is_tracked_anywhere() {
            false => Rest::default(),
            true => Rest::listing(token.borrow(), what, location),
        };
        Self(Watch {
            rest,
            listening: Listening::new(token),
        })
    }

    #[inline]
    pub(crate) fn token(&self) -> &CancellationToken {
        self.0.token()
    }
}

impl Rest {
    /// Not inlined into the signal's drop, which is part of every adapter's drop.
    #[inline(never)]
    fn drop_inside(&mut self) {
        self.0 = None;
    }

    #[cold]
    #[inline(never)]
    fn listing(
        token: &CancellationToken,
        what: &'static str,
        location: &'static Location<'static>,
    ) -> Self {
        let listed = Listed::new(token, what, location);
        Self(listed.map(|listed| {
            Box::new(Inside {
                _listed: Some(listed),
                #[cfg(feature = "tokio")]
                pace: Pace::default(),
            })
        }))
    }
}

impl Drop for Rest {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.drop_inside();
        }
    }
}

impl<T: Borrow<CancellationToken>> Watch<T> {
    #[inline]
    pub(crate) fn new(token: T) -> Self {
        Self {
            rest: Rest::default(),
            listening: Listening::new(token),
        }
    }

    #[inline]
    fn token(&self) -> &CancellationToken {
        self.listening.token.borrow()
    }

    /// The reason of a cancelled token.
    #[cold]
    #[inline(never)]
    fn reason(&self) -> Poll<StopReason> {
        match self.token().stop_reason() {
            Some(reason) => Poll::Ready(reason),
            None => unreachable!("a cancelled token has a reason"),
        }
    }

    #[cfg(feature = "tokio")]
    #[cold]
    fn read_clock(&mut self, at: Instant, items: u32) -> u32 {
        let next_check = match &mut self.rest.0 {
            // A pace is measured, and needs an allocation, once items come in a run.
            None if items == 0 => (Instant::now() < at).then_some(1),
            rest => rest.get_or_insert_default().pace.read(at, items),
        };
        next_check.unwrap_or_else(|| {
            // A check of the token makes final what this reading of the clock has found.
            self.token().is_cancelled();
            1
        })
    }
}

impl Signal for TokenSignal {
    #[inline]
    fn is_fired(mut self: Pin<&mut Self>) -> bool {
        Pin::new(&mut self.0).is_fired()
    }

    #[inline]
    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        Pin::new(&mut self.0).poll_fired(cx)
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.0.will_wake(cx)
    }

    #[inline(always)]
    fn poll_fired_since(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        Pin::new(&mut self.0).poll_fired_since(cx)
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.0.needs_checks()
    }

    fn poll_fired_at_end(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        Pin::new(&mut self.0).poll_fired_at_end(cx)
    }

    #[inline]
    fn check_every(mut self: Pin<&mut Self>, items: u32) -> u32 {
        Pin::new(&mut self.0).check_every(items)
    }

    fn as_token(&self) -> Option<&CancellationToken> {
        Some(self.token())
    }
}

impl<T: Borrow<CancellationToken> + Unpin> Signal for Watch<T> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.token().is_known_cancelled()
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.listening.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => self.reason(),
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.listening.will_wake(cx)
    }

    #[inline(always)]
    fn poll_fired_since(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.listening.poll_after_check(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => self.reason(),
        }
    }

    /// Only a deadline needs them.
    #[inline]
    fn needs_checks(&self) -> bool {
        self.token().has_deadline()
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        self.token()
            .stop_reason()
            .map_or(Poll::Pending, Poll::Ready)
    }

    #[cfg(feature = "tokio")]
    #[inline]
    fn check_every(mut self: Pin<&mut Self>, items: u32) -> u32 {
        match self.token().deadline() {
            None => u32::MAX,
            Some(at) => self.read_clock(at, items),
        }
    }
}

impl Debug for TokenSignal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenSignal").field(self.token()).finish()
    }
}

impl IntoSignal for CancellationToken {
    type Signal = TokenSignal;

    #[inline]
    fn into_signal(self) -> TokenSignal {
        TokenSignal::new(self, "into_signal")
    }

    #[inline(always)]
    fn into_signal_of(self, what: &'static str) -> TokenSignal {
        TokenSignal::new(self, what)
    }
}

impl IntoSignal for &CancellationToken {
    type Signal = TokenSignal;

    #[inline]
    fn into_signal(self) -> TokenSignal {
        self.clone().into_signal()
    }

    #[inline(always)]
    fn into_signal_of(self, what: &'static str) -> TokenSignal {
        self.clone().into_signal_of(what)
    }
}

impl IntoSignal for CancelledOwned {
    type Signal = TokenSignal;

    fn into_signal(self) -> TokenSignal {
        self.token().into_signal()
    }

    fn into_signal_of(self, what: &'static str) -> TokenSignal {
        self.token().into_signal_of(what)
    }
}
