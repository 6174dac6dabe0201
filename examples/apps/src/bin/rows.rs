//! The rows of a SQLite query as a stream. It stops between two rows, and in the middle of one that takes too long.
//!
//! ```text
//! cargo run -p apps --bin rows                  # queries of its own, which it stops
//! cargo run -p apps --bin rows -- FILE QUERY    # the first column of yours, for two seconds or until Ctrl-C
//! ```
//!
//! In Go that is `db.QueryContext(ctx, query)`: the driver has a goroutine for it, which waits for `ctx.Done()` and calls
//! `sqlite3_interrupt`. Here it is a callback of a token: nothing waits, and nothing is left. Dropping the stream cancels
//! that token as well, so that there is no `defer rows.Close()`.

use futures::{StreamExt, TryStreamExt};
use rusqlite::{Connection, types::Value};
use std::{
    env,
    path::PathBuf,
    time::{Duration, Instant},
};
use stopcock::{BlockingGenerator, CancellationToken, IntoSignal, signal, try_blocking_generator};
use tokio::signal::ctrl_c;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// How many rows the thread may be ahead of its consumer.
const CAPACITY: usize = 16;

/// A row for each number, endlessly.
const NUMBERS: &str = "WITH RECURSIVE numbers(n) AS \
    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers";

/// A single row, which takes some seconds.
const SUM: &str = "WITH RECURSIVE numbers(n) AS \
    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 10000000) SELECT sum(n) FROM numbers";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = env::args().skip(1);
    if let (Some(file), Some(query)) = (args.next(), args.next()) {
        let ctrl_c = signal::when(ctrl_c());
        let stop = signal::any(signal::timeout(Duration::from_secs(2)), ctrl_c);
        let mut rows = rows(file.into(), query, stop);
        while let Some(row) = rows.try_next().await? {
            println!("{row:?}");
        }
        return Ok(());
    }

    // The consumer takes five rows. The join is only for printing that the thread has ended, and why.
    let mut numbers = rows(":memory:".into(), NUMBERS.into(), signal::never());
    let five: Vec<Value> = (&mut numbers).take(5).try_collect().await?;
    println!("{five:?}, then {:?}", numbers.join().await);

    // The slow row, if it is not stopped.
    let begin = Instant::now();
    let sum: Vec<Value> = rows(":memory:".into(), SUM.into(), signal::never())
        .try_collect()
        .await?;
    println!("{sum:?} took {:.1?}", begin.elapsed());

    // The request is cancelled before the first row.
    let request = CancellationToken::with_timeout(Duration::from_millis(300));
    let mut sum = rows(":memory:".into(), SUM.into(), &request);
    let error = sum.try_next().await.expect_err("it takes longer");
    let stopped = Instant::now();
    let ended = sum.join().await;
    let after = stopped.elapsed();
    println!("{error}, and the thread has ended {after:.1?} later: {ended:?}");
    Ok(())
}

/// The first column of each row. The last item is an error if the query fails, or is stopped.
pub(crate) fn rows<G>(
    file: PathBuf,
    query: String,
    stop: G,
) -> BlockingGenerator<Result<Value, Error>>
where
    G: IntoSignal<Signal: Send + 'static>,
{
    try_blocking_generator(stop, CAPACITY, move |tx| {
        let db = Connection::open(file)?;

        // SQLite ignores an interrupt that comes while no statement runs. So a statement runs from here on, and no interrupt
        // between the callback and the first step of the query is lost.
        let mut running = db.prepare("SELECT 1")?;
        let mut running = running.query([])?;
        running.next()?;

        let interrupt = db.get_interrupt_handle();
        let _interrupts_until_dropped = tx.token().on_cancel(move |_| interrupt.interrupt());

        let mut query = db.prepare(&query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            // Blocks while the consumer is behind, and fails once it has been dropped.
            tx.send(row.get(0)?)?;
        }
        Ok(())
    })
}
