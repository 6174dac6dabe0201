//! The same operations by one thread with a token of its own, and by two threads with a shared one.
//!
//! The time is that of one operation of one thread: if two threads did not disturb each other, it would be the same.
//! This needs two idle cores: threads that share a core rarely access the token at the same time.

use crate::{
    case::{Case, Row},
    token::{ours, tokio},
};
use std::thread;

pub(crate) fn rows() -> Vec<Row> {
    fn by_threads(
        work: &str,
        timed: u64,
        tokio: fn(&tokio::Token, u64),
        ours: fn(&ours::Token, u64),
    ) -> impl Iterator<Item = Row> {
        [(1, "one thread"), (2, "two threads on one token")]
            .into_iter()
            .map(move |(threads, reported)| Row {
                work: format!("{work}, {reported}"),
                has_bare: false,
                counted: None,
                timed,
                cases: vec![
                    Case::new("tokio-util", move |n| {
                        shared(threads, &tokio::Token::new(), tokio, n);
                    }),
                    Case::new("**ours**", move |n| {
                        shared(threads, &ours::Token::new(), ours, n);
                    }),
                ],
            })
    }

    [
        by_threads("`is_cancelled`", 3_000_000, tokio::look, ours::look),
        by_threads("`child_token` + drop", 300_000, tokio::child, ours::child),
        by_threads(
            "`cancelled()` made, polled, dropped",
            300_000,
            tokio::wait,
            ours::wait,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One thread is spawned as well, so that its figure includes the same costs.
fn shared<T: Sync>(threads: usize, token: &T, operation: fn(&T, u64), n: u64) {
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| operation(token, n));
        }
    });
}
