//! Every public stream of the crate, checked against every law that applies to it: a line for each.

use futures::{Stream, StreamExt, task::AtomicWaker};
use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, IntoSignal, Signal, StopReason,
    TryWithCancellation, Yielder, generator,
    signal::{any, never, when},
    testing::{
        Letter, Source, Stop, Stoppable,
        laws::{
            check_all, check_stop, check_stream, drop_on_cancel, fair, identity, stop_is_reported,
        },
    },
    try_generator,
};

use tokio_util::sync::CancellationToken as TokioToken;

#[cfg(feature = "tokio")]
use {
    futures::{executor::block_on, stream::FusedStream},
    std::{
        mem,
        sync::{Condvar, Mutex},
        task::Wake,
        time::Duration,
    },
    stopcock::{
        BlockingGenerator, SpawnedGenerator, blocking_generator, signal, spawn_generator,
        testing::laws::{Law, check, drains, drains_and_says_why, ends_when_idle, honest},
        try_spawn_generator,
    },
    tokio::time::Instant,
};

/// A line may have a further argument of its law: `name: law(time), stream;`.
macro_rules! table {
    ($($name:ident: $check:ident $(($time:expr))?, $wrap:expr;)*) => {
        $(#[test]
        fn $name() {
            $check($($time,)? $wrap);
        })*
    };
}

