//! T6 on real threads.

use super::Calls;
use crate::{
    support::in_step,
    token::{chain, reason},
};
use std::{
    iter,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use stopcock::{CancellationToken, StopReason};

const ROUNDS: usize = if cfg!(miri) { 30 } else { 10_000 };

fn chains() -> Vec<[CancellationToken; 3]> {
    (0..ROUNDS).map(|_| chain()).collect()
}

fn counters() -> Arc<Vec<AtomicUsize>> {
    Arc::new((0..ROUNDS).map(|_| AtomicUsize::new(0)).collect())
}

/// A callback that counts in this round's counter.
fn counts(
    counters: &Arc<Vec<AtomicUsize>>,
    round: usize,
) -> impl FnOnce(&StopReason) + Send + use<> + 'static {
    let counters = Arc::clone(counters);
    move |_| {
        counters[round].fetch_add(1, Relaxed);
    }
}

/// T6, and the stop function of Go's `AfterFunc`.
#[test]
fn a_callback_that_is_cancelled_and_unregistered_at_once_has_run_or_was_unregistered() {
    for above in [0, 2] {
        let (tokens, ran, unregistered) = (chains(), counters(), counters());
        let registrations: Vec<_> = tokens
            .iter()
            .enumerate()
            .map(|(round, [.., leaf])| Mutex::new(Some(leaf.on_cancel(counts(&ran, round)))))
            .collect();
        in_step(2, ROUNDS, |thread, round| {
            if thread == 0 {
                tokens[round][above].cancel();
            } else {
                let registration = registrations[round].lock().unwrap().take().unwrap();
                unregistered[round].store(registration.unregister().into(), Relaxed);
            }
        });
        for (ran, unregistered) in ran.iter().zip(&*unregistered) {
            assert_eq!(ran.load(Relaxed) + unregistered.load(Relaxed), 1);
        }
    }
}

#[test]
fn a_callback_that_is_registered_during_a_cancel_runs_once() {
    for above in [0, 2] {
        let (tokens, ran) = (chains(), counters());
        in_step(2, ROUNDS, |thread, round| {
            if thread == 0 {
                tokens[round][above].cancel();
            } else {
                tokens[round][2].on_cancel(counts(&ran, round)).detach();
            }
        });
        assert!(ran.iter().all(|ran| ran.load(Relaxed) == 1));
    }
}

#[test]
fn a_callback_whose_token_and_ancestor_are_cancelled_and_checked_at_once_runs_once() {
    let (tokens, ran) = (chains(), counters());
    for (round, [.., leaf]) in tokens.iter().enumerate() {
        leaf.on_cancel(counts(&ran, round)).detach();
    }
    let late = AtomicUsize::new(0);
    in_step(3, ROUNDS, |thread, round| {
        let [root, _, leaf] = &tokens[round];
        match thread {
            0 => root.cancel(),
            1 => leaf.cancel(),
            _ => {
                let missing = leaf.is_cancelled() && leaf.stop_reason().is_none();
                late.fetch_add(missing.into(), Relaxed);
            }
        }
    });
    assert_eq!(late.into_inner(), 0);
    assert!(ran.iter().all(|ran| ran.load(Relaxed) == 1));
}

/// The last handle is dropped during the cancel: in time or not, nothing is leaked.
#[test]
fn a_callback_whose_last_handle_is_dropped_during_a_cancel_runs_once_at_most_and_is_dropped() {
    let ran = counters();
    let (roots, leaves): (Vec<_>, Vec<_>) = chains()
        .into_iter()
        .map(|[root, _, leaf]| (root, Mutex::new(Some(leaf))))
        .unzip();
    for (round, leaf) in leaves.iter().enumerate() {
        let leaf = leaf.lock().unwrap();
        leaf.as_ref()
            .unwrap()
            .on_cancel(counts(&ran, round))
            .detach();
    }
    in_step(2, ROUNDS, |thread, round| match thread {
        0 => roots[round].cancel(),
        _ => drop(leaves[round].lock().unwrap().take()),
    });
    assert!(ran.iter().all(|ran| ran.load(Relaxed) <= 1));
    assert_eq!(Arc::strong_count(&ran), 1);
}

