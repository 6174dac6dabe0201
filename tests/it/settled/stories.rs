//! Short stories of holders and waiters against a simple model.

use super::{hold, poll};
use crate::{sequences::sequences, support::Wakes};
use std::{fmt::Debug, pin::Pin, sync::Arc};
use stopcock::CancellationToken;

// Short sequences of operations.

/// What is done at a token of a small tree.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel(usize),
    Hold(usize),
    LetGo(usize),
    /// Polls the waiter there.
    Poll(usize),
}

/// 0 is a root with a child 1. 2 is linked to 1 and another root, 3.
const ABOVE: [&[usize]; 4] = [&[0], &[1, 0], &[2, 1, 3, 0], &[3]];

#[derive(Default)]
struct Model {
    is_cancelled: [bool; ABOVE.len()],
    held: [usize; ABOVE.len()],
    state: [State; ABOVE.len()],
    woken: [usize; ABOVE.len()],
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    New,
    WaitsForCancel,
    WaitsForOthers,
    /// Nobody held anything at some moment since it had to wait.
    Notified,
}

impl Model {
    fn wake(&mut self, node: usize, from: State, to: State) {
        if self.state[node] == from {
            self.state[node] = to;
            self.woken[node] += 1;
        }
    }

    fn cancel(&mut self, token: usize) {
        for node in (0..ABOVE.len()).filter(|node| ABOVE[*node].contains(&token)) {
            self.is_cancelled[node] = true;
            self.wake(node, State::WaitsForCancel, State::New);
        }
    }

    fn let_go(&mut self, token: usize) {
        for &node in ABOVE[token] {
            self.held[node] -= 1;
            if self.held[node] == 0 {
                self.wake(node, State::WaitsForOthers, State::Notified);
            }
        }
    }

    fn poll(&mut self, node: usize) -> bool {
        if !self.is_cancelled[node] {
            self.state[node] = State::WaitsForCancel;
            return false;
        }
        if self.held[node] == 0 || self.state[node] == State::Notified {
            return true;
        }
        self.state[node] = State::WaitsForOthers;
        false
    }
}

fn check_sequence(steps: &[Step]) {
    let root = CancellationToken::new();
    let child = root.child_token();
    let other = CancellationToken::new();
    let linked = CancellationToken::linked([&child, &other]);
    let tokens = [root, child, linked, other];
    let mut waiters = tokens
        .each_ref()
        .map(|token| (token.settled(), Wakes::new()));
    let mut held: [Vec<_>; ABOVE.len()] = Default::default();
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Cancel(node) => {
                tokens[node].cancel();
                model.cancel(node);
            }
            Step::Hold(node) => {
                held[node].push(hold(&tokens[node]));
                ABOVE[node].iter().for_each(|above| model.held[*above] += 1);
            }
            Step::LetGo(node) => {
                if held[node].pop().is_some() {
                    model.let_go(node);
                }
            }
            Step::Poll(node) => {
                let (settled, wakes) = &mut waiters[node];
                let is_ready = poll(Pin::new(settled), wakes).is_ready();
                assert_eq!(is_ready, model.poll(node), "{node}: {steps:?}");
            }
        }
        let woken = waiters.each_ref().map(|(_, wakes)| wakes.count());
        assert_eq!(woken, model.woken, "{steps:?}");
    }
    drop(held);
    drop(tokens);
    for (settled, wakes) in waiters {
        drop(settled);
        assert_eq!(Arc::strong_count(&wakes), 1, "{steps:?}");
    }
}

#[test]
fn every_short_sequence_of_holders_and_waiters_matches_a_simple_model() {
    let steps: Vec<_> = (0..ABOVE.len())
        .flat_map(|node| {
            [
                Step::Cancel(node),
                Step::Hold(node),
                Step::LetGo(node),
                Step::Poll(node),
            ]
        })
        .collect();
    // Without holders and waiters little can happen.
    let beginnings: [&[Step]; 3] = [
        &[],
        &[Step::Hold(2), Step::Cancel(0), Step::Poll(0)],
        &[
            Step::Hold(1),
            Step::Poll(1),
            Step::Hold(2),
            Step::Cancel(3),
            Step::Poll(3),
        ],
    ];
    let length = if cfg!(miri) { 1 } else { 4 };
    for beginning in beginnings {
        for rest in sequences(&steps, length) {
            check_sequence(&[beginning, &rest].concat());
        }
    }
}
