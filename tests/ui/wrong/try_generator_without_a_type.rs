use stopcock::{CancellationToken, try_generator};

fn main() {
    let _ = try_generator(CancellationToken::new(), async |mut y| {
        y.yield_item(std::fs::read("a")?).await;
        Ok(())
    });
}
