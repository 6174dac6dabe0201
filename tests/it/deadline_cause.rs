//! Deadlines with a reason of their own, which applies where and when the deadline does.

use crate::support::Wakes;
use futures::{FutureExt, StreamExt, stream};
use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};
use stopcock::{CancelStreamExt, CancellationToken, StopReason};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, advance},
};

const SECOND: Duration = Duration::from_secs(1);
const INSTANT: Duration = Duration::from_nanos(1);

#[derive(Debug, PartialEq)]
struct QueryTimeout(u8);

impl Display for QueryTimeout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "query {} timed out", self.0)
    }
}

impl Error for QueryTimeout {}

fn slow_query() -> StopReason {
    StopReason::custom(QueryTimeout(1))
}

fn runtime() -> Runtime {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap()
}

#[track_caller]
fn assert_slow_query(reason: Option<StopReason>) {
    let reason = reason.expect("it is over");
    assert!(reason.is_timeout(), "{reason:?}");
    assert_eq!(reason.downcast_ref(), Some(&QueryTimeout(1)));
}

#[tokio::test(start_paused = true)]
async fn a_check_finds_the_cause_at_the_deadline_and_not_before() {
    let request = CancellationToken::new();
    let query = request.child_with_timeout_cause(SECOND, slow_query());
    let below = query.child_token();
    assert_eq!(below.deadline(), Some(Instant::now() + SECOND));

    advance(SECOND - INSTANT).await;
    assert!(below.stop_reason().is_none());
    advance(INSTANT).await;
    assert_slow_query(below.stop_reason());
    assert_slow_query(query.stop_reason());
    assert!(!request.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_timer_brings_the_cause_to_whatever_waits() {
    let request = CancellationToken::new();
    let at = Instant::now() + SECOND;
    let query = request.child_with_deadline_cause(at, slow_query());
    let called = Arc::new(Mutex::new(None));
    let call = Arc::clone(&called);
    let below = query.child_token();
    let _registration = below.on_cancel(move |reason| {
        *call.lock().unwrap() = Some(reason.clone());
    });

    let mut rows = stream::pending::<u8>().with_cancellation(&query);
    assert_slow_query(rows.next().await.unwrap().err());
    assert_eq!(Instant::now(), at);
    tokio::task::yield_now().await;
    assert_slow_query(called.lock().unwrap().take());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_past_stops_with_the_cause_at_once() {
    let request = CancellationToken::new();
    assert_slow_query(
        request
            .child_with_timeout_cause(Duration::ZERO, slow_query())
            .stop_reason(),
    );
    request.cancel_with("hung up");
    let late = request.child_with_timeout_cause(Duration::ZERO, slow_query());
    assert_eq!(late.stop_reason().unwrap().to_string(), "hung up");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_deadline_keeps_its_reason() {
    let request = CancellationToken::new();
    let query = request.child_with_timeout_cause(SECOND, slow_query());
    query.cancel_with("not needed");
    advance(2 * SECOND).await;
    assert_eq!(query.stop_reason().unwrap().to_string(), "not needed");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_deadline_loses_to_the_cause() {
    let query = CancellationToken::new().child_with_timeout_cause(SECOND, slow_query());
    advance(SECOND).await;
    assert!(!query.cancel_with("too late"));
    assert_slow_query(query.stop_reason());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_wins_with_its_own_cause() {
    let request = CancellationToken::new().child_with_timeout_cause(2 * SECOND, "request");
    let cases = [
        ("earlier", SECOND, "query"),
        ("at the same time", 2 * SECOND, "request"),
        ("later", 3 * SECOND, "request"),
        ("never", Duration::MAX, "request"),
    ];
    let queries = cases.map(|(_, time, _)| request.child_with_timeout_cause(time, "query"));
    let plain = request.child_with_timeout(SECOND);
    let mut waiting: Vec<_> = queries
        .iter()
        .map(|query| query.clone().cancelled_owned())
        .collect();
    for waiting in &mut waiting {
        assert!(waiting.now_or_never().is_none());
    }
    advance(4 * SECOND).await;
    for ((case, _, wanted), query) in cases.iter().zip(&queries) {
        let reason = query.stop_reason().unwrap();
        assert_eq!(reason.to_string(), *wanted, "{case}");
        assert!(reason.is_timeout(), "{case}");
    }
    assert!(matches!(
        plain.stop_reason(),
        Some(StopReason::DeadlineExceeded)
    ));
    for waiting in waiting {
        waiting.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_linked_token_has_the_cause_of_the_parent_whose_deadline_was_first() {
    let root = CancellationToken::new();
    let first = root.child_with_timeout_cause(SECOND, slow_query());
    let second = root.child_with_timeout_cause(2 * SECOND, "second");
    for parents in [[&first, &second], [&second, &first]] {
        let linked = CancellationToken::linked(parents).child_token();
        assert!(linked.stop_reason().is_none());
    }
    let linked = CancellationToken::linked([&second, &first]);
    // Checked late, the later one first.
    advance(3 * SECOND).await;
    assert_eq!(second.stop_reason().unwrap().to_string(), "second");
    assert_slow_query(linked.stop_reason());
}

#[test]
fn a_child_that_stands_by_has_the_parents_cause_once_the_parents_runtime_has_ended() {
    let (parents, childs) = (runtime(), runtime());
    let request = {
        let _context = parents.enter();
        CancellationToken::new().child_with_timeout_cause(SECOND, slow_query())
    };
    let query = {
        let _context = childs.enter();
        request.child_with_timeout_cause(2 * SECOND, "query")
    };
    let wakes = Wakes::new();
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cancelled = query.clone().cancelled_owned();
    let polled = Pin::new(&mut cancelled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());

    drop(parents);
    childs.block_on(async { tokio::time::sleep(SECOND).await });
    assert_eq!(wakes.count(), 1);
    assert_slow_query(query.stop_reason());
}

#[tokio::test(start_paused = true)]
async fn whatever_the_cause_is_it_counts_as_a_timeout() {
    let root = CancellationToken::new();
    let reason_of = |cause: StopReason| {
        let token = root.child_with_timeout_cause(Duration::ZERO, cause);
        let reason = token.stop_reason().unwrap();
        assert!(reason.is_timeout(), "{reason:?}");
        let error = io::Error::from(reason.clone());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        reason
    };
    assert!(matches!(
        reason_of(StopReason::DeadlineExceeded),
        StopReason::DeadlineExceeded
    ));
    assert!(matches!(
        reason_of(StopReason::IdleTimeout),
        StopReason::IdleTimeout
    ));
    let timed_out = StopReason::TimedOut(Arc::new(QueryTimeout(2)));
    assert_eq!(reason_of(timed_out).downcast_ref(), Some(&QueryTimeout(2)));
    assert_eq!(
        reason_of(slow_query()).downcast_ref(),
        Some(&QueryTimeout(1))
    );
    for cause in [StopReason::Cancelled, StopReason::ConsumerDropped] {
        let reason = reason_of(cause.clone());
        assert!(matches!(reason, StopReason::TimedOut(_)), "{reason:?}");
        assert_eq!(reason.to_string(), cause.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_prints_its_reason_and_its_deadline() {
    let request = CancellationToken::new();
    let printed = format!("{request:?}");
    assert!(printed.contains("stop_reason: None"), "{printed}");
    assert!(printed.contains("deadline: None"), "{printed}");

    let at = Instant::now() + SECOND;
    let query = request.child_with_deadline_cause(at, slow_query());
    let printed = format!("{:?}", query.child_token());
    assert!(
        printed.contains(&format!("deadline: Some({at:?})")),
        "{printed}"
    );
    advance(SECOND).await;
    let printed = format!("{query:?}");
    assert!(
        printed.contains("stop_reason: Some(TimedOut(QueryTimeout(1)))"),
        "{printed}"
    );
}

#[test]
#[should_panic(
    expected = "a token with a deadline must be made in the context of a Tokio 1.x runtime"
)]
fn outside_of_a_runtime_it_panics() {
    drop(CancellationToken::new().child_with_timeout_cause(SECOND, "too slow"));
}
