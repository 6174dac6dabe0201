use stopcock::{CancellationToken, Yielder, generator};

fn main() {
    let token = CancellationToken::new();
    let _ = generator(token, |mut y: Yielder<'_, u32>| async move {
        y.yield_item(1).await
    });
}
