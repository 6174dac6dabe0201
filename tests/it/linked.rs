//! `CancellationToken::linked`: children of several parents, and the laws T3 to T5, T9 and T12 for them.

use crate::{
    on_cancel::Calls,
    sequences::sequences,
    support::{Wakes, in_step},
    token::{poll, reason, waiter},
};
use futures::stream;
use std::{
    iter,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    thread,
};
use stopcock::{CancelStreamExt, CancellationToken, CancelledOwned};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// All orders of the numbers below three.
fn orders() -> Vec<[usize; 3]> {
    let numbers = (0..27).map(|n| [n % 3, n / 3 % 3, n / 9]);
    numbers
        .filter(|[a, b, c]| a != b && b != c && c != a)
        .collect()
}

fn tokens() -> [CancellationToken; 3] {
    [(); 3].map(|()| CancellationToken::new())
}

#[test]
fn the_first_parent_that_is_cancelled_gives_its_reason_whichever_it_is() {
    for order in orders() {
        for checks in [false, true] {
            let parents = tokens();
            let linked = CancellationToken::linked(&parents);
            let child = linked.child_token();
            for cancelled in order {
                assert!(parents[cancelled].cancel_with(NAMES[cancelled]));
                assert!(child.is_cancelled());
                if checks {
                    assert_eq!(reason(&child).unwrap(), NAMES[order[0]]);
                }
            }
            assert!(!linked.cancel_with("too late"));
            assert_eq!(reason(&child).unwrap(), NAMES[order[0]]);
            assert_eq!(reason(&linked).unwrap(), NAMES[order[0]]);
            for (parent, name) in iter::zip(parents, NAMES) {
                assert_eq!(reason(&parent).unwrap(), name);
            }
        }
    }
}

/// Cancelled themselves, or by an ancestor, at any place in the list.
#[test]
fn of_parents_that_are_cancelled_already_the_earliest_gives_its_reason() {
    for order in orders() {
        for listed in orders() {
            for so_many in 1..=3 {
                for depth in 0..3 {
                    let above = tokens();
                    let parents = above.clone().map(|token| {
                        let descent =
                            iter::successors(Some(token), |token| Some(token.child_token()));
                        descent.take(depth + 1).last().unwrap()
                    });
                    for &cancelled in &order[..so_many] {
                        above[cancelled].cancel_with(NAMES[cancelled]);
                    }
                    let linked = CancellationToken::linked(listed.map(|place| &parents[place]));
                    let calls = Calls::new();
                    linked.on_cancel(calls.callback("at once")).detach();
                    assert!(linked.is_cancelled());
                    assert_eq!(calls.all(), [format!("at once: {}", NAMES[order[0]])]);
                    assert!(!linked.cancel_with("too late"));
                }
            }
        }
    }
}

#[test]
fn of_no_parents_it_is_a_root() {
    let token = CancellationToken::linked(iter::empty::<CancellationToken>());
    assert!(!token.is_cancelled());
    let calls = Calls::new();
    token
        .child_token()
        .on_cancel(calls.callback("child"))
        .detach();
    assert!(token.cancel_with("its own"));
    assert_eq!(reason(&token.child_token()).unwrap(), "its own");
}

#[test]
fn of_one_parent_or_of_the_same_one_several_times_it_is_its_child() {
    for times in 1..4 {
        let parent = CancellationToken::new();
        let linked = CancellationToken::linked(vec![&parent; times]);
        assert_ne!(linked, parent);
        let calls = Calls::new();
        linked.on_cancel(calls.callback("called")).detach();
        assert!(linked.clone().child_token().cancel_with("below"));
        assert!(!linked.is_cancelled());
        parent.cancel_with("parent");
        assert_eq!(calls.all(), ["called: parent"]);
        assert_eq!(reason(&linked).unwrap(), "parent");
    }
}

