//! `run_until_cancelled` and `run_until_cancelled_owned`.

use crate::{
    support::{Wakes, panic_of},
    token::{chain, poll},
};
use std::{
    cell::Cell,
    future::{Future, pending, ready},
    marker::PhantomPinned,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};
use stopcock::{
    CancellationToken, RunUntilCancelled,
    testing::{Moment, Script, Source, Step},
};

/// Ready with the next item of a source, or with its end.
struct NextOf(Source);

impl Future for NextOf {
    type Output = Option<char>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        futures::Stream::poll_next(Pin::new(&mut self.0), cx)
    }
}

fn poll_by<Fut: Future>(future: Pin<&mut Fut>, wakes: &Arc<Wakes>) -> Poll<Fut::Output> {
    let waker = Waker::from(Arc::clone(wakes));
    future.poll(&mut Context::from_waker(&waker))
}

type Run = fn(&CancellationToken, NextOf) -> RunUntilCancelled<NextOf>;

const RUNS: [Run; 2] = [
    |token, future| token.run_until_cancelled(future),
    |token, future| token.clone().run_until_cancelled_owned(future),
];

/// When the token is cancelled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Never,
    /// Before this poll, counted from 0.
    Before(usize),
    During(usize),
}

/// The letters of a script until it is ready, `X` if it is cancelled, and how often the source is polled.
fn expected(script: &Script, at: At, polls: usize) -> (String, usize) {
    let mut output = String::new();
    let mut steps = script.steps().iter();
    for poll in 0..polls {
        if at == At::Before(poll) {
            return (output + "X", poll);
        }
        match steps.next() {
            Some(Step::Item(item)) => return (output + &item.to_string(), poll + 1),
            Some(Step::End) => return (output + "|", poll + 1),
            _ if at == At::During(poll) => return (output + "X", poll + 1),
            _ => output.push('-'),
        }
    }
    (output, polls)
}

fn check(run: Run, script: &Script, at: At, above: usize, polls: usize) {
    let case = format!("{script} {at:?} {above}");
    let tokens = chain();
    let cancelled = tokens[above].clone();
    let source = Source::from(script.clone()).by_hand().with_hook({
        let cancelled = cancelled.clone();
        move |moment| match (moment, at) {
            (Moment::Poll(poll), At::During(during)) if poll == during => cancelled.cancel(),
            _ => {}
        }
    });
    let record = source.record();
    let mut future = pin!(run(&tokens[2], NextOf(source)));
    let wakes = Wakes::new();
    let mut output = String::new();
    for poll in 0..polls {
        if at == At::Before(poll) {
            cancelled.cancel();
            assert_eq!(wakes.count(), usize::from(poll > 0), "{case}");
        }
        match poll_by(future.as_mut(), &wakes) {
            Poll::Pending => output.push('-'),
            Poll::Ready(answer) => {
                output.push(answer.map_or('X', |item| item.unwrap_or('|')));
                assert!(record.is_dropped(), "{case}: before it answers");
                break;
            }
        }
    }
    assert_eq!(
        (output, record.polls()),
        expected(script, at, polls),
        "{case}"
    );
}

/// If the token is cancelled first, the future is never polled; if it is cancelled during the poll, the output is kept.
#[test]
fn cancellation_wins_at_every_poll_that_begins_after_it_or_is_pending() {
    const POLLS: usize = 4;

    for script in Script::all("-a|", if cfg!(miri) { 1 } else { 3 }) {
        for run in RUNS {
            for above in 0..3 {
                check(run, &script, At::Never, above, POLLS);
                for poll in 0..POLLS {
                    check(run, &script, At::Before(poll), above, POLLS);
                    check(run, &script, At::During(poll), above, POLLS);
                }
            }
        }
    }
}

#[test]
fn only_the_latest_waker_is_woken_by_a_cancel() {
    let token = CancellationToken::new();
    let mut future = Box::pin(token.run_until_cancelled(pending::<()>()));
    let (first, latest) = (Wakes::new(), Wakes::new());
    assert!(poll_by(future.as_mut(), &first).is_pending());
    assert!(poll_by(future.as_mut(), &latest).is_pending());
    token.cancel();
    assert_eq!((first.count(), latest.count()), (0, 1));
    assert_eq!(poll_by(future.as_mut(), &latest), Poll::Ready(None));
}

