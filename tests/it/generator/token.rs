//! The token of a stream: when it is cancelled, why, and that there is only one.

use super::{collect, turn};
use crate::support::{Wakes, panic_of, poll};
use futures::{FutureExt, Stream, StreamExt, stream};
use std::{
    cell::RefCell,
    future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};
use stopcock::{
    CancelStreamExt, CancellationToken, StopReason, Yielder, generator,
    signal::{any, never, when},
    testing::Stoppable,
    try_generator,
};

/// Yields its token repeatedly.
async fn report(mut y: Yielder<'_, CancellationToken>) {
    loop {
        let token = y.token();
        y.yield_item(token).await;
    }
}

fn next<S: Stream + ?Sized>(stream: Pin<&mut S>) -> S::Item {
    match poll(stream) {
        Poll::Ready(Some(item)) => item,
        _ => panic!("an item should have come"),
    }
}

fn reason_of(token: &CancellationToken) -> String {
    match token.stop_reason() {
        Some(reason) => reason.to_string(),
        None => "open".to_owned(),
    }
}

#[test]
fn it_is_the_same_one_each_time_and_each_stream_has_its_own() {
    async fn helper(y: &mut Yielder<'_, CancellationToken>) {
        let token = y.token();
        y.yield_item(token).await;
    }
    let server = CancellationToken::new();
    let of_a_body = || {
        collect(generator(&server, async |mut y| {
            let first = y.token();
            y.yield_item(first).await;
            turn().await;
            helper(&mut y).await;
        }))
    };
    let (one, other) = (of_a_body(), of_a_body());
    assert_eq!(one.len(), 2);
    assert!(one[0] == one[1]);
    assert!(one[0] != other[0]);
    assert!(one[0] != server);
}

#[test]
fn a_stop_by_a_token_reaches_it_at_once() {
    let server = CancellationToken::new();
    let mut items = pin!(generator(server.child_token(), report));
    let token = next(items.as_mut());
    assert_eq!(reason_of(&token), "open");
    server.cancel_with("shutting down");
    assert_eq!(reason_of(&token), "shutting down");
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert_eq!(reason_of(&token), "shutting down");
}

#[test]
fn a_stop_by_what_is_no_token_reaches_it_in_the_poll_that_is_stopped() {
    fn check(items: impl Stoppable<Item = CancellationToken>, stop: &CancellationToken) {
        let mut items = pin!(items);
        let token = next(items.as_mut());
        stop.cancel_with("enough");
        assert_eq!(reason_of(&token), "open");
        assert_eq!(poll(items.as_mut()), Poll::Ready(None));
        let reason = items.stop_reason().unwrap();
        assert_eq!(reason_of(&token), reason.to_string());
    }
    let stop = CancellationToken::new();
    check(generator(any(&stop, never()), report), &stop);
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    check(generator(when(stopped), report), &stop);
    let stop = CancellationToken::new();
    let tries = try_generator(any(never(), &stop), async |mut y| {
        let token = y.token();
        y.yield_item(token).await;
        future::pending::<Result<(), StopReason>>().await
    });
    let mut tries = pin!(tries);
    let token = next(tries.as_mut()).unwrap();
    stop.cancel_with("enough");
    assert!(matches!(poll(tries.as_mut()), Poll::Ready(Some(Err(_)))));
    assert_eq!(reason_of(&token), "enough");
}

#[test]
fn a_stream_that_is_dropped_cancels_it() {
    for server in [None, Some(CancellationToken::new())] {
        let mut items: Pin<Box<dyn Stream<Item = CancellationToken>>> = match &server {
            Some(server) => Box::pin(generator(server, report)),
            None => Box::pin(generator(never(), report)),
        };
        let token = next(items.as_mut());
        assert!(!token.is_cancelled());
        drop(items);
        assert!(matches!(
            token.stop_reason(),
            Some(StopReason::ConsumerDropped)
        ));
        assert!(server.is_none_or(|server| !server.is_cancelled()));
    }
}

