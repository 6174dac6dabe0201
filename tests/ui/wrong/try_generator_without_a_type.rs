use stopcock::{CancellationToken, try_generator};

fn main() {
    // Not bound by `let`: the compiler would suggest a type with this file's path in it, underlined over its length.
    drop(try_generator(CancellationToken::new(), async |mut y| {
        y.yield_item(std::fs::read("a")?).await;
        Ok(())
    }));
}
