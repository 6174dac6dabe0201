//! Short stories of deadlines and cancels against a simple model, and D7.

use super::{MICROSECOND, MILLISECOND, SECOND, WHYS, paused_runtime, reason, tick, waiter};
use crate::sequences::sequences;
use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};
use stopcock::{CancellationToken, StopReason};
use tokio::time::{Instant, sleep};

/// What is done to a small tree on a thread that never yields to the runtime.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel(usize),
    Check(usize),
    /// A second passes.
    Tick,
}

/// 1 is a child of 0 with a deadline after two seconds, and 2 its child. 3 is a root with a deadline after one second.
/// 4 is linked to 2 and 3, and 5 is its child.
const BELOW: [&[usize]; 6] = [
    &[0, 1, 2, 4, 5],
    &[1, 2, 4, 5],
    &[2, 4, 5],
    &[3, 4, 5],
    &[4, 5],
    &[5],
];

/// What it would be if a cancel and the time could just set a field in every node below.
#[derive(Default)]
struct Model {
    now: u32,
    reasons: [Option<String>; BELOW.len()],
    notified: [bool; BELOW.len()],
}

impl Model {
    fn give(&mut self, token: usize, reason: &str) -> bool {
        let is_first = self.reasons[token].is_none();
        for &below in BELOW[token].iter().filter(|_| is_first) {
            self.reasons[below].get_or_insert(reason.into());
        }
        is_first
    }

    fn cancel(&mut self, token: usize, reason: &str) -> bool {
        let has_won = self.give(token, reason);
        for &below in BELOW[token] {
            self.notified[below] = true;
        }
        has_won
    }

    fn tick(&mut self) {
        self.now += 1;
        match self.now {
            1 => self.give(3, &StopReason::DeadlineExceeded.to_string()),
            2 => self.give(1, &StopReason::DeadlineExceeded.to_string()),
            _ => false,
        };
    }
}

async fn check_sequence(steps: &[Step], are_waited_on: bool) {
    let root = CancellationToken::new();
    let timed = root.child_with_timeout(2 * SECOND);
    let middle = timed.child_token();
    let other = CancellationToken::with_timeout(SECOND);
    let linked = CancellationToken::linked([&middle, &other]);
    let leaf = linked.child_token();
    let tokens = [root, timed, middle, other, linked, leaf];

    let calls = Arc::new(Mutex::new(vec![Vec::new(); BELOW.len()]));
    let mut waiters = Vec::new();
    for (node, token) in tokens.iter().enumerate().filter(|_| are_waited_on) {
        let calls = Arc::clone(&calls);
        let call = move |reason: &StopReason| calls.lock().unwrap()[node].push(reason.to_string());
        waiters.push((waiter(token), token.on_cancel(call)));
    }
    let mut model = Model::default();
    let check_notified = |model: &Model| {
        for (node, ((_, wakes), _)) in waiters.iter().enumerate() {
            let notified = usize::from(model.notified[node]);
            assert_eq!(wakes.count(), notified, "{node}: {steps:?}");
            let calls = &calls.lock().unwrap()[node];
            let reason = model.reasons[node].iter().filter(|_| model.notified[node]);
            assert!(calls.iter().eq(reason), "{node}: {calls:?} in {steps:?}");
        }
    };

    for (step, why) in steps.iter().zip(WHYS) {
        match *step {
            Step::Cancel(node) => {
                let has_won = tokens[node].cancel_with(why);
                assert_eq!(has_won, model.cancel(node, why), "{steps:?}");
            }
            Step::Check(node) => {
                let is_cancelled = tokens[node].is_cancelled();
                assert_eq!(is_cancelled, model.reasons[node].is_some(), "{steps:?}");
            }
            Step::Tick => {
                tick(SECOND);
                model.tick();
            }
        }
        check_notified(&model);
    }
    // From below or from above, as a check sets the outcomes of the ancestors.
    let mut nodes: Vec<_> = (0..BELOW.len()).collect();
    if steps.len() % 2 == 1 {
        nodes.reverse();
    }
    for node in nodes {
        assert_eq!(
            reason(&tokens[node]),
            model.reasons[node],
            "{node}: {steps:?}"
        );
    }
    check_notified(&model);
    // The timers notify those that have not been notified.
    while model.now < 3 {
        tick(SECOND);
        model.tick();
    }
    sleep(MILLISECOND).await;
    for node in 1..BELOW.len() {
        model.notified[node] = true;
    }
    check_notified(&model);
    for (token, expected) in tokens.iter().zip(&model.reasons) {
        assert_eq!(reason(token), *expected, "{steps:?}");
    }
}

#[test]
fn every_short_sequence_of_deadlines_and_cancels_matches_a_simple_model() {
    let mut steps = vec![Step::Tick];
    steps.extend((0..BELOW.len()).flat_map(|node| [Step::Cancel(node), Step::Check(node)]));
    let runtime = paused_runtime();
    let length = if cfg!(miri) { 1 } else { WHYS.len() };
    for sequence in sequences(&steps, length) {
        for are_waited_on in [true, false] {
            // There are too many of the longest ones to run each twice.
            if sequence.len() < length || are_waited_on == (length % 2 == 0) {
                runtime.block_on(check_sequence(&sequence, are_waited_on));
            }
        }
    }
}

/// D7.
#[test]
fn under_a_paused_clock_a_story_of_many_deadlines_is_the_same_at_every_run() {
    fn sequence() -> Vec<(u32, Duration)> {
        let log = Arc::new(Mutex::new(Vec::new()));
        paused_runtime().block_on(async {
            let start = Instant::now();
            let root = CancellationToken::new();
            let mut tokens = vec![root];
            let mut state = 7_u32;
            for number in 0..60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let parent = &tokens[(state >> 16) as usize % tokens.len()];
                let token = match number % 5 {
                    0 => CancellationToken::linked([parent, &tokens[0]]),
                    1 => parent.child_token(),
                    _ => parent.child_with_timeout((state >> 12) % 5000 * 300 * MICROSECOND),
                };
                let log = Arc::clone(&log);
                let call =
                    move |_: &StopReason| log.lock().unwrap().push((number, start.elapsed()));
                token.on_cancel(call).detach();
                tokens.push(token);
            }
            sleep(10 * SECOND).await;
            assert!(!tokens[0].is_cancelled());
        });
        mem::take(&mut *log.lock().unwrap())
    }

    let first = sequence();
    assert!(first.len() > 20);
    assert!(first.is_sorted_by_key(|(_, when)| *when));
    assert_eq!(sequence(), first);
    assert_eq!(sequence(), first);
}
