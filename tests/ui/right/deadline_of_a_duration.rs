use futures::{future, stream};
use std::time::Duration;
use stopcock::{CancelFutureExt, CancelStreamExt, CancellationToken};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let _ = stream::iter(0..3).with_timeout(Duration::from_secs(2));
    let _ = future::ready(()).with_timeout(Duration::from_secs(2));
    let _ = CancellationToken::new().child_with_timeout(Duration::from_secs(2));
}
