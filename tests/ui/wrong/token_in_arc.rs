use futures::stream;
use std::sync::Arc;
use stopcock::{CancelStreamExt, CancellationToken};

fn main() {
    let token = Arc::new(CancellationToken::new());
    let _ = stream::iter(0..3).take_until_cancelled(&token);
    let _ = stream::iter(0..3).take_until_cancelled(token);
}