#[test]
fn a_body_that_returns_cancels_it_with_its_end() {
    let mut items = pin!(generator(never(), async |mut y| {
        let token = y.token();
        y.yield_item(token).await;
        // Left in the slot: the poll in which the body returns yields it.
        let token = y.token();
        assert!(y.yield_item(token).now_or_never().is_none());
    }));
    let token = next(items.as_mut());
    assert!(!token.is_cancelled());
    assert!(next(items.as_mut()) == token);
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
fn an_error_of_the_body_cancels_it_with_its_end() {
    let mut items = pin!(try_generator(never(), async |mut y| {
        let token = y.token();
        y.yield_item(token).await;
        Err(StopReason::from("it broke"))
    }));
    let token = next(items.as_mut()).unwrap();
    assert!(!token.is_cancelled());
    assert_eq!(next(items.as_mut()).unwrap_err().to_string(), "it broke");
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
}

#[test]
fn a_panic_of_the_body_cancels_it_on_its_way() {
    let mut items = pin!(generator(never(), async |mut y| {
        let token = y.token();
        y.yield_item(token).await;
        panic!("oops");
    }));
    let token = next(items.as_mut());
    assert_eq!(panic_of(|| poll(items.as_mut())), "oops");
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));

    // Before there is a future.
    fn broken(mut y: Yielder<'_, u8>) -> future::Ready<()> {
        TOLD.with_borrow_mut(|reported| reported.push(y.token()));
        panic!("broken");
    }
    thread_local! {
        static TOLD: RefCell<Vec<CancellationToken>> = const { RefCell::new(Vec::new()) };
    }
    let mut items = pin!(generator(never(), broken));
    assert_eq!(panic_of(|| poll(items.as_mut())), "broken");
    let token = TOLD.take().remove(0);
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
fn requested_in_a_drop_it_has_the_reason() {
    /// Requests the token when it is dropped.
    struct RequestOnDrop<'a, 'b>(Yielder<'a, u8>, &'b RefCell<Vec<String>>);
    impl Drop for RequestOnDrop<'_, '_> {
        fn drop(&mut self) {
            let token = self.0.token();
            assert!(token == self.0.token());
            self.1.borrow_mut().push(reason_of(&token));
        }
    }
    for requested_before in [false, true] {
        let reported = RefCell::new(Vec::new());
        let body = async |y: Yielder<'_, u8>| {
            let mut local = RequestOnDrop(y, &reported);
            let before = requested_before.then(|| local.0.token());
            local.0.yield_item(1).await;
            drop((before, local));
        };
        // Stopped by a token, stopped by another signal, dropped, and at the body's return.
        let server = CancellationToken::new();
        let mut items = pin!(generator(&server, body));
        assert_eq!(next(items.as_mut()), 1);
        server.cancel_with("shutting down");
        assert_eq!(poll(items.as_mut()), Poll::Ready(None));

        let server = CancellationToken::new();
        let mut items = pin!(generator(any(&server, never()), body));
        assert_eq!(next(items.as_mut()), 1);
        server.cancel_with("enough");
        assert_eq!(poll(items.as_mut()), Poll::Ready(None));

        let mut items = Box::pin(generator(never(), body));
        assert_eq!(next(items.as_mut()), 1);
        drop(items);

        let mut items = pin!(generator(never(), body));
        assert_eq!(next(items.as_mut()), 1);
        assert_eq!(poll(items.as_mut()), Poll::Ready(None));
        assert_eq!(
            *reported.borrow(),
            ["shutting down", "enough", "consumer dropped", "open"]
        );
    }
}

#[test]
fn a_future_that_keeps_its_yielder_after_it_was_ready_sees_the_end() {
    struct Kept<'a>(Yielder<'a, String>);
    impl Future for Kept<'_> {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    impl Drop for Kept<'_> {
        fn drop(&mut self) {
            let reason = reason_of(&self.0.token());
            assert!(self.0.yield_item(reason).now_or_never().is_none());
        }
    }
    fn body(y: Yielder<'_, String>) -> Kept<'_> {
        Kept(y)
    }
    assert_eq!(collect(generator(never(), body)), ["cancelled"]);
}

#[test]
fn it_stays_as_it_was_after_the_end() {
    let server = CancellationToken::new();
    let mut items = pin!(generator(&server, report));
    let token = next(items.as_mut());
    // Cancelling it stops only what is under it.
    token.cancel_with("mine");
    assert!(next(items.as_mut()) == token);
    server.cancel_with("theirs");
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert_eq!(items.stop_reason().unwrap().to_string(), "theirs");
    assert_eq!(reason_of(&token), "mine");
}

#[test]
fn what_the_body_starts_ends_with_it() {
    let mut items = Box::pin(generator(never(), report));
    let token = next(items.as_mut());
    let wakes = Wakes::new();
    let mut task = pin!(stream::pending::<u8>().take_until_cancelled(&token));
    assert!(wakes.poll(task.as_mut()).is_pending());
    drop(items);
    assert_eq!(wakes.count(), 1);
    assert_eq!(wakes.poll(task.as_mut()), Poll::Ready(None));
    assert!(matches!(
        task.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));
}

