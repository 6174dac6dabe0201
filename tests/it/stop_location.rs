//! `stop_location`: the line that stopped a token.

use std::panic::Location;
use stopcock::CancellationToken;

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

/// Whether a token was stopped in the line of `line`.
#[track_caller]
fn check(token: &CancellationToken, line: &Location<'_>) {
    let stopped = token.stop_location().expect("it is stopped");
    assert_eq!((stopped.file(), stopped.line()), (line.file(), line.line()));
}

#[test]
fn a_token_that_is_not_stopped_has_no_location() {
    assert!(CancellationToken::new().stop_location().is_none());
}

#[test]
fn it_is_the_line_of_the_cancel_however_that_is_called() {
    type Cancel = fn(&CancellationToken) -> &'static Location<'static>;
    #[rustfmt::skip]
    let ways: [(&str, Cancel); 3] = [
        ("cancel", |token| { token.cancel(); here() }),
        ("cancel_with", |token| { token.cancel_with("enough"); here() }),
        ("cancel_and_settle", |token| { drop(token.cancel_and_settle()); here() }),
    ];
    for (way, cancel) in ways {
        let token = CancellationToken::new();
        println!("{way}");
        check(&token, cancel(&token));
    }
}

#[test]
fn of_several_cancels_it_is_the_line_of_the_one_that_won() {
    let token = CancellationToken::new();
    #[rustfmt::skip]
    let (_, first) = (token.cancel_with("first"), here());
    token.cancel_with("second");
    check(&token, first);
}

#[test]
fn it_is_inherited_with_the_reason() {
    let root = CancellationToken::new();
    let (alone, below) = (root.child_token(), root.child_token().child_token());
    let linked = CancellationToken::linked([&alone, &CancellationToken::new()]);
    #[rustfmt::skip]
    let (_, of_child) = (alone.cancel_with("alone"), here());
    #[rustfmt::skip]
    let (_, of_root) = (root.cancel_with("all"), here());
    for (token, line) in [
        (&alone, of_child),
        (&linked, of_child),
        (&below, of_root),
        (&root, of_root),
        (&root.child_token(), of_root),
    ] {
        check(token, line);
    }
}

#[test]
fn of_a_drop_guard_it_is_the_line_that_made_it() {
    let tokens: [CancellationToken; 3] = Default::default();
    let [one, with_reason, by_reference] = &tokens;
    #[rustfmt::skip]
    let lines = [
        { let guard = one.clone().drop_guard(); let line = here(); drop(guard); line },
        { let guard = with_reason.clone().drop_guard_with("early"); let line = here(); drop(guard); line },
        { let guard = by_reference.drop_guard_ref(); let line = here(); drop(guard); line },
    ];
    for (token, line) in tokens.iter().zip(lines) {
        check(token, line);
    }
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn of_a_deadline_it_is_the_line_that_made_it_whatever_finds_it_first() {
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    const SECOND: Duration = Duration::from_secs(1);
    type Make = fn(Duration) -> (CancellationToken, &'static Location<'static>);
    #[rustfmt::skip]
    let ways: [(&str, Make); 6] = [
        ("with_deadline", |time| (CancellationToken::with_deadline(Instant::now() + time), here())),
        ("with_timeout", |time| (CancellationToken::with_timeout(time), here())),
        ("child_with_deadline", |time| (CancellationToken::new().child_with_deadline(Instant::now() + time), here())),
        ("child_with_timeout", |time| (CancellationToken::new().child_with_timeout(time), here())),
        ("child_with_deadline_cause", |time| (CancellationToken::new().child_with_deadline_cause(Instant::now() + time, "slow"), here())),
        ("child_with_timeout_cause", |time| (CancellationToken::new().child_with_timeout_cause(time, "slow"), here())),
    ];
    for (way, make) in ways {
        println!("{way}");
        let (over, line) = make(Duration::ZERO);
        check(&over, line);
        check(&over.child_with_timeout(Duration::ZERO), line);

        let (checked, line) = make(SECOND);
        advance(SECOND).await;
        check(&checked.child_token(), line);

        let (cancelled_late, line) = make(SECOND);
        advance(SECOND).await;
        cancelled_late.cancel();
        check(&cancelled_late, line);

        let (awaited, line) = make(SECOND);
        let later = awaited.child_with_timeout(2 * SECOND);
        later.cancelled().await;
        check(&later, line);
        check(&awaited, line);
    }
}

#[test]
fn a_token_prints_the_line_that_stopped_it() {
    let token = CancellationToken::new();
    #[rustfmt::skip]
    let (_, line) = (token.cancel_with("enough"), here());
    let printed = format!("{:?}", token.child_token());
    let line = format!("stop_location: {}:{}:", line.file(), line.line());
    assert!(printed.contains(&line), "{printed}");
}