#[test]
fn a_parent_that_comes_twice_beside_another_counts_once() {
    for cancelled in 0..2 {
        let [a, b, _] = tokens();
        let linked = CancellationToken::linked([&a, &b, &a, &b.clone(), &a]);
        let calls = Calls::new();
        linked.on_cancel(calls.callback("called")).detach();
        assert!([a, b][cancelled].cancel_with(NAMES[cancelled]));
        assert_eq!(calls.all(), [format!("called: {}", NAMES[cancelled])]);
    }
}

#[test]
fn it_is_made_of_whatever_borrows_tokens() {
    fn check<T>(parents: [T; 2], last: &CancellationToken)
    where
        T: std::borrow::Borrow<CancellationToken>,
    {
        let linked = CancellationToken::linked(parents);
        last.cancel();
        assert!(linked.is_cancelled());
    }

    let [a, b, _] = tokens();
    check([a.clone(), b.clone()], &b);
    let [a, b, _] = tokens();
    check([&a, &b], &b);
    let [a, b] = [a, b].map(Arc::new);
    check([Arc::clone(&a), Arc::clone(&b)], &b);
    let [a, b, _] = tokens();
    check([Box::new(a), Box::new(b.clone())], &b);

    let parents = vec![CancellationToken::new(), CancellationToken::new()];
    let by_reference = CancellationToken::linked(&parents);
    let some = CancellationToken::linked(parents.iter().filter(|token| **token != parents[0]));
    parents[0].cancel();
    assert!(by_reference.is_cancelled() && !some.is_cancelled());
}

/// In a list with its own child: a cancel of the parent arrives on two paths.
#[test]
fn parents_may_be_related() {
    for depth in 1..3 {
        for turned in [false, true] {
            for cancelled in [[0, depth], [depth, 0]] {
                let mut line = vec![CancellationToken::new()];
                for above in 0..depth {
                    line.push(line[above].child_token());
                }
                let mut parents = [&line[0], &line[depth]];
                if turned {
                    parents.reverse();
                }
                let linked = CancellationToken::linked(parents);
                let calls = Calls::new();
                linked.on_cancel(calls.callback("called")).detach();
                let (_waits, wakes) = waiter(&linked);
                let first = ["root", "middle", "leaf"][cancelled[0]];
                line[cancelled[0]].cancel_with(first);
                line[cancelled[1]].cancel_with("second");
                assert_eq!(calls.all(), [format!("called: {first}")]);
                assert_eq!(wakes.count(), 1);
                assert_eq!(reason(&linked).unwrap(), first);
            }
        }
    }
}

/// An operation on a token.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel(usize),
    Look(usize),
    /// Adds a callback and a waiter.
    Listen(usize),
    DropHandle(usize),
}

/// Two roots, a token linked to both, its child, one linked to that and to a root, and a plain child of it.
const PARENTS: [&[usize]; 6] = [&[], &[], &[0, 1], &[2], &[1, 3], &[4]];
const STEPS: [Step; 15] = [
    Step::Cancel(0),
    Step::Cancel(1),
    Step::Cancel(2),
    Step::Cancel(3),
    Step::Cancel(4),
    Step::Look(2),
    Step::Look(4),
    Step::Look(5),
    Step::Listen(1),
    Step::Listen(3),
    Step::Listen(4),
    Step::Listen(5),
    Step::DropHandle(0),
    Step::DropHandle(2),
    Step::DropHandle(3),
];

const REASONS: [&str; 4] = ["first", "second", "third", "fourth"];

