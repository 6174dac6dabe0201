//! Shuts down gracefully, then hard, and prints what is still running and where it was made.
//!
//! ```text
//! cargo run --example graceful_shutdown
//! ```

use futures::{StreamExt, stream};
use std::{future::pending, time::Duration};
use stopcock::{CancelFutureExt, CancelStreamExt, CancellationToken};
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let hard = CancellationToken::new();
    // To be called before the holders are made.
    hard.track_holders();
    let graceful = hard.child_token();

    // Takes jobs until the graceful stop, and finishes the job that it has begun.
    let mut jobs = stream::repeat("job").take_until_cancelled(&graceful);
    tokio::spawn(async move {
        while let Some(_job) = jobs.next().await {
            sleep(Duration::from_millis(100)).await;
        }
    });

    // Must not be cancelled, so the shutdown waits for it.
    let hold = graceful.hold();
    tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        println!("the page is written");
        drop(hold);
    });

    // Waits for a peer that does not answer.
    let stuck = pending::<()>().with_cancellation(&hard);
    tokio::spawn(stuck);

    sleep(Duration::from_millis(50)).await;
    println!("shutting down");
    graceful.cancel_with("shutting down");
    graceful.settled().await;

    let grace = Duration::from_millis(200);
    if hard.settled().with_timeout(grace).await.is_err() {
        for holder in hard.holders() {
            println!("still running: {holder}");
        }
        hard.cancel_with("the grace is over");
        hard.settled().await;
    }
    println!("nothing is left");
}