table! {
    a_token: check_all, |source, stop| source.take_until_cancelled(stop.token());
    a_lent_token: check_all, |source, stop| source.take_until_cancelled(&stop.token());
    a_great_grandchild: check_all, |source, stop| source.take_until_cancelled(great_grandchild(&stop));
    a_linked_token: check_all, |source, stop| source.take_until_cancelled(linked(stop.token()));
    a_child_of_a_linked_token: check_all, |source, stop| {
        source.take_until_cancelled(linked(stop.token()).child_token())
    };
    a_waiter: check_all, |source, stop| source.take_until_cancelled(stop.token().cancelled_owned());
    a_future: check_all, |source, stop| source.take_until_cancelled(when(stop.token().cancelled_owned()));
    a_future_that_is_not_unpin: check_all, |source, stop| source.take_until_cancelled(when(cancelled(stop)));
    a_future_that_leaves_its_waker_behind: check_all, |source, stop| source.take_until_cancelled(when(reported(stop)));
    a_future_with_a_reason: check_stop, |source, stop| {
        source.with_cancellation(when(cancelled(stop)).with_reason("enough"))
    };
    a_future_whose_output_is_the_reason: check_stop, |source, stop| {
        source.with_cancellation(when(cancelled(stop)).map_reason(|&()| "enough"))
    };
    a_token_of_an_option: check_all, |source, stop| source.take_until_cancelled(Some(stop.token()));
    a_future_of_an_option: check_all, |source, stop| source.take_until_cancelled(Some(when(cancelled(stop))));
    a_token_of_an_option_among_two: check_all, |source, stop| {
        source.take_until_cancelled(any(None::<CancellationToken>, Some(stop.token())))
    };
    no_signal_of_an_option: check_stream, |source| source.take_until_cancelled(None::<CancellationToken>);
    no_signal_of_an_option_changes_nothing: identity, |source, _| {
        source.take_until_cancelled(None::<CancellationToken>)
    };
    the_first_of_two: check_all, |source, stop| source.take_until_cancelled(any(stop.token(), never()));
    the_second_of_two: check_all, |source, stop| {
        source.take_until_cancelled(any(CancellationToken::new(), stop.token()))
    };
    both_of_two: check_all, |source, stop| source.take_until_cancelled(any(stop.token(), when(cancelled(stop))));
    one_of_three: check_all, |source, stop| {
        source.take_until_cancelled(any(any(never(), when(cancelled(stop))), never()))
    };
    a_signal_looked_at_for_each_item: check_all, |source, stop| source.take_until_cancelled(Foreign::new(&stop, 0));
    a_signal_looked_at_now_and_then: check_all, |source, stop| source.take_until_cancelled(Foreign::new(&stop, 100));
    a_signal_never_looked_at: check_all, |source, stop| source.take_until_cancelled(Foreign::new(&stop, u32::MAX));
    a_boxed_stream: check_all, |source, stop| boxed(source.take_until_cancelled(stop.token()));
    the_outer_of_two_adapters: check_all, |source, stop| {
        source.take_until_cancelled(CancellationToken::new()).take_until_cancelled(stop.token())
    };
    the_inner_of_two_adapters: check_stop, |source, stop| {
        source.take_until_cancelled(stop.token()).take_until_cancelled(CancellationToken::new())
    };
    a_token_with_an_error: check_reporting, |source, stop| source.with_cancellation(stop.token());
    a_future_with_an_error: check_reporting, |source, stop| source.with_cancellation(when(cancelled(stop)));
    a_token_among_errors: check_reporting, |source, stop| {
        source.map(io::Result::Ok).try_with_cancellation(stop.token())
    };
    a_token_of_tokio_util: check_all, |source, stop| source.take_until_cancelled(of_tokio_util(&stop));
    a_child_of_tokio_util_with_an_error: check_reporting, |source, stop| {
        source.with_cancellation(of_tokio_util(&stop).child_token())
    };
    a_mapped_token: check_stop, |source, stop| source.with_cancellation(stop.token()).map_stop(drop);
    a_mapped_token_among_errors: check_stop, |source, stop| {
        source.map(Ok::<_, ()>).try_with_cancellation(stop.token()).map_stop(drop)
    };
    a_token_from_tokio_util: check_all, |source, stop| {
        source.take_until_cancelled(CancellationToken::from(of_tokio_util(&stop)))
    };
    a_token_from_tokio_utils_child_with_an_error: check_reporting, |source, stop| {
        source.with_cancellation(linked(of_tokio_util(&stop).child_token().into()))
    };
    a_token_there_and_back: check_all, |source, stop| {
        source.take_until_cancelled(CancellationToken::from(stop.token().to_tokio_util()))
    };
    a_yield_now_and_then: check_all, |source, stop| source.take_until_cancelled(stop.token()).yield_every(7);
    a_yield_after_each_item_with_an_error: check_reporting, |source, stop| source.with_cancellation(stop.token()).yield_every(1);
    a_token_dropped_on_cancel: check_all, |source, stop| source.take_until_cancelled(stop.token()).drop_on_cancel();
    a_child_dropped_on_cancel: check_all, |source, stop| source.take_until_cancelled(great_grandchild(&stop)).drop_on_cancel();
    a_token_with_an_error_dropped_on_cancel: check_reporting, |source, stop| source.with_cancellation(stop.token()).drop_on_cancel();
    a_token_with_yields_dropped_on_cancel: check_all, |source, stop| {
        source.take_until_cancelled(stop.token()).drop_on_cancel().yield_every(7)
    };
    a_token_among_errors_dropped_on_cancel: check_reporting, |source, stop| among_errors(source, stop).drop_on_cancel();
    a_token_among_errors_with_yields_dropped_on_cancel: check_reporting, |source, stop| {
        among_errors(source, stop).yield_every(7).drop_on_cancel()
    };
    a_yield_among_errors: check_reporting, |source, stop| among_errors(source, stop).yield_every(1);
    the_thread_that_cancels_a_token_drops_the_source: drop_on_cancel, |source, stop| source.take_until_cancelled(stop.token()).drop_on_cancel();
    the_thread_that_cancels_a_great_grandparent_drops: drop_on_cancel, |source, stop| {
        source.take_until_cancelled(great_grandchild(&stop)).drop_on_cancel()
    };
    the_thread_that_cancels_a_linked_token_drops: drop_on_cancel, |source, stop| {
        source.take_until_cancelled(linked(stop.token())).drop_on_cancel()
    };
    the_thread_that_cancels_a_token_with_an_error_drops: drop_on_cancel, |source, stop| source.with_cancellation(stop.token()).drop_on_cancel();
    the_thread_that_cancels_a_token_of_tokio_util_drops: drop_on_cancel, |source, stop| {
        source.take_until_cancelled(CancellationToken::from(of_tokio_util(&stop))).drop_on_cancel()
    };
    the_thread_that_cancels_a_token_with_yields_drops: drop_on_cancel, |source, stop| {
        source.with_cancellation(stop.token()).drop_on_cancel().yield_every(1)
    };
    the_thread_that_cancels_a_token_among_errors_drops: drop_on_cancel, |source, stop| {
        among_errors(source, stop).drop_on_cancel()
    };
    no_signal: check_stream, |source| source.take_until_cancelled(never());
    no_signal_is_fair: fair, |source, _| source.take_until_cancelled(never());
    no_signal_changes_nothing: identity, |source, _| source.take_until_cancelled(never());

    generator_of_a_token: check_all, |source, stop| forward(source, stop.token());
    generator_of_a_lent_token: check_all, |source, stop| forward(source, (&stop.token()).into_signal());
    generator_of_a_great_grandchild: check_all, |source, stop| forward(source, great_grandchild(&stop));
    generator_of_a_linked_token: check_all, |source, stop| forward(source, linked(stop.token()));
    generator_of_a_future: check_all, |source, stop| forward(source, when(reported(stop)));
    generator_of_two: check_all, |source, stop| forward(source, any(when(pending::<()>()), stop.token()));
    generator_over_a_generator: check_all, |source, stop| {
        forward(Box::pin(forward(source, CancellationToken::new())), stop.token())
    };
    adapter_over_a_generator: check_all, |source, stop| {
        forward(source, never()).take_until_cancelled(stop.token())
    };
    generator_of_no_signal: check_stream, |source| forward(source, never());
    generator_of_no_signal_is_fair: fair, |source, _| forward(source, never());
    generator_of_no_signal_changes_nothing: identity, |source, _| forward(source, never());
    generator_that_has_asked_for_its_token: check_all, |source, stop| forward_and_ask(source, stop.token());

    try_generator_of_a_token: check_reporting, |source, stop| try_forward(source, stop.token());
    try_generator_of_a_great_grandchild: check_reporting, |source, stop| try_forward(source, great_grandchild(&stop));
    try_generator_of_a_future: check_reporting, |source, stop| try_forward(source, when(reported(stop)));
    try_generator_over_a_generator: check_reporting, |source, stop| {
        try_forward(Box::pin(forward(source, CancellationToken::new())), stop.token())
    };
    adapter_over_a_try_generator: check_reporting, |source, stop| {
        try_forward(source, never()).try_with_cancellation(stop.token())
    };
    try_generator_of_no_signal: check_stream, |source| try_forward(source, never());
    try_generator_of_no_signal_is_fair: fair, |source, _| try_forward(source, never());
    try_generator_of_no_signal_changes_nothing: identity, |source, _| try_forward(source, never());
}

