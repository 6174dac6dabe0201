use crate::{CancellationToken, Registration, StopReason};
use std::time::Duration;

/// A request whose response has not been handed out as a whole. If it is dropped like that, the client has hung up.
pub(super) struct InFlight {
    token: CancellationToken,
    /// For a request that may become a connection of another protocol, which outlives the timeout.
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

    /// Like `new`, with a timeout that is no deadline of the token: it counts for as long as this lives.
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

    /// The whole response has been handed out, or there is none.
    pub(super) fn finish(mut self) {
        self.is_over = true;
        self.token.cancel();
    }

    /// The connection is another protocol's now.
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
