//! A tree of workers: one request of a group is cancelled, then the whole tree, and the program waits for all of them.
//!
//! ```text
//! cargo run --example tree
//! ```

use futures::{StreamExt, stream};
use std::time::Duration;
use stopcock::{CancelStreamExt, CancellationToken};
use tokio::{task::JoinSet, time::sleep};

#[tokio::main]
async fn main() {
    let server = CancellationToken::new();
    let mut workers = JoinSet::new();

    let mut groups = Vec::new();
    for name in ["mail", "video"] {
        let group = server.child_token();
        for n in 1..=2 {
            workers.spawn(work(format!("{name} {n}"), group.child_token()));
        }
        groups.push(group);
    }

    sleep(Duration::from_millis(100)).await;
    groups[1].cancel_with("no more videos today");

    sleep(Duration::from_millis(100)).await;
    server.cancel_with("shutting down");
    // All streams below have been dropped when this returns.
    server.settled().await;
    workers.join_all().await;
}

async fn work(name: String, token: CancellationToken) {
    let jobs = stream::iter(1..).then(async |job: u32| {
        sleep(Duration::from_millis(10)).await;
        job
    });
    let done = jobs.take_until_cancelled(&token).count().await;
    let reason = token.stop_reason().expect("these jobs have no end");
    println!("{name}: {done} jobs, then stopped: {reason}");
}