/// A simple model: a cancel sets a field in each token below, unless it is set already.
fn cancel_model(reasons: &mut [Option<&'static str>], token: usize, reason: &'static str) -> bool {
    if reasons[token].is_some() {
        return false;
    }
    let mut below = [false; PARENTS.len()];
    for node in token..PARENTS.len() {
        below[node] = node == token || PARENTS[node].iter().any(|parent| below[*parent]);
        if below[node] {
            reasons[node].get_or_insert(reason);
        }
    }
    true
}

type Listener = (usize, Arc<Calls>, (CancelledOwned, Arc<Wakes>));

fn listen(node: usize, token: &CancellationToken) -> Option<Listener> {
    let calls = Calls::new();
    token.on_cancel(calls.callback("")).detach();
    if token.is_cancelled() {
        assert!(poll(&mut token.cancelled(), &Wakes::new()).is_ready());
        return None;
    }
    Some((node, calls, waiter(token)))
}

fn check_steps(steps: &[Step]) {
    let mut reasons = [None; PARENTS.len()];
    let mut tokens: Vec<Option<CancellationToken>> = Vec::new();
    for parents in PARENTS {
        let parents = parents
            .iter()
            .map(|parent| tokens[*parent].as_ref().unwrap());
        let token = CancellationToken::linked(parents);
        tokens.push(Some(token));
    }
    let mut listeners = Vec::new();
    for (step, why) in iter::zip(steps, REASONS) {
        let (Step::Cancel(node) | Step::Look(node) | Step::Listen(node) | Step::DropHandle(node)) =
            *step;
        let Some(token) = &tokens[node] else {
            continue;
        };
        match step {
            Step::Cancel(_) => {
                let won = cancel_model(&mut reasons, node, why);
                assert_eq!(token.cancel_with(why), won, "{steps:?}");
            }
            Step::Look(_) => assert_eq!(reason(token).as_deref(), reasons[node], "{steps:?}"),
            Step::Listen(_) => listeners.extend(listen(node, token)),
            Step::DropHandle(_) => tokens[node] = None,
        }
        // Without `stop_reason`, which would set the reasons.
        for (token, reason) in iter::zip(&tokens, reasons) {
            if let Some(token) = token {
                assert_eq!(token.is_cancelled(), reason.is_some(), "{steps:?}");
            }
        }
        for (node, calls, (_, wakes)) in &listeners {
            let expected: Vec<_> = reasons[*node]
                .iter()
                .map(|why| format!(": {why}"))
                .collect();
            assert_eq!(calls.all(), expected, "{steps:?}");
            assert_eq!(wakes.count(), expected.len(), "{steps:?}");
        }
    }
    for (token, expected) in iter::zip(&tokens, reasons).rev() {
        if let Some(token) = token {
            assert_eq!(reason(token).as_deref(), expected, "{steps:?}");
        }
    }
    drop(tokens);
    for (_, calls, (waits, wakes)) in listeners {
        drop(waits);
        assert_eq!(Arc::strong_count(&wakes), 1, "{steps:?}");
        drop(calls);
    }
}

#[test]
fn every_short_sequence_of_operations_on_a_few_linked_tokens_matches_a_simple_model() {
    let longest = if cfg!(miri) { 1 } else { REASONS.len() };
    for steps in sequences(&STEPS, longest).skip(1) {
        check_steps(&steps);
    }
}

/// T12.
#[test]
fn dropping_the_handles_of_the_parents_does_not_cut_the_tree() {
    for cancelled in 0..2 {
        let roots = [CancellationToken::new(), CancellationToken::new()];
        let middles = [0, 1].map(|root: usize| roots[root].child_token().child_token());
        let linked = CancellationToken::linked(&middles);
        drop(middles);
        let calls = Calls::new();
        linked.on_cancel(calls.callback("called")).detach();
        roots[cancelled].cancel_with(NAMES[cancelled]);
        assert_eq!(calls.all(), [format!("called: {}", NAMES[cancelled])]);
    }
}

#[test]
fn dropping_it_leaves_its_parents_and_their_other_children_as_they_were() {
    let [a, b, _] = tokens();
    let calls = Calls::new();
    let [before, gone, after] = [(); 3].map(|()| CancellationToken::linked([&a, &b]));
    for token in [&before, &gone, &after] {
        token.on_cancel(calls.callback("called")).detach();
    }
    drop(gone);
    assert_eq!(calls.callbacks_left(), 2);
    assert!(!a.is_cancelled() && !b.is_cancelled());
    a.cancel_with("a");
    assert_eq!(calls.all(), ["called: a", "called: a"]);
}

#[test]
fn its_parents_are_dropped_with_it_once_they_have_no_other_handle() {
    for parents in 1..5 {
        let calls = Calls::new();
        let root = CancellationToken::new();
        let parents: Vec<_> = (0..parents).map(|_| root.child_token()).collect();
        for parent in &parents {
            parent.on_cancel(calls.callback("parent")).detach();
        }
        let child = CancellationToken::linked(&parents).child_token();
        let so_many = parents.len();
        drop(parents);
        assert_eq!(calls.callbacks_left(), so_many);
        drop(child);
        assert_eq!(calls.callbacks_left(), 0);
        root.cancel();
        assert!(calls.all().is_empty());
    }
}

/// T4.
#[test]
fn while_a_callback_runs_everything_below_both_parents_reports_cancelled() {
    let [a, b, _] = tokens();
    let calls = Calls::new();
    // Before the linked token is listed.
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    a.on_cancel({
        let (seen, calls) = (Arc::clone(&seen), calls.callback("first"));
        move |reason| {
            calls(reason);
            let tokens: Vec<CancellationToken> = std::mem::take(&mut *seen.lock().unwrap());
            for token in tokens {
                assert_eq!(crate::token::reason(&token).unwrap(), "a");
                assert!(!token.cancel_with("too late"));
            }
        }
    })
    .detach();
    let linked = CancellationToken::linked([&b, &a]);
    let below = CancellationToken::linked([&linked.child_token(), &CancellationToken::new()]);
    seen.lock().unwrap().extend([linked, below]);
    a.cancel_with("a");
    assert_eq!(calls.all(), ["first: a"]);
    assert!(!b.is_cancelled());
}

/// The number of levels of diamonds: far too many paths to walk each.
const LEVELS: usize = if cfg!(miri) { 8 } else { 64 };

/// Levels of two tokens each, which are both linked to both above, or children of one that is linked to both.
fn diamonds(levels: usize, with_joints: bool) -> (CancellationToken, CancellationToken) {
    let root = CancellationToken::new();
    let mut level = [root.child_token(), root.child_token()];
    for _ in 0..levels {
        level = match with_joints {
            true => {
                let joint = CancellationToken::linked(&level);
                [joint.child_token(), joint.child_token()]
            }
            false => [(); 2].map(|()| CancellationToken::linked(&level)),
        };
    }
    (root, CancellationToken::linked(&level))
}

/// It would take 2^64 steps to walk each path.
fn check_diamonds(levels: usize, with_joints: bool) {
    let (root, leaf) = diamonds(levels, with_joints);
    let below = leaf.child_token();
    assert!(!below.is_cancelled());
    assert!(reason(&below).is_none());
    let calls = Calls::new();
    for token in [&leaf, &below] {
        drop(token.on_cancel(calls.callback("unregistered")));
        token.on_cancel(calls.callback("called")).detach();
    }
    let (mut waits, wakes) = waiter(&below);
    let mut stops = stream::pending::<u8>().take_until_cancelled(&below);
    assert_eq!(crate::support::poll(Pin::new(&mut stops)), Poll::Pending);
    let ends = stream::repeat(1).take_until_cancelled(&leaf);
    let settled = &mut root.settled();
    drop(ends);

    assert!(root.cancel_with("root"));
    assert_eq!(calls.all(), ["called: root", "called: root"]);
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut waits, &wakes).is_ready());
    assert!(poll(settled, &wakes).is_pending());
    assert_eq!(
        crate::support::poll(Pin::new(&mut stops)),
        Poll::Ready(None)
    );
    assert!(poll(settled, &wakes).is_ready());
    assert!(!below.cancel_with("too late"));
    assert_eq!(reason(&below).unwrap(), "root");
}

