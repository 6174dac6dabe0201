//! Counts seconds until Ctrl-C, then prints why it stopped.
//!
//! ```text
//! cargo run --example ctrl_c        # until Ctrl-C
//! cargo run --example ctrl_c -- 3   # or for three seconds
//! ```

use futures::{StreamExt, stream};
use std::{env, pin::pin, time::Duration};
use stopcock::{CancelStreamExt, signal};
use tokio::{signal::ctrl_c, time::interval};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let seconds = env::args().nth(1).and_then(|arg| arg.parse().ok());
    let timeout = seconds.map(|seconds| signal::timeout(Duration::from_secs(seconds)));
    // The first of two signals. An option that is `None` never fires.
    let stop = signal::any(signal::when(ctrl_c()).with_reason("Ctrl-C"), timeout);

    let mut interval = interval(Duration::from_secs(1));
    let ticks = stream::poll_fn(move |cx| interval.poll_tick(cx).map(Some));
    let mut ticks = pin!(ticks.enumerate().with_cancellation(stop));

    while let Some(tick) = ticks.next().await {
        match tick {
            Ok((n, _)) => println!("{n}"),
            Err(reason) => println!("stopped: {reason}"),
        }
    }
}
