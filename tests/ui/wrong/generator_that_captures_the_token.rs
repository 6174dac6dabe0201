use futures::Stream;
use stopcock::{CancellationToken, generator};

fn count(token: &CancellationToken, to: u32) -> impl Stream<Item = u32> {
    generator(token, async move |mut y| {
        for n in 0..to {
            y.yield_item(n).await;
        }
    })
}

fn three() -> impl Stream<Item = u32> {
    let token = CancellationToken::new();
    count(&token, 3)
}

fn main() {}
