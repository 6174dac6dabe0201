//! `rows` on a real file: neither a thread nor a lock of the database outlives the consumer.

#[path = "../src/bin/rows.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod rows;

use apps::{Count, LONG_ENOUGH, check, eventually};
use futures::{StreamExt, TryStreamExt};
use rows::{Error, rows};
use rusqlite::{Connection, types::Value};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::mpsc,
    time::{Duration, Instant},
};
use stopcock::{CancellationToken, StopReason, signal};
use tokio::{
    task::{spawn_blocking, yield_now},
    time::sleep,
};

/// A million rows.
const ROWS: i64 = 1_000_000;

/// One row, after minutes.
const SLOW: &str = "SELECT sum(a.n * b.n) FROM numbers a, numbers b";

struct Database(PathBuf);

impl Database {
    fn new(name: &str) -> Self {
        let file = env::temp_dir().join(format!("rows-{name}-{}.sqlite", process::id()));
        let _ = fs::remove_file(&file);
        let db = Connection::open(&file).unwrap();
        db.execute_batch(&format!(
            "CREATE TABLE numbers AS WITH RECURSIVE numbers(n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT {ROWS}) SELECT n FROM numbers"
        ))
        .unwrap();
        Self(file)
    }

    fn rows(&self, query: &str, stop: &CancellationToken) -> stopcock::BlockingGenerator<Row> {
        rows(self.0.clone(), query.to_owned(), stop)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

type Row = Result<Value, Error>;

/// Whether no statement holds a lock: one that has not ended blocks writers.
fn unlocked(file: &Path) -> bool {
    let db = Connection::open(file).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    db.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").is_ok()
}

async fn eventually_free(db: &Database, before: Count) {
    eventually("left", before, async || Count::now()).await;
    assert!(unlocked(&db.0));
}

#[test]
fn all_rows_come_in_order() {
    check(async || {
        let db = Database::new("all");
        let rows = db.rows("SELECT n FROM numbers", &CancellationToken::new());
        let mut expected = 0;
        let seen = rows.try_for_each(|row| {
            expected += 1;
            assert_eq!(row, Value::Integer(expected));
            futures::future::ok(())
        });
        seen.await.unwrap();
        assert_eq!(expected, ROWS);
    });
}

#[test]
fn a_consumer_that_has_enough_ends_the_query() {
    check(async || {
        let db = Database::new("five");
        let before = Count::now();
        let mut rows = db.rows("SELECT n FROM numbers", &CancellationToken::new());
        for n in 1..=5 {
            assert_eq!(rows.try_next().await.unwrap(), Some(Value::Integer(n)));
        }
        assert!(!unlocked(&db.0));
        drop(rows);
        eventually_free(&db, before).await;
    });
}

#[test]
fn a_stop_between_two_rows_is_an_error() {
    check(async || {
        let db = Database::new("between");
        let before = Count::now();
        let request = CancellationToken::new();
        let mut rows = db.rows("SELECT n FROM numbers", &request);
        assert!(rows.next().await.unwrap().is_ok());
        request.cancel_with("the client has hung up");
        let error = rows.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the client has hung up");
        assert!(rows.next().await.is_none());
        eventually_free(&db, before).await;
    });
}

#[test]
fn a_stop_during_a_slow_row_interrupts_it() {
    check(async || {
        let db = Database::new("middle");
        let before = Count::now();
        let mut latencies = Vec::new();
        for n in 0..100 {
            let request = CancellationToken::new();
            let mut rows = db.rows(&format!("SELECT 1 UNION ALL {SLOW}"), &request);
            // At any time: before the thread has begun, while it opens the file, or in the slow row.
            for _ in 0..n * n {
                yield_now().await;
            }
            if n >= 50 {
                assert!(rows.try_next().await.unwrap().is_some());
                sleep(Duration::from_millis(n)).await;
            }
            let stopped = Instant::now();
            if n % 2 == 0 {
                request.cancel();
                let error = rows.try_next().await;
                let error = error.expect_err("a poll after the stop yields no row");
                assert!(matches!(
                    StopReason::find_in(&*error),
                    Some(StopReason::Cancelled)
                ));
            }
            let _ = rows.join().await;
            latencies.push(stopped.elapsed());
        }
        eventually_free(&db, before).await;
        apps::print_latencies("rows: ended after the stop", latencies);
    });
}

#[test]
fn an_error_of_sqlite_is_the_last_item() {
    check(async || {
        let mut rows = rows(":memory:".into(), "SELECT".into(), signal::never());
        assert!(
            rows.next()
                .await
                .unwrap()
                .unwrap_err()
                .is::<rusqlite::Error>()
        );
        assert!(rows.next().await.is_none());
    });
}

/// The naive version: a task of the blocking pool that feeds a channel.
#[test]
fn control_without_the_callback_the_query_continues() {
    check(async || {
        let db = Database::new("naive");
        let (handles, interrupts) = mpsc::channel();
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let (tx, rx) = tokio::sync::mpsc::channel(1);
            let (file, handles) = (db.0.clone(), handles.clone());
            tasks.push(spawn_blocking(move || {
                let db = Connection::open(file)?;
                handles.send(db.get_interrupt_handle()).unwrap();
                let mut query = db.prepare(SLOW)?;
                let mut rows = query.query([])?;
                while let Some(row) = rows.next()? {
                    if tx.blocking_send(row.get::<_, i64>(0)?).is_err() {
                        break;
                    }
                }
                Ok::<_, rusqlite::Error>(())
            }));
            // Its consumer does not wait.
            drop(rx);
        }

        sleep(LONG_ENOUGH).await;
        let ended = tasks.iter().filter(|task| task.is_finished()).count();
        assert_eq!(ended, 0, "the control does not leak");
        assert!(!unlocked(&db.0));

        for interrupt in interrupts.iter().take(tasks.len()) {
            // Again, if it had not begun.
            interrupt.interrupt();
        }
        for task in tasks {
            assert!(task.await.unwrap().is_err());
        }
    });
}
