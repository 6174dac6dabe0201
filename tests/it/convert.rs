//! Conversions of tokio-util's tokens into ours, of ours into theirs, and of signals into tokens.

#[cfg(feature = "tokio")]
mod from_signal;
mod from_theirs;
mod into_theirs;

use crate::support::Wakes;
use futures::stream;
use std::pin::Pin;
use stopcock::{CancelStreamExt, CancellationToken, StopReason};
use tokio_util::sync::CancellationToken as Theirs;

fn pair() -> (Theirs, CancellationToken) {
    let theirs = Theirs::new();
    let ours = CancellationToken::from(&theirs);
    (theirs, ours)
}

fn is_plainly_cancelled(token: &CancellationToken) -> bool {
    matches!(token.stop_reason(), Some(StopReason::Cancelled))
}

/// Whether `f` wakes a stream under the token.
fn wakes(token: &CancellationToken, stop: impl FnOnce()) -> bool {
    let wakes = Wakes::new();
    let mut stream = stream::pending::<()>().take_until_cancelled(token);
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    stop();
    wakes.count() == 1 && wakes.poll(Pin::new(&mut stream)).is_ready()
}