#[cfg(feature = "tokio")]
table! {
    deadline: check_reporting, |source, stop| source.with_deadline(stop.deadline());
    deadline_of_std: check_reporting, |source, stop| source.with_deadline(stop.deadline().into_std());
    timeout: check_reporting, |source, stop| source.with_timeout(stop.timeout());
    deadline_as_a_signal: check_reporting, |source, stop| source.with_cancellation(signal::deadline(stop.deadline()));
    timeout_beside_a_token: check_reporting, |source, stop| {
        source.with_cancellation(any(CancellationToken::new(), signal::timeout(stop.timeout())))
    };
    timeout_of_an_option: check_all, |source, stop| {
        source.take_until_cancelled(Some(signal::timeout(stop.timeout())))
    };
    token_beside_an_idle_timeout: check_reporting, |source, stop| {
        source.with_cancellation(any(stop.token(), signal::idle(DAY)))
    };
    deadline_over_a_token: check_reporting, |source, stop| {
        source.take_until_cancelled(CancellationToken::new()).with_deadline(stop.deadline())
    };
    deadline_over_a_generator: check_reporting, |source, stop| {
        forward(source, CancellationToken::new()).with_deadline(stop.deadline())
    };
    token_over_a_deadline: check_all, |source, stop| {
        source.with_timeout(DAY).take_until_cancelled(stop.token())
    };
    silent_deadline: check_all, |source, stop| source.take_until_deadline(stop.deadline());
    silent_timeout: check_all, |source, stop| source.take_until_timeout(stop.timeout());
    deadline_among_errors: check_reporting, |source, stop| {
        source.map(io::Result::Ok).try_with_deadline(stop.deadline())
    };
    timeout_among_errors: check_reporting, |source, stop| {
        source.map(io::Result::Ok).try_with_timeout(stop.timeout())
    };
    deadline_with_yields: check_reporting, |source, stop| source.with_deadline(stop.deadline()).yield_every(100);
    no_grace_at_all: check_all, |source, stop| {
        source.take_until_cancelled(stop.token()).drain_for(Duration::ZERO)
    };
    no_grace_at_all_with_an_error: check_reporting, |source, stop| {
        source.with_cancellation(stop.token()).drain_for(Duration::ZERO)
    };
    no_grace_among_errors_at_all: check_reporting, |source, stop| among_errors(source, stop).drain_for(Duration::ZERO);
    deadline_among_errors_with_yields: check_reporting, |source, stop| {
        source.map(io::Result::Ok).try_with_deadline(stop.deadline()).yield_every(100)
    };
    a_grace_with_yields: check_all, |source, stop| {
        source.take_until_cancelled(stop.token()).yield_every(9).drain_for(Duration::ZERO)
    };
    a_token_of_a_tokens_signal: check_all, |source, stop| {
        source.take_until_cancelled(CancellationToken::from_signal(stop.token()))
    };
    a_token_of_a_signal: check_watched, |source, stop| source.take_until_cancelled(watched(stop));
    a_token_of_a_signal_with_an_error: check_watched, |source, stop| source.with_cancellation(watched(stop).child_token());
    a_spawned_body: check_producer, |source, stop| spawned(source, stop.token(), 1);
    a_spawned_body_with_room: check_producer, |source, stop| spawned(source, stop.token(), 8);
    a_spawned_body_of_a_great_grandchild: check_producer, |source, stop| spawned(source, great_grandchild(&stop), 2);
    a_spawned_body_of_a_linked_token: check_producer, |source, stop| spawned(source, linked(stop.token()), 1);
    a_spawned_body_of_a_token_with_a_deadline: check_producer, |source, stop| spawned(source, timed(&stop), 1);
    a_spawned_body_with_a_grace: check_producer, |source, stop| spawned(source, stop.token(), 1).with_grace(DAY);
    a_spawned_body_that_may_fail: check_producer, |source, stop| try_spawned(source, stop.token());
    a_blocking_body: check_blocking, |source, stop| blocking(source, stop.token(), 1);
    a_blocking_body_with_room: check_blocking, |source, stop| blocking(source, great_grandchild(&stop), 3);
    an_adapter_over_a_spawned_one: check_producer, |source, stop| {
        spawned(source, CancellationToken::new(), 1).take_until_cancelled(stop.token())
    };
    a_grace: drains_and_says_why(SECOND), |source, stop| {
        source.take_until_cancelled(stop.token()).drain_for(SECOND)
    };
    a_grace_with_an_error: drains_and_says_why(SECOND), |source, stop| {
        source.with_cancellation(stop.token()).drain_for(SECOND)
    };
    a_grace_among_errors: drains_and_says_why(SECOND), |source, stop| among_errors(source, stop).drain_for(SECOND);
    a_grace_of_a_future: drains(SECOND), |source, stop| {
        source.take_until_cancelled(when(cancelled(stop))).drain_for(SECOND)
    };
    a_grace_of_two: drains(SECOND), |source, stop| {
        source.with_cancellation(any(never(), stop.token())).drain_for(SECOND)
    };
    a_grace_with_yields_in_it: drains(SECOND), |source, stop| {
        source.take_until_cancelled(stop.token()).drain_for(SECOND).yield_every(2)
    };
    a_grace_that_is_no_time: drains_and_says_why(Duration::ZERO), |source, stop| {
        source.with_cancellation(stop.token()).drain_for(Duration::ZERO)
    };
    a_grace_shorter_than_any_timer: drains(NANOSECONDS), |source, stop| {
        source.take_until_cancelled(stop.token()).drain_for(NANOSECONDS)
    };
    a_grace_within_a_grace: drains(SECOND), |source, stop| {
        source.take_until_cancelled(CancellationToken::new()).drain_for(SECOND)
            .take_until_cancelled(stop.token()).drain_for(SECOND)
    };
    idle: ends_when_idle(SECOND), |source| source.with_idle_timeout(SECOND);
    idle_beside_a_token: ends_when_idle(SECOND), |source| {
        source.with_cancellation(any(CancellationToken::new(), signal::idle(SECOND)))
    };
    idle_without_an_error: ends_when_idle(SECOND), |source| {
        source.take_until_cancelled(Some(signal::idle(SECOND)))
    };
    idle_among_errors: ends_when_idle(SECOND), |source| source.map(io::Result::Ok).try_with_idle_timeout(SECOND);
    idle_with_yields: ends_when_idle(SECOND), |source| source.with_idle_timeout(SECOND).yield_every(1);
    idle_at_once: ends_when_idle(Duration::ZERO), |source| source.with_idle_timeout(Duration::ZERO);
    idle_before_any_timer: ends_when_idle(NANOSECONDS), |source| source.with_idle_timeout(NANOSECONDS);
    idle_within_a_deadline: ends_when_idle(SECOND), |source| {
        source.take_until_timeout(DAY).with_idle_timeout(SECOND)
    };
    never_idle: check_stream, |source| source.with_idle_timeout(DAY);
    never_idle_among_errors: check_stream, |source| source.map(io::Result::Ok).try_with_idle_timeout(DAY);
    never_idle_is_fair: fair, |source, _| source.with_idle_timeout(DAY);
    never_idle_changes_nothing: identity, |source, _| source.with_idle_timeout(DAY);
    endless_timeout: check_stream, |source| source.with_timeout(Duration::MAX);
    endless_timeout_is_fair: fair, |source, _| source.with_timeout(Duration::MAX);
    endless_timeout_changes_nothing: identity, |source, _| source.with_timeout(Duration::MAX);

    a_token_with_a_deadline: check_all, |source, stop| source.take_until_cancelled(timed(&stop));
    a_token_with_a_timeout: check_all, |source, stop| {
        source.take_until_cancelled(CancellationToken::with_timeout(stop.timeout()))
    };
    a_child_of_a_token_with_a_deadline: check_all, |source, stop| {
        source.take_until_cancelled(timed(&stop).child_token().child_token())
    };
    a_child_with_a_deadline: check_all, |source, stop| {
        source.take_until_cancelled(CancellationToken::new().child_with_deadline(stop.deadline()))
    };
    a_child_with_a_later_deadline: check_all, |source, stop| {
        source.take_until_cancelled(timed(&stop).child_with_deadline(later(&stop)))
    };
    a_token_with_a_deadline_that_is_cancelled: check_all, |source, stop| {
        source.take_until_cancelled(stop.token().child_with_timeout(DAY))
    };
    a_token_linked_to_one_with_a_deadline: check_all, |source, stop| source.take_until_cancelled(linked(timed(&stop)));
    a_waiter_of_a_token_with_a_deadline: check_all, |source, stop| {
        source.take_until_cancelled(timed(&stop).cancelled_owned())
    };
    the_deadline_of_the_first_of_two: check_all, |source, stop| {
        source.take_until_cancelled(any(timed(&stop), CancellationToken::new()))
    };
    the_deadline_of_the_second_of_two: check_all, |source, stop| {
        source.take_until_cancelled(any(when(pending::<()>()), timed(&stop)))
    };
    the_earlier_one_of_two_deadlines: check_all, |source, stop| {
        source.take_until_cancelled(any(CancellationToken::with_deadline(later(&stop)), timed(&stop)))
    };
    the_deadline_of_one_of_three: check_all, |source, stop| {
        source.take_until_cancelled(any(any(CancellationToken::new(), timed(&stop)), never()))
    };
    the_deadline_of_the_inner_of_two_adapters: check_stop, |source, stop| {
        let inner = source.take_until_cancelled(timed(&stop));
        inner.take_until_cancelled(CancellationToken::with_deadline(later(&stop)))
    };

    generator_of_a_token_with_a_deadline: check_all, |source, stop| forward(source, timed(&stop));
    generator_of_a_child_of_a_token_with_a_deadline: check_all, |source, stop| {
        forward(source, timed(&stop).child_token())
    };
}

