use futures::{future, stream};
use std::time::Duration;
use stopcock::{CancelStreamExt, CancellationToken, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let token = CancellationToken::from_signal(signal::when(future::ready(())));
    let items = || stream::iter(0..3);
    let _ = items().take_until_cancelled(token).drop_on_cancel();
    let token = CancellationToken::with_timeout(Duration::from_secs(1));
    let _ = items().with_cancellation(token).drop_on_cancel();
}