#[test]
fn no_cost_doubles_with_each_level_of_diamonds() {
    for with_joints in [false, true] {
        check_diamonds(LEVELS, with_joints);
    }
}

#[test]
fn diamonds_that_are_first_checked_when_cancelled_are_walked_once() {
    for with_joints in [false, true] {
        for drops_root in [false, true] {
            let (root, leaf) = diamonds(LEVELS, with_joints);
            root.cancel_with("root");
            if drops_root {
                drop(root);
            }
            let child = leaf.child_token();
            assert!(child.is_cancelled());
            assert_eq!(reason(&child).unwrap(), "root");
        }
    }
}

#[test]
fn a_cancel_beside_diamonds_that_stay_open_walks_them_once() {
    for with_joints in [false, true] {
        let (root, leaf) = diamonds(LEVELS, with_joints);
        let other = CancellationToken::new();
        let linked = CancellationToken::linked([&leaf, &other]);
        let calls = Calls::new();
        linked.on_cancel(calls.callback("called")).detach();
        other.cancel_with("other");
        assert_eq!(calls.all(), ["called: other"]);
        assert!(!root.is_cancelled() && !leaf.is_cancelled());
    }
}

/// T9, in width.
#[test]
fn many_levels_of_diamonds_need_no_deep_stack() {
    let levels = if cfg!(miri) { 6 } else { 400 };
    for with_joints in [false, true] {
        let small = thread::Builder::new().stack_size(64 * 1024);
        let test = small.spawn(move || {
            check_diamonds(levels, with_joints);
            drop(diamonds(levels, with_joints));
        });
        test.unwrap().join().unwrap();
    }
}

