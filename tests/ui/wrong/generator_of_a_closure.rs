use stopcock::{CancellationToken, generator};

fn main() {
    let token = CancellationToken::new();
    let _ = generator(token, |mut y| async move { y.yield_item(1).await });
}
