use super::{IntoSignal, When, when};
use std::pin::Pin;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A check of tokio-util's token takes a lock. So it is polled like a future: at first, and then only after a wake-up.
impl IntoSignal for CancellationToken {
    /// In a box, so that a stream which may be moved still may.
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
