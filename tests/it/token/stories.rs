//! Short stories of a small tree against a simple model.

use super::{poll, reason};
use crate::{sequences::sequences, support::Wakes};
use std::sync::Arc;
use stopcock::{CancellationToken, CancelledOwned};

/// What is done to a token.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel(usize),
    Look(usize),
    /// Polls its waiter with a waker of its own, and makes the waiter first if there is none.
    Wait(usize),
    Leave(usize),
    DropHandle(usize),
}

/// A root, its child, and two children of that.
const PARENTS: [usize; 4] = [0, 0, 1, 1];
const STEPS: [Step; 12] = [
    Step::Cancel(0),
    Step::Cancel(1),
    Step::Cancel(2),
    Step::Look(1),
    Step::Look(2),
    Step::Look(3),
    Step::Wait(0),
    Step::Wait(1),
    Step::Wait(2),
    Step::Wait(3),
    Step::Leave(2),
    Step::DropHandle(1),
];

const REASONS: [&str; 5] = ["0", "1", "2", "3", "4"];

/// What a tree would be if a cancel could just set a field in every node below.
#[derive(Default)]
struct Model {
    reasons: [Option<&'static str>; PARENTS.len()],
    /// The place in `woken` of the waker that is waited with.
    waiting: [Option<usize>; PARENTS.len()],
    woken: Vec<usize>,
}

impl Model {
    fn cancel(&mut self, token: usize, reason: &'static str) -> bool {
        if self.reasons[token].is_some() {
            return false;
        }
        let mut below = [false; PARENTS.len()];
        for node in 0..PARENTS.len() {
            below[node] = node == token || (node > 0 && below[PARENTS[node]]);
            if below[node] && self.reasons[node].is_none() {
                self.reasons[node] = Some(reason);
                if let Some(waker) = self.waiting[node].take() {
                    self.woken[waker] += 1;
                }
            }
        }
        true
    }

    /// Whether it is pending.
    fn wait(&mut self, token: usize) -> bool {
        let is_pending = self.reasons[token].is_none();
        if is_pending {
            self.waiting[token] = Some(self.woken.len());
        }
        self.woken.push(0);
        is_pending
    }
}

fn check_steps(steps: &[Step]) {
    let mut model = Model::default();
    let mut tokens: Vec<Option<CancellationToken>> = vec![Some(CancellationToken::new())];
    for parent in &PARENTS[1..] {
        let child = tokens[*parent].as_ref().unwrap().child_token();
        tokens.push(Some(child));
    }
    let mut waiters: [Option<CancelledOwned>; PARENTS.len()] = Default::default();
    let mut wakes = Vec::new();

    for (step, why) in steps.iter().zip(REASONS) {
        let (Step::Cancel(node)
        | Step::Look(node)
        | Step::Wait(node)
        | Step::Leave(node)
        | Step::DropHandle(node)) = *step;
        let Some(token) = &tokens[node] else {
            continue;
        };
        match step {
            Step::Cancel(_) => {
                assert_eq!(token.cancel_with(why), model.cancel(node, why), "{steps:?}");
            }
            Step::Look(_) => {
                assert_eq!(reason(token).as_deref(), model.reasons[node], "{steps:?}");
            }
            Step::Wait(_) => {
                let waker = Wakes::new();
                let waiter = waiters[node].get_or_insert_with(|| token.clone().cancelled_owned());
                let is_pending = poll(waiter, &waker).is_pending();
                assert_eq!(is_pending, model.wait(node), "{steps:?}");
                wakes.push(waker);
            }
            Step::Leave(_) => {
                waiters[node] = None;
                model.waiting[node] = None;
            }
            Step::DropHandle(_) => tokens[node] = None,
        }
        // Not by `stop_reason`, which would fix the reasons.
        for (token, reason) in tokens.iter().zip(model.reasons) {
            if let Some(token) = token {
                assert_eq!(token.is_cancelled(), reason.is_some(), "{steps:?}");
            }
        }
        assert!(
            wakes
                .iter()
                .map(|wakes| wakes.count())
                .eq(model.woken.iter().copied()),
            "{steps:?}"
        );
        for (place, wakes) in wakes.iter().enumerate() {
            let is_kept = model.waiting.contains(&Some(place));
            assert_eq!(
                Arc::strong_count(wakes),
                1 + usize::from(is_kept),
                "{steps:?}"
            );
        }
    }
    for (token, expected) in tokens.iter().zip(model.reasons).rev() {
        if let Some(token) = token {
            assert_eq!(reason(token).as_deref(), expected, "{steps:?}");
        }
    }
}

#[test]
fn every_short_sequence_of_operations_on_a_small_tree_matches_a_simple_model() {
    let longest = if cfg!(miri) { 2 } else { 5 };
    for steps in sequences(&STEPS, longest).skip(1) {
        check_steps(&steps);
    }
}