fn among_errors(
    source: Source,
    stop: Stop,
) -> TryWithCancellation<impl Stream<Item = io::Result<char>>> {
    source
        .map(io::Result::Ok)
        .try_with_cancellation(stop.token())
}

/// The laws of a stream that reports its stop as an error, and has a `stop_reason()`.
fn check_reporting<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    check_all(&wrap);
    stop_is_reported(&wrap);
}

fn of_tokio_util(stop: &Stop) -> TokioToken {
    let token = TokioToken::new();
    let cancelled = token.clone();
    stop.token().on_cancel(move |_| cancelled.cancel()).detach();
    token
}

fn great_grandchild(stop: &Stop) -> CancellationToken {
    stop.token().child_token().child_token().child_token()
}

fn linked(token: CancellationToken) -> CancellationToken {
    CancellationToken::linked([CancellationToken::new(), token])
}

/// A future that is not `Unpin`.
async fn cancelled(stop: Stop) {
    stop.token().cancelled().await;
}

/// A future whose waker is kept until the stop, even if the future has been dropped by then.
fn reported(stop: Stop) -> impl Future<Output = ()> {
    let waker = Arc::new(AtomicWaker::new());
    let kept = Arc::clone(&waker);
    stop.token().on_cancel(move |_| kept.wake()).detach();
    poll_fn(move |cx| {
        waker.register(cx.waker());
        match stop.token().is_cancelled() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
}

#[cfg(feature = "tokio")]
fn watched(stop: Stop) -> CancellationToken {
    CancellationToken::from_signal(when(reported(stop)))
}

/// The laws under a token that a task cancels, some polls after its signal has fired: all except those about the stop's time.
#[cfg(feature = "tokio")]
fn check_watched<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    use Law::{Ends, Honest, LeftAlone, NothingLate, OneOutcome};

    // The last two are about the reason, which `check` does not check.
    let is_left_out =
        |law: &Law| matches!(law, NothingLate | Ends | LeftAlone | Honest | OneOutcome);
    let laws = Law::ALL.into_iter().filter(|law| !is_left_out(law));
    check(&laws.collect::<Vec<_>>(), wrap);
}

/// The laws of a body that runs on its own: it is ahead of its consumer, waits for its source itself, and is
/// dropped by its own task.
#[cfg(feature = "tokio")]
fn check_producer<S>(wrap: impl Fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    const LAWS: [Law; 9] = [
        Law::Fused,
        Law::SizeHint,
        Law::Prefix,
        Law::NothingEarly,
        Law::NothingLate,
        Law::Ends,
        Law::Released,
        Law::Fair,
        Law::OnTime,
    ];
    check(&LAWS, &wrap);
    honest(&wrap);
}

#[cfg(feature = "tokio")]
fn spawned(
    mut source: Source,
    token: CancellationToken,
    capacity: usize,
) -> SpawnedGenerator<char> {
    spawn_generator(token, capacity, |tx| async move {
        while let Some(item) = source.next().await {
            tx.send(item).await?;
        }
        Ok(())
    })
}

#[cfg(feature = "tokio")]
fn try_spawned(mut source: Source, token: CancellationToken) -> SpawnedGenerator<io::Result<char>> {
    try_spawn_generator(token, 1, |tx| async move {
        while let Some(item) = source.next().await {
            tx.send(item).await?;
        }
        Ok(())
    })
}

/// The same for a body on a thread, whose wake-ups and yields [`Lockstep`] hides. For tokens only: two threads must not
/// advance a paused clock.
#[cfg(feature = "tokio")]
fn check_blocking(wrap: impl Fn(Source, Stop) -> Lockstep) {
    check(
        &[Law::Fused, Law::Prefix, Law::NothingLate, Law::Ends],
        &wrap,
    );
    honest(&wrap);
}

/// A blocking generator whose polls wait until its thread cannot continue, so that each run is the same.
#[cfg(feature = "tokio")]
struct Lockstep {
    stream: BlockingGenerator<char>,
    thread: Arc<ThreadState>,
}

/// What the polls wait for.
#[cfg(feature = "tokio")]
#[derive(Default)]
struct ThreadState {
    /// Whether the source is pending, and whether the stream was woken.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

#[cfg(feature = "tokio")]
impl ThreadState {
    fn set_pending(&self, is_pending: bool) {
        self.state.lock().unwrap().0 = is_pending;
        self.changed.notify_all();
    }
}

#[cfg(feature = "tokio")]
impl Wake for ThreadState {
    fn wake(self: Arc<Self>) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

#[cfg(feature = "tokio")]
impl Stream for Lockstep {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<char>> {
        let waker = Arc::clone(&self.thread).into();
        loop {
            let polled = self
                .stream
                .poll_next_unpin(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                return polled;
            }
            let waits = |(is_pending, is_woken): &mut (bool, bool)| !*is_pending && !*is_woken;
            let state = self.thread.state.lock().unwrap();
            let mut state = self.thread.changed.wait_while(state, waits).unwrap();
            if !mem::take(&mut state.1) {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(feature = "tokio")]
impl FusedStream for Lockstep {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}

#[cfg(feature = "tokio")]
impl Stoppable for Lockstep {
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stream.stop_reason()
    }
}

#[cfg(feature = "tokio")]
fn blocking(mut source: Source, token: CancellationToken, capacity: usize) -> Lockstep {
    let thread = Arc::new(ThreadState::default());
    let state = Arc::clone(&thread);
    let stream = blocking_generator(token, capacity, move |tx| {
        let token = tx.token();
        let mut next = || {
            let next = poll_fn(|cx| {
                let next = source.poll_next_unpin(cx);
                state.set_pending(next.is_pending());
                next
            });
            block_on(token.run_until_cancelled(next)).flatten()
        };
        while let Some(item) = next() {
            tx.send(item)?;
        }
        tx.check()
    });
    Lockstep { stream, thread }
}

/// A generator whose body passes on the items of a source.
fn forward<G: IntoSignal>(
    mut source: impl Stream<Item = char> + Unpin,
    signal: G,
) -> impl Stoppable<Item = char> {
    generator(signal, async move |mut y: Yielder<'_, char>| {
        while let Some(item) = source.next().await {
            y.yield_item(item).await;
        }
    })
}

/// Like `forward`, with a body that requests the stream's token and waits on it.
fn forward_and_ask<G: IntoSignal>(
    mut source: impl Stream<Item = char> + Unpin,
    signal: G,
) -> impl Stoppable<Item = char> {
    generator(signal, async move |mut y: Yielder<'_, char>| {
        let _listening = y.token().on_cancel(|_| {});
        while let Some(item) = source.next().await {
            y.yield_item(item).await;
        }
    })
}

/// Like `forward`, with a body that may fail, and does not.
fn try_forward<G: IntoSignal>(
    mut source: impl Stream<Item = char> + Unpin,
    signal: G,
) -> impl Stoppable<Item = io::Result<char>> {
    try_generator(signal, async move |mut y| {
        while let Some(item) = source.next().await {
            y.yield_item(item).await;
        }
        Ok(())
    })
}

fn boxed<S: Stoppable + 'static>(stream: S) -> Pin<Box<dyn Stoppable<Item = S::Item>>> {
    Box::pin(stream)
}

/// A foreign signal: it has a waker of its own, and requests a check after this number of items.
struct Foreign {
    token: CancellationToken,
    waker: Arc<AtomicWaker>,
    look: u32,
}

impl Foreign {
    fn new(stop: &Stop, look: u32) -> Self {
        let waker = Arc::new(AtomicWaker::new());
        let registered = Arc::downgrade(&waker);
        let wake = move |_: &StopReason| {
            if let Some(waker) = registered.upgrade() {
                waker.wake();
            }
        };
        stop.token().on_cancel(wake).detach();
        Self {
            token: stop.token(),
            waker,
            look,
        }
    }
}

impl Signal for Foreign {
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.token.is_cancelled()
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.waker.register(cx.waker());
        match self.token.stop_reason() {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }

    fn check_every(self: Pin<&mut Self>, _: u32) -> u32 {
        self.look
    }
}

#[cfg(feature = "tokio")]
const DAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(feature = "tokio")]
const SECOND: Duration = Duration::from_secs(1);

#[cfg(feature = "tokio")]
const NANOSECONDS: Duration = Duration::from_nanos(7);

#[cfg(feature = "tokio")]
fn timed(stop: &Stop) -> CancellationToken {
    CancellationToken::with_deadline(stop.deadline())
}

#[cfg(feature = "tokio")]
fn later(stop: &Stop) -> Instant {
    stop.deadline() + DAY
}
