//! T1, T3, T5 and T11 on real threads.

use super::{chain, poll, reason, waiter};
use crate::support::{Wakes, in_step};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use stopcock::{CancellationToken, StopReason};

const ROUNDS: usize = if cfg!(miri) { 50 } else { 100_000 };

/// T1.
#[test]
fn of_concurrent_cancels_exactly_one_wins_and_all_see_its_reason() {
    const THREADS: usize = 3;
    const WHYS: [&str; THREADS] = ["0", "1", "2"];

    let tokens: Vec<_> = (0..ROUNDS).map(|_| CancellationToken::new()).collect();
    let winners: Vec<_> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    let disagreements = AtomicUsize::new(0);
    in_step(THREADS, ROUNDS, |thread, round| {
        let token = &tokens[round];
        if token.cancel_with(WHYS[thread]) {
            winners[round].fetch_add(1 << (8 * thread), Relaxed);
            let sees_its_own = reason(token).as_deref() == Some(WHYS[thread]);
            disagreements.fetch_add(usize::from(!sees_its_own), Relaxed);
        }
    });
    assert_eq!(disagreements.into_inner(), 0);
    for (token, winner) in tokens.iter().zip(winners) {
        let winner = winner.into_inner();
        let winner = (0..THREADS).find(|thread| winner == 1 << (8 * thread));
        let winner = winner.expect("exactly one wins");
        assert_eq!(reason(token).unwrap(), WHYS[winner]);
    }
}

/// T3.
#[test]
fn a_parent_and_a_child_cancelled_at_once_leave_no_descendant_behind() {
    let trees: Vec<_> = (0..ROUNDS).map(|_| chain()).collect();
    let waiters: Vec<_> = trees.iter().map(|[.., leaf]| waiter(leaf)).collect();
    let middle_wins: Vec<_> = (0..ROUNDS).map(|_| AtomicBool::new(false)).collect();
    let violations = AtomicUsize::new(0);
    in_step(2, ROUNDS, |thread, round| {
        let [root, middle, leaf] = &trees[round];
        let is_right = if thread == 0 {
            let won = root.cancel_with(StopReason::ConsumerDropped);
            won && leaf.is_cancelled() && middle.is_cancelled()
        } else {
            let won = middle.cancel_with(StopReason::IdleTimeout);
            middle_wins[round].store(won, Relaxed);
            let reason = leaf.stop_reason();
            match won {
                true => matches!(reason, Some(StopReason::IdleTimeout)),
                false => matches!(reason, Some(StopReason::ConsumerDropped)),
            }
        };
        violations.fetch_add(usize::from(!is_right), Relaxed);
    });
    assert_eq!(violations.into_inner(), 0);
    for ([root, middle, leaf], middle_won) in trees.iter().zip(middle_wins) {
        let expected = match middle_won.into_inner() {
            true => StopReason::IdleTimeout,
            false => StopReason::ConsumerDropped,
        };
        assert!(matches!(
            root.stop_reason(),
            Some(StopReason::ConsumerDropped)
        ));
        assert_eq!(reason(middle).unwrap(), expected.to_string());
        assert_eq!(reason(leaf).unwrap(), expected.to_string());
    }
    for (_, wakes) in waiters {
        assert_eq!(wakes.count(), 1);
    }
}

/// T5 and S8: a task that makes a child and waits on it is woken, or finds it cancelled.
#[test]
fn a_child_made_and_waited_on_during_a_cancel_is_cancelled_or_woken() {
    let tokens: Vec<_> = (0..ROUNDS).map(|_| CancellationToken::new()).collect();
    let waiters: Vec<_> = (0..ROUNDS).map(|_| Mutex::new(None)).collect();
    in_step(2, ROUNDS, |thread, round| {
        if thread == 0 {
            tokens[round].cancel();
        } else {
            let mut cancelled = tokens[round].child_token().child_token().cancelled_owned();
            let wakes = Wakes::new();
            let is_pending = poll(&mut cancelled, &wakes).is_pending();
            *waiters[round].lock().unwrap() = Some((is_pending, cancelled, wakes));
        }
    });
    for waiter in waiters {
        let (was_pending, mut cancelled, wakes) = waiter.into_inner().unwrap().unwrap();
        assert!(wakes.count() >= usize::from(was_pending));
        assert!(poll(&mut cancelled, &wakes).is_ready());
    }
}

/// T11. That no weaker ordering would do is for loom and Miri to say.
#[test]
fn what_was_written_before_a_cancel_is_seen_with_it() {
    let trees: Vec<_> = (0..ROUNDS).map(|_| chain()).collect();
    let written: Vec<_> = (0..ROUNDS).map(|_| AtomicBool::new(false)).collect();
    let missing = AtomicUsize::new(0);
    in_step(2, ROUNDS, |thread, round| {
        let [root, _, leaf] = &trees[round];
        if thread == 0 {
            written[round].store(true, Relaxed);
            root.cancel();
        } else if leaf.is_cancelled() && !written[round].load(Relaxed) {
            missing.fetch_add(1, Relaxed);
        }
    });
    assert_eq!(missing.into_inner(), 0);
}