/// Numbers below what is asked for, the same ones at each run.
pub(crate) fn numbers(seed: usize) -> impl FnMut(usize) -> usize {
    let mut state = seed as u64;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// Tokens of which each has up to two of the earlier ones as parents, and those.
struct Tree {
    tokens: Vec<CancellationToken>,
    parents: Vec<Vec<usize>>,
    /// What the callback of each token heard.
    heard: Vec<Arc<Calls>>,
}

impl Tree {
    fn grow(size: usize, mut number: impl FnMut(usize) -> usize) -> Self {
        let mut tree = Self {
            tokens: vec![CancellationToken::new()],
            parents: vec![Vec::new()],
            heard: Vec::new(),
        };
        for token in 1..size {
            let parents: Vec<_> = (0..=number(2)).map(|_| number(token)).collect();
            let linked = parents.iter().map(|parent| &tree.tokens[*parent]);
            tree.tokens.push(CancellationToken::linked(linked));
            tree.parents.push(parents);
        }
        for token in &tree.tokens {
            let calls = Calls::new();
            // Not all: most tokens have no waiter, and are not listed.
            if number(3) > 0 {
                token.on_cancel(calls.callback("")).detach();
            }
            tree.heard.push(calls);
        }
        tree
    }

    fn check(&self, registered: &[bool], cancelled: &[Vec<String>], case: &str) {
        for (place, token) in self.tokens.iter().enumerate() {
            let parents = &self.parents[place];
            let mut candidates: Vec<_> = parents
                .iter()
                .filter_map(|parent| reason(&self.tokens[*parent]))
                .collect();
            candidates.extend(cancelled[place].iter().cloned());
            let why = reason(token);
            assert_eq!(why.is_some(), !candidates.is_empty(), "{case}: {place}");
            assert!(why.iter().all(|why| candidates.contains(why)), "{case}");
            let heard = why.iter().filter(|_| registered[place]);
            let heard: Vec<_> = heard.map(|why| format!(": {why}")).collect();
            assert_eq!(self.heard[place].all(), heard, "{case}: {place}");
        }
    }
}

#[test]
fn in_a_storm_of_cancels_every_callback_gets_the_final_reason_of_its_token_once() {
    const THREADS: usize = 3;
    const SIZE: usize = 14;
    const CANCELS: usize = 3;

    let rounds = if cfg!(miri) { 3 } else { 2000 };
    let trees: Vec<_> = (0..rounds).map(|n| Tree::grow(SIZE, numbers(n))).collect();
    let registered: Vec<Vec<_>> = trees
        .iter()
        .map(|tree| tree.heard.iter().map(|heard| heard.callbacks_left() > 0))
        .map(Iterator::collect)
        .collect();
    let targets = |thread: usize, round: usize| {
        let mut number = numbers(1000 * round + thread + 1);
        iter::repeat_with(move || number(SIZE)).take(CANCELS)
    };
    let late = AtomicUsize::new(0);
    in_step(THREADS, rounds, |thread, round| {
        let tokens = &trees[round].tokens;
        for (nth, target) in targets(thread, round).enumerate() {
            tokens[target].cancel_with(format!("{thread} {nth}"));
            late.fetch_add((!tokens[target].is_cancelled()).into(), Relaxed);
        }
    });
    assert_eq!(late.into_inner(), 0);
    for (round, tree) in trees.iter().enumerate() {
        let mut cancelled = vec![Vec::new(); SIZE];
        for thread in 0..THREADS {
            for (nth, target) in targets(thread, round).enumerate() {
                cancelled[target].push(format!("{thread} {nth}"));
            }
        }
        tree.check(&registered[round], &cancelled, &format!("round {round}"));
    }
}
