use crate::{CancellationToken, Registration, StopReason};
use std::time::Duration;

/// A request whose response is not complete. If it is dropped in this state, the client has disconnected.
pub(super) struct InFlight {
    token: CancellationToken,
    /// The timeout of a request that may switch to another protocol, which outlives the timeout.
    timer: Option<Registration>,
    is_over: bool,
}

impl InFlight {
    pub(super) fn new(token: CancellationToken) -> Self {
        Self {
            token,
            timer: None,
            is_over: false,
        }
    }

    /// Like `new`, with a timeout that is not a deadline of the token: it applies for as long as this lives.
    pub(super) fn with_timeout(token: CancellationToken, timeout: Duration) -> Self {
        let timed_out = token.clone();
        let timer = CancellationToken::with_timeout(timeout).on_cancel(move |reason| {
            timed_out.cancel_with(reason.clone());
        });
        let mut in_flight = Self::new(token);
        in_flight.timer = Some(timer);
        in_flight
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Called when the response is complete, or has failed.
    pub(super) fn finish(mut self) {
        self.is_over = true;
        self.token.cancel();
    }

    /// Called when the connection has switched to another protocol: only the server's token cancels it from now on.
    pub(super) fn release_to_server(mut self) {
        self.is_over = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.is_over {
            self.token.cancel_with(StopReason::ConsumerDropped);
        }
    }
}
