use super::{IntoSignal, When, when};
use std::pin::Pin;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A check of tokio-util's token takes a lock. So its future is polled instead: once at first, then only after a
/// wake-up.
impl IntoSignal for CancellationToken {
    /// Boxed, so that an `Unpin` stream stays `Unpin`.
    type Signal = When<Pin<Box<WaitForCancellationFutureOwned>>>;

    fn into_signal(self) -> Self::Signal {
        when(Box::pin(self.cancelled_owned()))
    }
}

impl IntoSignal for &CancellationToken {
    type Signal = <CancellationToken as IntoSignal>::Signal;

    fn into_signal(self) -> Self::Signal {
        self.clone().into_signal()
    }
}
