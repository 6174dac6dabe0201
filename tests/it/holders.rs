//! `track_holders` and `holders`: what keeps a token from settling.

use futures::{FutureExt, StreamExt, stream};
use std::{
    any::Any,
    convert::Infallible,
    future::{pending, ready},
    panic::Location,
    pin::pin,
    thread,
};
use stopcock::{
    CancelFutureExt, CancelStreamExt, CancelTryStreamExt, CancellationToken, Holder, IntoSignal,
    generator, signal, try_generator,
};

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

fn tracked() -> CancellationToken {
    let token = CancellationToken::new();
    token.track_holders();
    token
}

fn names(token: &CancellationToken) -> Vec<&'static str> {
    token.holders().iter().map(Holder::what).collect()
}

/// The function that makes a holder, and its line.
type Make = fn(&CancellationToken) -> (Box<dyn Any>, &'static Location<'static>);

#[rustfmt::skip]
const MAKERS: &[(&str, Make)] = &[
    ("take_until_cancelled", |token| (Box::new(stream::pending::<u8>().take_until_cancelled(token)), here())),
    ("take_until_cancelled", |token| (Box::new(stream::pending::<u8>().take_until_cancelled(token.clone())), here())),
    ("take_until_cancelled", |token| (Box::new(stream::pending::<u8>().take_until_cancelled(Some(token))), here())),
    ("take_until_cancelled", |token| (Box::new(stream::pending::<u8>().take_until_cancelled(token.clone().cancelled_owned())), here())),
    ("take_until_cancelled", |token| (Box::new(stream::pending::<u8>().take_until_cancelled(token).drop_on_cancel()), here())),
    ("with_cancellation", |token| (Box::new(stream::pending::<u8>().with_cancellation(token)), here())),
    ("with_cancellation", |token| (Box::new(pending::<u8>().with_cancellation(token)), here())),
    ("try_with_cancellation", |token| (Box::new(stream::pending::<Result<u8, std::io::Error>>().try_with_cancellation(token)), here())),
    ("run_until_cancelled", |token| (Box::new(token.run_until_cancelled(pending::<u8>())), here())),
    ("run_until_cancelled", |token| (Box::new(token.clone().run_until_cancelled_owned(pending::<u8>())), here())),
    ("generator", |token| (Box::new(generator(token, async |mut y| y.yield_item(1_u8).await)), here())),
    ("try_generator", |token| (Box::new(try_generator(token, async |mut y| -> std::io::Result<()> { y.yield_item(1_u8).await; Ok(()) })), here())),
    ("any", |token| (Box::new(signal::any(token, signal::never())), here())),
    ("any", |token| (Box::new(signal::any(signal::never(), Some(token))), here())),
    ("into_signal", |token| (Box::new(token.into_signal()), here())),
    ("into_signal", |token| (Box::new(token.clone().into_signal()), here())),
    ("into_signal", |token| (Box::new(Some(token).into_signal()), here())),
    ("hold", |token| (Box::new(token.hold()), here())),
    ("hold", |token| { let hold = token.hold(); (Box::new(hold.clone()), here()) }),
];

#[test]
fn each_is_listed_with_its_name_and_its_line_until_it_is_dropped() {
    for (name, make) in MAKERS {
        for place in [CancellationToken::clone, CancellationToken::child_token] {
            let token = tracked();
            let (holder, line) = make(&place(&token));
            let holders = token.holders();
            let [listed] = &holders[..] else {
                panic!("{name}: {holders:?}");
            };
            assert_eq!(listed.what(), *name);
            let location = listed.location();
            assert_eq!(
                (location.file(), location.line()),
                (line.file(), line.line()),
                "{name}"
            );
            drop(holder);
            assert!(token.holders().is_empty(), "{name}");
        }
    }
}

#[test]
fn without_tracking_and_before_it_nothing_is_listed() {
    let token = CancellationToken::new();
    let _before = token.hold();
    assert!(token.holders().is_empty());
    token.track_holders();
    assert!(token.holders().is_empty());
    let _after = stream::pending::<u8>().take_until_cancelled(&token);
    assert_eq!(names(&token), ["take_until_cancelled"]);
    // A second call changes nothing.
    token.track_holders();
    assert_eq!(names(&token), ["take_until_cancelled"]);
}