#[test]
fn the_future_wakes_its_task_itself() {
    let token = CancellationToken::new();
    let source = Source::new("-a").by_hand();
    let record = source.record();
    let mut future = pin!(token.run_until_cancelled(NextOf(source)));
    let wakes = Wakes::new();
    assert!(poll_by(future.as_mut(), &wakes).is_pending());
    record.wake();
    assert_eq!(wakes.count(), 1);
    assert_eq!(poll_by(future, &wakes), Poll::Ready(Some(Some('a'))));
}

#[test]
fn dropping_it_drops_the_future_and_leaves_the_token_as_it_was() {
    for polls in 0..2 {
        let token = CancellationToken::new();
        let source = Source::new("-").by_hand();
        let record = source.record();
        let mut future = Box::pin(token.run_until_cancelled(NextOf(source)));
        let wakes = Wakes::new();
        for _ in 0..polls {
            assert!(poll_by(future.as_mut(), &wakes).is_pending());
        }
        drop(future);
        assert!(record.is_dropped());
        assert!(!token.is_cancelled());
        token.cancel();
        drop(record);
        assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
    }
}

#[test]
fn it_keeps_no_waker_once_it_has_answered() {
    for is_cancelled in [false, true] {
        let token = CancellationToken::new();
        let source = Source::new("-a").by_hand();
        let mut future = pin!(token.run_until_cancelled(NextOf(source)));
        let wakes = Wakes::new();
        assert!(poll_by(future.as_mut(), &wakes).is_pending());
        if is_cancelled {
            token.cancel();
        }
        assert!(poll_by(future.as_mut(), &Wakes::new()).is_ready());
        assert_eq!(Arc::strong_count(&wakes), 1);
        token.cancel();
        assert_eq!(wakes.count(), usize::from(is_cancelled));
    }
}

#[test]
fn it_owns_its_token() {
    let future = {
        let token = CancellationToken::new();
        token.run_until_cancelled(ready(1))
    };
    let mut future = pin!(future);
    assert_eq!(
        poll_by(future.as_mut(), &Wakes::new()),
        Poll::Ready(Some(1))
    );
}

#[test]
fn a_future_that_borrows_and_is_not_unpin_is_run() {
    let token = CancellationToken::new();
    let local = Cell::new(1);
    let mut future = pin!(token.run_until_cancelled(async {
        let _pinned = PhantomPinned;
        token.cancelled().await;
        local.set(2);
    }));
    let wakes = Wakes::new();
    assert!(poll_by(future.as_mut(), &wakes).is_pending());
    token.cancel();
    assert_eq!(poll_by(future.as_mut(), &wakes), Poll::Ready(None));
    assert_eq!(local.get(), 1);
}

#[test]
fn polling_it_again_after_it_was_ready_panics_with_the_way_out() {
    for is_cancelled in [false, true] {
        let token = CancellationToken::new();
        let mut future = pin!(token.run_until_cancelled(ready(1)));
        if is_cancelled {
            token.cancel();
        }
        assert!(poll_by(future.as_mut(), &Wakes::new()).is_ready());
        let message = panic_of(|| poll_by(future.as_mut(), &Wakes::new()));
        assert!(message.contains("`fuse` it"), "{message}");
    }
}

#[test]
fn a_panic_of_the_future_passes_through_and_leaves_the_token_as_it_was() {
    let token = CancellationToken::new();
    let source = Source::new("!");
    let record = source.record();
    let mut future = Box::pin(token.run_until_cancelled(NextOf(source)));
    let message = panic_of(|| poll_by(future.as_mut(), &Wakes::new()));
    assert_eq!(message, "the script says so");
    assert!(!token.is_cancelled());
    drop(future);
    assert!(record.is_dropped());
}

#[test]
fn a_panic_in_the_drop_of_the_future_passes_through_once() {
    let token = CancellationToken::new();
    let source = Source::new("-").with_hook(|moment| {
        assert!(moment != Moment::Drop, "dropped");
    });
    let mut future = Box::pin(token.run_until_cancelled(NextOf(source)));
    token.cancel();
    assert_eq!(
        panic_of(|| poll_by(future.as_mut(), &Wakes::new())),
        "dropped"
    );
    drop(future);
}

