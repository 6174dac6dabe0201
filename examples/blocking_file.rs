//! Reads a file with blocking calls, as a stream that a client can drop at any time.
//!
//! ```text
//! cargo run --example blocking_file -- README.md
//! ```

use futures::{StreamExt, TryStreamExt};
use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader},
};
use stopcock::{CancellationToken, run_blocking, try_blocking_generator};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let path = env::args().nth(1).unwrap_or("Cargo.toml".to_owned());
    let token = CancellationToken::new();

    // On a thread of its own, at most 16 lines ahead of the consumer.
    let lines = || {
        let path = path.clone();
        try_blocking_generator(&token, 16, move |tx| {
            for line in BufReader::new(File::open(path)?).lines() {
                // Fails once the stream has been dropped or stopped, and `?` ends the thread.
                tx.send(line?)?;
            }
            Ok::<_, io::Error>(())
        })
    };

    let mut first_lines = lines().take(3);
    while let Some(line) = first_lines.try_next().await? {
        println!("{line}");
    }
    // Dropping the stream ends the thread, which closes its file.
    drop(first_lines);

    let count = lines()
        .try_fold(0, async |count, _line| Ok(count + 1))
        .await?;
    println!(".. {count} lines in all");

    // A single call.
    let size = run_blocking(&token, move || std::fs::metadata(path))
        .await??
        .len();
    println!("{size} bytes");
    Ok(())
}
