use futures::{future, stream};
use std::time::Duration;
use stopcock::{CancelStreamExt, CancellationToken, signal};

fn main() {
    let token = CancellationToken::new();
    let items = || stream::iter(0..3);
    let _ = items()
        .take_until_cancelled(signal::when(future::ready(())))
        .drop_on_cancel();
    let _ = items()
        .take_until_cancelled(&token)
        .drain_for(Duration::from_secs(1))
        .drop_on_cancel();
    let _ = items()
        .with_timeout(Duration::from_secs(1))
        .drop_on_cancel();
}
