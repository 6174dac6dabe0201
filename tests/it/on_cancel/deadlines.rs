use super::{Calls, panics};
use crate::{token::reason, with_deadline::tick};
use std::time::Duration;
use stopcock::CancellationToken;
use tokio::{task::yield_now, time::advance};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn at_a_deadline_the_callbacks_of_the_whole_subtree_run_and_the_runtime_survives_their_panics()
 {
    let calls = Calls::new();
    let request = CancellationToken::with_timeout(SECOND);
    let query = request.child_token();
    request.on_cancel(panics("ends in the task")).detach();
    query.on_cancel(calls.callback("query")).detach();
    let other = CancellationToken::with_timeout(SECOND);
    other.on_cancel(calls.callback("other")).detach();
    advance(2 * SECOND).await;
    yield_now().await;
    let mut all = calls.all();
    all.sort();
    assert_eq!(
        all,
        ["other: deadline exceeded", "query: deadline exceeded"]
    );
}

/// What comes after a check has set the outcome of a token and its child, and has woken no task.
#[derive(Clone, Copy, Debug)]
enum Comes {
    Timer,
    Cancel,
    CancelBelow,
    Gone,
}

#[tokio::test(start_paused = true)]
async fn a_callback_runs_once_with_what_a_check_has_fixed_whatever_comes_by_then() {
    for comes in [Comes::Timer, Comes::Cancel, Comes::CancelBelow, Comes::Gone] {
        let calls = Calls::new();
        let request = CancellationToken::with_timeout(SECOND);
        let query = request.child_token();
        query.on_cancel(calls.callback("query")).detach();
        tick(SECOND);
        assert_eq!(reason(&query).unwrap(), "deadline exceeded");
        assert!(calls.all().is_empty(), "a check runs no callbacks");
        match comes {
            Comes::Timer => advance(SECOND).await,
            Comes::Cancel => assert!(!request.cancel_with("too late")),
            Comes::CancelBelow => assert!(!query.cancel_with("too late")),
            Comes::Gone => {}
        }
        drop((query, request));
        advance(SECOND).await;
        assert_eq!(calls.all(), ["query: deadline exceeded"], "{comes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_on_a_token_that_is_over_its_deadline_runs_at_once_and_the_earlier_one_later() {
    let calls = Calls::new();
    let token = CancellationToken::with_timeout(SECOND);
    token.on_cancel(calls.callback("earlier")).detach();
    tick(SECOND);
    token.on_cancel(calls.callback("later")).detach();
    assert_eq!(calls.all(), ["later: deadline exceeded"]);
    advance(SECOND).await;
    yield_now().await;
    assert_eq!(
        calls.all(),
        ["later: deadline exceeded", "earlier: deadline exceeded"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancel_keeps_its_reason_below_though_a_callback_takes_until_after_a_deadline_there() {
    let root = CancellationToken::new();
    let calls = Calls::new();
    root.on_cancel(|_| tick(2 * SECOND)).detach();
    let request = root.child_with_timeout(SECOND);
    request.on_cancel(calls.callback("request")).detach();
    root.cancel_with("shutting down");
    assert_eq!(calls.all(), ["request: shutting down"]);
}
