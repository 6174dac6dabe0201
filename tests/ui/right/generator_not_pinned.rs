use futures::StreamExt;
use stopcock::{CancellationToken, generator};

async fn first(token: &CancellationToken) -> Option<u32> {
    let mut items = std::pin::pin!(generator(token, async |mut y| y.yield_item(1).await));
    items.next().await
}

fn main() {
    let _ = first(&CancellationToken::new());
}
