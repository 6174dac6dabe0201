//! Gives a slow response two seconds. A partial one is an error, not a response with some rows missing.
//!
//! ```text
//! cargo run --example two_seconds
//! ```

use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::time::Duration;
use stopcock::{CancelStreamExt, StopReason};
use tokio::time::sleep;

/// A row every half second.
fn answer(rows: u32) -> impl Stream<Item = u32> {
    stream::iter(0..rows).then(async |row| {
        sleep(Duration::from_millis(500)).await;
        row
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let two_seconds = Duration::from_secs(2);

    let quick: Result<Vec<u32>, StopReason> =
        answer(3).with_timeout(two_seconds).try_collect().await;
    println!("three rows: {quick:?}");

    let slow: Result<Vec<u32>, StopReason> =
        answer(10).with_timeout(two_seconds).try_collect().await;
    println!("ten rows: {slow:?}");

    // The rows that came in time, for a caller to whom some are better than none.
    let mut rows = Box::pin(answer(10).take_until_timeout(two_seconds));
    let some: Vec<u32> = rows.by_ref().collect().await;
    println!(
        "those in time: {some:?}, stopped by {:?}",
        rows.stop_reason()
    );
}
