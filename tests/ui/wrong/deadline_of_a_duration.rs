use futures::{future, stream};
use std::time::Duration;
use stopcock::{CancelFutureExt, CancelStreamExt, CancellationToken};

fn main() {
    let _ = stream::iter(0..3).with_deadline(Duration::from_secs(2));
    let _ = future::ready(()).with_deadline(Duration::from_secs(2));
    let _ = CancellationToken::new().child_with_deadline(Duration::from_secs(2));
}