#[test]
fn a_holder_made_before_tracking_counts_until_it_is_dropped_and_affects_no_other() {
    let token = CancellationToken::new();
    let before = token.hold();
    token.track_holders();
    let after = token.hold();
    let mut settled = token.cancel_and_settle();
    drop(before);
    assert!((&mut settled).now_or_never().is_none());
    assert_eq!(names(&token), ["hold"]);
    drop(after);
    assert!(settled.now_or_never().is_some());
}

#[test]
fn each_token_that_tracks_lists_what_is_under_it() {
    let root = tracked();
    let (one, other) = (root.child_token(), root.child_token());
    one.track_holders();
    let beside = CancellationToken::new();
    let linked = CancellationToken::linked([&one, &other.child_token(), &beside]);
    let of_one = one.child_token().hold();
    let _of_other = pending::<u8>().with_cancellation(&other);
    let _of_both = linked.run_until_cancelled(pending::<u8>());
    let _of_nobody = beside.hold();
    assert_eq!(
        names(&root),
        ["hold", "with_cancellation", "run_until_cancelled"]
    );
    assert_eq!(names(&one), ["hold", "run_until_cancelled"]);
    assert!(names(&other).is_empty());
    assert!(names(&beside).is_empty());
    drop(of_one);
    assert_eq!(names(&root), ["with_cancellation", "run_until_cancelled"]);
    assert_eq!(names(&one), ["run_until_cancelled"]);
}

#[test]
fn one_that_has_ended_or_was_stopped_is_not_listed_though_it_is_kept() {
    let token = tracked();
    let mut ended = stream::empty::<u8>().take_until_cancelled(&token);
    let mut stopped = pin!(generator(&token, async |mut y| y.yield_item(1).await));
    let mut ready = token.run_until_cancelled(ready(1));
    assert_eq!(names(&token).len(), 3);
    assert_eq!(ended.next().now_or_never(), Some(None));
    assert_eq!((&mut ready).now_or_never(), Some(Some(1)));
    assert_eq!(names(&token), ["generator"]);
    token.cancel();
    assert_eq!(names(&token), ["generator"]);
    assert_eq!(stopped.next().now_or_never(), Some(None));
    assert!(token.holders().is_empty());
}

#[test]
fn they_are_listed_in_the_order_in_which_they_were_made_and_wherever_they_were_moved() {
    let token = tracked();
    let holds: Vec<_> = (0..40).map(|_| token.hold()).collect();
    let stream = Box::new(stream::pending::<u8>().take_until_cancelled(&token));
    let other_thread = thread::spawn(move || {
        drop(holds.into_iter().skip(1).step_by(2).collect::<Vec<_>>());
    });
    other_thread.join().unwrap();
    assert_eq!(names(&token), ["take_until_cancelled"]);
    let _hold = token.hold();
    assert_eq!(names(&token), ["take_until_cancelled", "hold"]);
    drop(stream);
    assert_eq!(names(&token), ["hold"]);
}

#[test]
fn a_list_keeps_no_token() {
    let token = tracked();
    let guest = std::sync::Arc::new(());
    let kept = guest.clone();
    token.on_cancel(move |_| drop(kept)).detach();
    let hold = token.child_token().hold();
    let holders = token.holders();
    drop(token);
    assert_eq!(std::sync::Arc::strong_count(&guest), 2);
    drop(hold);
    assert_eq!(std::sync::Arc::strong_count(&guest), 1);
    assert_eq!(holders.len(), 1);
}

#[test]
fn the_drop_of_a_holder_may_list_holders() {
    struct Asks(CancellationToken);

    impl Drop for Asks {
        fn drop(&mut self) {
            assert_eq!(names(&self.0), ["take_until_cancelled"]);
        }
    }

    let token = tracked();
    let asks = Asks(token.clone());
    let source = stream::poll_fn(move |_| {
        let _ = &asks;
        std::task::Poll::<Option<Infallible>>::Pending
    });
    drop(source.take_until_cancelled(&token));
    assert!(token.holders().is_empty());
}

#[test]
fn a_holder_prints_as_one_line() {
    let token = tracked();
    #[rustfmt::skip]
    let (_hold, line) = (token.hold(), here());
    let printed = token.holders()[0].to_string();
    let start = format!("hold, made at {}:{}:", line.file(), line.line());
    assert!(printed.starts_with(&start), "{printed}");
    assert!(printed.ends_with(" ago"), "{printed}");
    assert!(!printed.contains('\n'), "{printed}");
}