#[test]
fn its_token_settles_once_the_future_is_dropped() {
    for answers in [false, true] {
        let token = CancellationToken::new();
        let settled = Arc::new(Mutex::new(Vec::new()));
        let is_settled = {
            let token = token.clone();
            move || poll(&mut token.settled(), &Wakes::new()).is_ready()
        };
        let source = Source::new("a").with_hook({
            let (settled, token) = (Arc::clone(&settled), token.clone());
            let is_settled = is_settled.clone();
            move |moment| match moment {
                // During the poll, so that both are ready.
                Moment::Poll(_) => token.cancel(),
                Moment::Drop => settled.lock().unwrap().push(is_settled()),
                _ => unreachable!(),
            }
        });
        let mut future = pin!(token.child_token().run_until_cancelled(NextOf(source)));
        if !answers {
            token.cancel();
        }
        assert!(poll_by(future.as_mut(), &Wakes::new()).is_ready());
        assert_eq!(*settled.lock().unwrap(), [false], "not while it is dropped");
        assert!(is_settled());
    }
}

#[test]
fn of_two_around_each_other_the_one_that_is_cancelled_answers() {
    let (inner, outer) = (CancellationToken::new(), CancellationToken::new());
    let nest = || outer.run_until_cancelled(inner.run_until_cancelled(pending::<u8>()));
    let mut future = pin!(nest());
    let wakes = Wakes::new();
    assert!(poll_by(future.as_mut(), &wakes).is_pending());
    inner.cancel();
    assert_eq!(wakes.count(), 1);
    assert_eq!(poll_by(future, &wakes), Poll::Ready(Some(None)));
    outer.cancel();
    assert_eq!(poll_by(pin!(nest()), &wakes), Poll::Ready(None));
}

#[test]
fn a_borrowed_future_can_be_polled_after_the_stop() {
    let token = CancellationToken::new();
    let mut next = NextOf(Source::new("-b"));
    {
        let mut future = pin!(token.run_until_cancelled(&mut next));
        assert!(poll_by(future.as_mut(), &Wakes::new()).is_pending());
        token.cancel();
        assert_eq!(poll_by(future, &Wakes::new()), Poll::Ready(None));
    }
    let answer = poll_by(Pin::new(&mut next), &Wakes::new());
    assert_eq!(answer, Poll::Ready(Some('b')));
}

#[cfg(feature = "tokio")]
mod deadlines {
    use super::poll_by;
    use crate::{support::Wakes, with_deadline::tick};
    use std::{
        future::{pending, poll_fn},
        pin::pin,
        task::Poll,
        time::Duration,
    };
    use stopcock::CancellationToken;
    use tokio::time::advance;

    const NANOSECOND: Duration = Duration::from_nanos(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// For a future that is always ready, `now` after a token with a deadline of a second was made.
    async fn answer(now: Duration, below: bool) -> Option<()> {
        let mut token = CancellationToken::with_timeout(SECOND);
        if below {
            token = token.child_token();
        }
        tick(now);
        token.run_until_cancelled(async {}).await
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_of_the_token_it_answers_none_and_a_nanosecond_before_it_does_not() {
        for below in [false, true] {
            assert_eq!(answer(SECOND - NANOSECOND, below).await, Some(()));
            assert_eq!(answer(SECOND, below).await, None);
        }
    }

    /// Whatever wakes it then, no timer has fired.
    #[tokio::test(start_paused = true)]
    async fn a_pending_future_is_not_polled_again_once_the_deadline_of_the_token_has_passed() {
        let token = CancellationToken::with_timeout(SECOND).child_token();
        let mut polls = 0;
        let waits = poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        });
        let mut future = Box::pin(token.run_until_cancelled(waits));
        let wakes = Wakes::new();
        for passes in [SECOND - NANOSECOND, Duration::ZERO] {
            tick(passes);
            assert!(poll_by(future.as_mut(), &wakes).is_pending());
        }
        tick(NANOSECOND);
        assert_eq!(poll_by(future.as_mut(), &wakes), Poll::Ready(None));
        drop(future);
        assert_eq!((polls, wakes.count()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pending_future_is_woken_at_the_deadline_of_the_token() {
        let token = CancellationToken::with_timeout(SECOND).child_token();
        let mut future = pin!(token.run_until_cancelled(pending::<()>()));
        let wakes = Wakes::new();
        assert!(poll_by(future.as_mut(), &wakes).is_pending());
        advance(2 * SECOND).await;
        assert_eq!(wakes.count(), 1);
        assert_eq!(poll_by(future, &wakes), Poll::Ready(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_while_the_deadline_of_the_token_passes_is_kept() {
        let token = CancellationToken::with_timeout(SECOND);
        let answer = token.run_until_cancelled(async { tick(SECOND) }).await;
        assert_eq!(answer, Some(()));
    }
}
