use std::io;
use stopcock::{CancellationToken, try_generator};

fn main() {
    let token = CancellationToken::new();
    let _ = try_generator(&token, async |mut y| -> io::Result<()> {
        y.yield_item(std::fs::read("a")?).await;
        Ok(())
    });
    let _ = try_generator(&token, async |mut y| {
        y.yield_item(std::fs::read("a")?).await;
        Ok::<_, io::Error>(())
    });
}
