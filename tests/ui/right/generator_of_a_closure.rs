use stopcock::{CancellationToken, generator};

fn main() {
    let token = CancellationToken::new();
    let _ = generator(token, async move |mut y| y.yield_item(1).await);
}
