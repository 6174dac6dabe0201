use futures::StreamExt;
use stopcock::{CancellationToken, generator};

async fn first(token: &CancellationToken) -> Option<u32> {
    let mut items = generator(token, async |mut y| y.yield_item(1).await);
    items.next().await
}

fn main() {}