#[test]
fn calls_and_bodies_on_threads_are_listed_until_they_are_done() {
    use std::sync::mpsc;
    use stopcock::{blocking_generator, blocking_iter, run_blocking, try_blocking_generator};

    let token = tracked();
    let (done, is_done) = mpsc::channel::<()>();
    #[rustfmt::skip]
    let (call, line) = (run_blocking(&token, move || is_done.recv().is_err()), here());
    let holders = token.holders();
    let whats: Vec<_> = holders.iter().map(Holder::what).collect();
    assert_eq!(whats, ["future of run_blocking", "run_blocking"]);
    for holder in holders {
        assert_eq!(
            (holder.location().file(), holder.location().line()),
            (line.file(), line.line())
        );
    }
    token.cancel();
    drop(call);
    assert_eq!(names(&token), ["run_blocking"]);
    drop(done);
    futures::executor::block_on(token.settled());
    assert!(token.holders().is_empty());

    let token = tracked();
    let body = blocking_generator(&token, 1, |tx| (0..).try_for_each(|n| tx.send(n)));
    let line = here().line() - 1;
    let listed = token.holders();
    assert_eq!(listed[0].location().line(), line);
    assert_eq!(listed[0].location().file(), here().file());
    let numbers = blocking_iter(&token, 1, 0..);
    assert_eq!(token.holders()[1].location().line(), here().line() - 1);
    let results = try_blocking_generator(&token, 1, |tx| -> std::io::Result<()> {
        (0..).try_for_each(|n| tx.send(n).map_err(Into::into))
    });
    assert_eq!(
        names(&token),
        [
            "blocking_generator",
            "blocking_generator",
            "try_blocking_generator"
        ]
    );
    drop((body, numbers, results));
    token.cancel();
    futures::executor::block_on(token.settled());
    assert!(token.holders().is_empty());
}

#[cfg(feature = "tokio")]
mod timed {
    use super::*;
    use std::time::Duration;
    use stopcock::{
        spawn_generator, spawn_generator_on, try_spawn_generator, try_spawn_generator_on,
    };
    use tokio::{runtime::Handle, time::advance};

    #[tokio::test(start_paused = true)]
    async fn a_holders_age_is_that_of_the_paused_clock() {
        let token = tracked();
        let _hold = token.hold();
        advance(Duration::from_millis(12_500)).await;
        let holder = &token.holders()[0];
        assert_eq!(holder.elapsed(), Duration::from_millis(12_500));
        assert!(holder.to_string().ends_with(", 12.5s ago"), "{holder}");
    }

    #[tokio::test]
    async fn bodies_on_tasks_are_listed_until_they_are_dropped_though_the_stream_is_kept() {
        let token = tracked();
        let handle = Handle::current();
        let first = here().line() + 1;
        let one = spawn_generator(&token, 1, |tx| async move { tx.send(1).await });
        let two = spawn_generator_on(&handle, &token, 1, |tx| async move { tx.send(1).await });
        let three = try_spawn_generator(
            &token,
            1,
            |_: stopcock::Sender<u8, Result<u8, std::io::Error>>| pending(),
        );
        let four = try_spawn_generator_on(
            &handle,
            &token,
            1,
            |_: stopcock::Sender<u8, Result<u8, std::io::Error>>| pending(),
        );
        let holders = token.holders();
        let whats: Vec<_> = holders.iter().map(Holder::what).collect();
        assert_eq!(
            whats,
            [
                "spawn_generator",
                "spawn_generator",
                "try_spawn_generator",
                "try_spawn_generator"
            ]
        );
        for (holder, n) in holders.iter().zip(0..) {
            assert_eq!(holder.location().file(), here().file());
            assert!(holder.location().line() >= first + n, "{holder}");
        }
        assert_eq!(holders[0].location().line(), first);
        assert_eq!(holders[1].location().line(), first + 1);
        token.cancel_and_settle().await;
        assert!(token.holders().is_empty());
        drop((one, two, three, four));
    }

    #[tokio::test(start_paused = true)]
    async fn an_adapter_under_a_deadline_is_listed_and_stopped() {
        let token = CancellationToken::with_timeout(Duration::from_secs(1));
        token.track_holders();
        let rows = stream::repeat(1).take_until_cancelled(&token);
        let mut rows = pin!(rows);
        assert_eq!(rows.next().await, Some(1));
        assert_eq!(names(&token), ["take_until_cancelled"]);
        advance(Duration::from_secs(1)).await;
        assert_eq!(rows.next().await, None);
        assert!(token.holders().is_empty());
    }
}