#[test]
fn it_keeps_nothing_from_settling_but_what_it_stops_does() {
    let server = CancellationToken::new();
    let mut items = Box::pin(generator(&server, report));
    let token = next(items.as_mut());
    let task = stream::pending::<u8>().take_until_cancelled(&token);
    let mut settled = server.cancel_and_settle();
    drop(items);
    assert!((&mut settled).now_or_never().is_none());
    drop(task);
    assert!((&mut settled).now_or_never().is_some());
    assert!(token.is_cancelled());
}

#[test]
fn a_callback_runs_before_the_body_is_dropped() {
    struct Local(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Local {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("body");
        }
    }
    for stop in [true, false] {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let server = CancellationToken::new();
        let mut items = Box::pin(generator(any(&server, never()), async |mut y| {
            let _local = Local(steps.clone());
            let steps = steps.clone();
            let note = move |_: &StopReason| steps.lock().unwrap().push("token");
            y.token().on_cancel(note).detach();
            y.yield_item(1).await;
            future::pending::<()>().await;
        }));
        assert_eq!(next(items.as_mut()), 1);
        if stop {
            server.cancel();
            assert_eq!(poll(items.as_mut()), Poll::Ready(None));
            assert_eq!(*steps.lock().unwrap(), ["token", "body"]);
        }
        drop(items);
        assert_eq!(*steps.lock().unwrap(), ["token", "body"]);
    }
}

#[test]
fn a_callback_may_cancel_and_drop_what_it_likes() {
    let server = CancellationToken::new();
    let mut inner = Box::pin(generator(&server, report));
    let reported = next(inner.as_mut());
    let mut items = pin!(generator(&server, async |mut y| {
        let (server, token, inner) = (server.clone(), y.token(), inner);
        let again = token.clone();
        let reach = move |_: &StopReason| {
            assert!(!again.cancel_with("again"));
            drop((inner, again));
            server.cancel_with("from a callback");
        };
        token.on_cancel(reach).detach();
        y.yield_item(1).await;
    }));
    assert_eq!(next(items.as_mut()), 1);
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    // The body had returned by then, but the poll had not.
    assert_eq!(items.stop_reason().unwrap().to_string(), "from a callback");
    assert!(matches!(
        reported.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));
    assert_eq!(reason_of(&server), "from a callback");
}

#[test]
fn a_panic_of_a_callback_passes_through_once_and_the_body_is_dropped_all_the_same() {
    struct Local<'a>(&'a AtomicUsize);
    impl Drop for Local<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    enum End {
        Returned,
        Stopped,
        Dropped,
    }
    for end in [End::Returned, End::Stopped, End::Dropped] {
        let gone = AtomicUsize::new(0);
        let server = CancellationToken::new();
        let mut items = Box::pin(generator(any(&server, never()), async |mut y| {
            let _local = Local(&gone);
            y.token().on_cancel(|_| panic!("in the callback")).detach();
            y.yield_item(1).await;
        }));
        assert_eq!(next(items.as_mut()), 1);
        let panic = match end {
            End::Dropped => panic_of(|| drop(items)),
            End::Returned | End::Stopped => {
                if matches!(end, End::Stopped) {
                    server.cancel();
                }
                let panic = panic_of(|| poll(items.as_mut()));
                assert_eq!(poll(items.as_mut()), Poll::Ready(None));
                panic
            }
        };
        assert_eq!(panic, "in the callback");
        assert_eq!(gone.load(SeqCst), 1);
    }
}

#[test]
fn a_yielder_returns_it_on_a_scoped_thread() {
    let items = generator(never(), async |mut y| {
        let asked = std::thread::scope(|scope| scope.spawn(|| y.token()).join().unwrap());
        assert!(asked == y.token());
        y.yield_item(asked).await;
    });
    assert_eq!(collect(items).len(), 1);
}

#[test]
fn nested_generators_pass_their_end_down() {
    let mut items = Box::pin(generator(never(), async |mut outer| {
        let scope = outer.token();
        let mut inner = pin!(generator(&scope, report));
        while let Some(token) = inner.next().await {
            outer.yield_item(token).await;
        }
    }));
    let token = next(items.as_mut());
    drop(items);
    // By the outer one, whose token is cancelled first.
    assert!(matches!(
        token.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn it_has_the_deadline_of_the_signal() {
    use std::time::Duration;
    use tokio::time::advance;

    let request = CancellationToken::with_timeout(Duration::from_secs(5));
    let mut items = pin!(generator(&request, report));
    let token = next(items.as_mut());
    assert_eq!(token.deadline(), request.deadline());
    advance(Duration::from_secs(5)).await;
    assert!(matches!(
        token.stop_reason(),
        Some(StopReason::DeadlineExceeded)
    ));
}
