//! Checks that rely on a cached count, during cancels.

use super::{chain, model};
use crate::CancellationToken;
use loom::thread;

/// If a check finds the first token cancelled, so does a check of the second one after that.
fn check_order(above: &CancellationToken, below: &CancellationToken) {
    if above.is_cancelled() {
        assert!(
            below.is_cancelled(),
            "descendants are cancelled at the same time"
        );
    }
}

fn canceller(token: &CancellationToken) -> thread::JoinHandle<()> {
    let token = token.clone();
    thread::spawn(move || token.cancel())
}

#[test]
fn a_check_during_the_cancel_of_an_ancestor_sees_it_as_soon_as_the_ancestors_check_does() {
    model(|| {
        let [root, _, leaf] = chain();
        assert!(!leaf.is_cancelled(), "and that is cached");
        let canceller = canceller(&root);
        check_order(&root, &leaf);
        canceller.join().unwrap();
        assert!(leaf.is_cancelled());
    });
}

#[test]
fn a_check_that_caches_during_the_cancel_of_an_ancestor_does_not_hide_it() {
    model(|| {
        let [root, _, leaf] = chain();
        let canceller = canceller(&root);
        let _ = leaf.is_cancelled();
        check_order(&root, &leaf);
        canceller.join().unwrap();
        assert!(leaf.is_cancelled());
    });
}

#[test]
fn a_check_that_caches_during_a_cancel_of_its_own_token_does_not_hide_it() {
    model(|| {
        let [_, _, leaf] = chain();
        let canceller = canceller(&leaf);
        let was_cancelled = leaf.is_cancelled();
        if was_cancelled {
            assert!(leaf.is_cancelled());
        }
        canceller.join().unwrap();
        assert!(leaf.is_cancelled());
    });
}

#[test]
fn after_a_cancel_that_lost_the_descendants_are_cancelled() {
    model(|| {
        let [_, middle, leaf] = chain();
        assert!(!leaf.is_cancelled(), "and that is cached");
        let canceller = canceller(&middle);
        middle.cancel();
        assert!(leaf.is_cancelled());
        canceller.join().unwrap();
    });
}

#[test]
fn a_check_during_the_cancel_of_a_sibling_finds_nothing_until_the_parent_is_cancelled() {
    model(|| {
        let [root, sibling, _below] = chain();
        let child = root.child_token();
        let canceller = canceller(&sibling);
        assert!(!child.is_cancelled());
        canceller.join().unwrap();
        assert!(!child.is_cancelled());
        root.cancel();
        assert!(child.is_cancelled());
    });
}

#[test]
fn a_check_during_the_cancels_of_a_sibling_and_of_the_parent_finds_that_of_the_parent() {
    model(|| {
        let [root, sibling, _below] = chain();
        let child = root.child_token();
        let cancellers = [canceller(&sibling), canceller(&root)];
        let _ = child.is_cancelled();
        check_order(&root, &child);
        for canceller in cancellers {
            canceller.join().unwrap();
        }
        assert!(child.is_cancelled());
    });
}

#[test]
fn the_first_child_of_a_token_made_during_its_cancel_is_cancelled_when_that_has_returned() {
    model(|| {
        let root = CancellationToken::new();
        let parent = root.child_token();
        assert!(!parent.is_cancelled(), "and that is cached");
        let canceller = canceller(&parent);
        let child = parent.child_token();
        let _ = child.is_cancelled();
        check_order(&parent, &child);
        canceller.join().unwrap();
        assert!(child.is_cancelled());
    });
}

#[test]
fn the_child_of_a_token_that_is_seen_cancelled_is_cancelled_from_the_start() {
    model(|| {
        let root = CancellationToken::new();
        let parent = root.child_token();
        let canceller = canceller(&root);
        let was_cancelled = parent.is_cancelled();
        let child = parent.child_token();
        assert!(!was_cancelled || child.is_cancelled());
        canceller.join().unwrap();
        assert!(child.is_cancelled());
    });
}

#[test]
fn a_check_below_a_link_of_two_trees_finds_the_cancel_of_either() {
    model(|| {
        let [one, other] = [CancellationToken::new(), CancellationToken::new()];
        let leaf = CancellationToken::linked([&one, &other]).child_token();
        assert!(!leaf.is_cancelled(), "and that is cached");
        let canceller = canceller(&other);
        check_order(&other, &leaf);
        canceller.join().unwrap();
        assert!(leaf.is_cancelled());
    });
}

#[test]
fn a_check_that_caches_below_a_link_does_not_hide_a_cancel() {
    model(|| {
        let [one, other] = [CancellationToken::new(), CancellationToken::new()];
        let leaf = CancellationToken::linked([&one, &other]).child_token();
        let canceller = canceller(&other);
        let _ = leaf.is_cancelled();
        check_order(&other, &leaf);
        canceller.join().unwrap();
        assert!(leaf.is_cancelled());
    });
}