#[test]
fn a_token_linked_to_many_is_cancelled_with_any_of_them() {
    const MANY: usize = if cfg!(miri) { 20 } else { 300 };

    for cancelled in [0, 1, MANY / 2, MANY - 1] {
        let mut parents: Vec<_> = iter::repeat_with(CancellationToken::new)
            .take(MANY)
            .collect();
        let linked = CancellationToken::linked(&parents);
        let calls = Calls::new();
        linked.on_cancel(calls.callback("called")).detach();
        let parent = parents.swap_remove(cancelled);
        drop(parents);
        assert!(!linked.is_cancelled());
        parent.cancel_with("why");
        assert_eq!(calls.all(), ["called: why"]);
    }
}

const ROUNDS: usize = if cfg!(miri) { 30 } else { 5_000 };

/// T1 and T6.
#[test]
fn of_parents_that_are_cancelled_at_once_the_same_one_is_first_for_all_descendants() {
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let parents = tokens();
            let linked = CancellationToken::linked(&parents);
            let tokens = [linked.child_token(), linked];
            let calls = [Calls::new(), Calls::new()];
            for (calls, token) in iter::zip(&calls, &tokens) {
                token.on_cancel(calls.callback("called")).detach();
            }
            (parents, tokens, calls)
        })
        .collect();
    let late = AtomicUsize::new(0);
    in_step(3, ROUNDS, |thread, round| {
        let (parents, [child, linked], _) = &rounds[round];
        parents[thread].cancel_with(NAMES[thread]);
        let is_late = !linked.is_cancelled() || reason(child) != reason(linked);
        late.fetch_add(is_late.into(), Relaxed);
    });
    assert_eq!(late.into_inner(), 0);
    for (_, [child, linked], calls) in &rounds {
        let why = reason(linked).unwrap();
        assert!(NAMES.contains(&why.as_str()));
        assert_eq!(reason(child).unwrap(), why);
        for calls in calls {
            assert_eq!(calls.all(), [format!("called: {why}")]);
        }
    }
}

/// T5 and T6.
#[test]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
fn a_listener_on_a_token_that_is_linked_during_the_cancel_of_a_parent_is_notified_once() {
    for cancelled in 0..2 {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| (tokens(), Calls::new())).collect();
        in_step(2, ROUNDS, |thread, round| {
            let (parents, calls) = &rounds[round];
            if thread == 0 {
                parents[cancelled].cancel_with("why");
            } else {
                let linked = CancellationToken::linked(&parents[..2]);
                let child = linked.child_token();
                child.on_cancel(calls.callback("child")).detach();
                // It does not count as dropped without a cancel.
                std::mem::forget(child);
            }
        });
        for (_, calls) in &rounds {
            assert_eq!(calls.all(), ["child: why"]);
        }
    }
}

#[cfg(feature = "tokio")]
mod deadlines {
    use crate::{on_cancel::Calls, token::reason, with_deadline::tick};
    use std::time::Duration;
    use stopcock::CancellationToken;
    use tokio::{
        task::yield_now,
        time::{Instant, advance},
    };

    const NANOSECOND: Duration = Duration::from_nanos(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn its_deadline_is_the_earliest_of_its_parents() {
        let start = Instant::now();
        let [none, other] = [CancellationToken::new(), CancellationToken::new()];
        let [early, late] = [1, 2].map(|n| CancellationToken::with_deadline(start + n * SECOND));
        let cases = [
            (vec![&early, &late], Some(SECOND)),
            (vec![&late, &none, &early], Some(SECOND)),
            (vec![&none, &late], Some(2 * SECOND)),
            (vec![&none, &other], None),
        ];
        for (parents, expected) in cases {
            let linked = CancellationToken::linked(parents);
            let expected = expected.map(|after| start + after);
            assert_eq!(linked.child_token().deadline(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_any_parent_stops_it_to_the_nanosecond_and_runs_its_callbacks() {
        let calls = Calls::new();
        let early = CancellationToken::with_timeout(SECOND);
        let late = CancellationToken::with_timeout(2 * SECOND);
        let linked = CancellationToken::linked([&late, &early]);
        linked.on_cancel(calls.callback("linked")).detach();
        tick(SECOND - NANOSECOND);
        assert!(!linked.is_cancelled());
        tick(NANOSECOND);
        assert_eq!(reason(&linked).unwrap(), "deadline exceeded");
        advance(SECOND / 2).await;
        // Lets the task run that runs callbacks.
        yield_now().await;
        assert_eq!(calls.all(), ["linked: deadline exceeded"]);
        assert!(!late.is_cancelled());
    }

    /// D4: the earlier one counts, although no timer has fired and no check was made.
    #[tokio::test(start_paused = true)]
    async fn a_cancel_after_the_deadline_of_another_parent_comes_too_late() {
        for deadline_first in [false, true] {
            let timed = CancellationToken::with_timeout(SECOND);
            let other = CancellationToken::new();
            let mut parents = [&other, &timed];
            if deadline_first {
                parents.reverse();
            }
            let linked = CancellationToken::linked(parents);
            tick(SECOND);
            other.cancel_with("too late");
            assert_eq!(reason(&linked).unwrap(), "deadline exceeded");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_before_the_deadline_of_another_parent_gives_its_reason() {
        let timed = CancellationToken::with_timeout(SECOND);
        let other = CancellationToken::new();
        let linked = CancellationToken::linked([&timed, &other]);
        tick(SECOND - NANOSECOND);
        other.cancel_with("in time");
        tick(SECOND);
        assert_eq!(reason(&linked).unwrap(), "in time");
    }

    /// D4: of two parents that have stopped already the earlier one counts, with a deadline at its point in time.
    #[tokio::test(start_paused = true)]
    async fn of_parents_that_are_over_the_one_whose_deadline_passed_before_the_other_was_cancelled_counts()
     {
        for deadline_first in [false, true] {
            let timed = CancellationToken::with_timeout(SECOND);
            let other = CancellationToken::new();
            tick(SECOND);
            other.cancel_with("later");
            let mut parents = [&other, &timed];
            if deadline_first {
                parents.reverse();
            }
            let linked = CancellationToken::linked(parents);
            assert_eq!(reason(&linked).unwrap(), "deadline exceeded");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_parents_that_are_over_the_one_that_was_cancelled_before_the_deadline_of_the_other_counts()
     {
        for below in [false, true] {
            let timed = CancellationToken::with_timeout(SECOND);
            let mut other = CancellationToken::new();
            other.cancel_with("earlier");
            if below {
                other = other.child_token();
            }
            tick(SECOND);
            let linked = CancellationToken::linked([&timed, &other]);
            assert_eq!(reason(&linked).unwrap(), "earlier");
        }
    }
}
