//! Tokens of several parents, while parents are cancelled or the token is dropped.

use super::{CountingWaker, check_waiter, model, poll, reason};
use crate::CancellationToken;
use loom::thread;

/// Two roots.
fn parents() -> [CancellationToken; 2] {
    [CancellationToken::new(), CancellationToken::new()]
}

#[test]
fn a_linked_token_made_during_a_cancel_is_cancelled_and_its_waiter_woken() {
    model(|| {
        let [one, other] = parents();
        let canceller = thread::spawn({
            let other = other.clone();
            move || other.cancel_with("other")
        });
        let linked = CancellationToken::linked([&one, &other]);
        let flag = CountingWaker::new();
        let mut cancelled = linked.clone().cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        canceller.join().unwrap();
        assert_eq!(reason(&linked), "other");
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn all_agree_on_the_reason_of_a_linked_token_whose_parents_are_cancelled_at_once() {
    model(|| {
        let [one, other] = parents();
        let linked = CancellationToken::linked([&one, &other]);
        let cancel_one = thread::spawn(move || one.cancel_with("one"));
        let cancel_other = thread::spawn(move || other.cancel_with("other"));
        let early = linked.stop_reason().map(|reason| reason.to_string());
        assert!(cancel_one.join().unwrap() && cancel_other.join().unwrap());
        let late = reason(&linked);
        assert!(["one", "other"].contains(&&*late));
        assert!(early.is_none_or(|early| early == late));
    });
}

#[test]
fn a_waiter_on_a_linked_token_is_woken_once_though_both_parents_are_cancelled_at_once() {
    model(|| {
        let [one, other] = parents();
        let linked = CancellationToken::linked([&one, &other]);
        let flag = CountingWaker::new();
        let mut cancelled = linked.cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        let cancel_one = thread::spawn(move || one.cancel());
        other.cancel();
        cancel_one.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn a_parent_whose_losing_cancel_has_returned_precedes_one_that_is_cancelled_after_that() {
    model(|| {
        let [one, other] = parents();
        let linked = CancellationToken::linked([&other, &one]);
        let winner = thread::spawn({
            let one = one.clone();
            move || one.cancel_with("one")
        });
        one.cancel_with("one");
        other.cancel_with("other");
        assert_eq!(reason(&linked), "one");
        winner.join().unwrap();
        assert_eq!(reason(&linked), "one");
    });
}

#[test]
fn a_linked_token_can_be_dropped_while_its_parents_are_cancelled() {
    model(|| {
        let [one, other] = parents();
        let linked = CancellationToken::linked([&one, &other]);
        // The neighbour in a parent's list, after it.
        let flag = CountingWaker::new();
        let mut neighbour = one.child_token().cancelled_owned();
        let first_poll = poll(&mut neighbour, &flag);
        let cancel_one = thread::spawn(move || one.cancel());
        let cancel_other = thread::spawn(move || other.cancel());
        drop(linked);
        cancel_one.join().unwrap();
        cancel_other.join().unwrap();
        check_waiter(first_poll, neighbour, &flag);
    });
}

#[test]
fn a_linked_token_of_a_parent_and_its_child_has_the_reason_of_the_first_check() {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let linked = CancellationToken::linked([&child, &root]);
        let cancel_root = thread::spawn(move || root.cancel_with("root"));
        let won = child.cancel_with("child");
        let early = reason(&linked);
        cancel_root.join().unwrap();
        assert_eq!(reason(&linked), early);
        // If the child's cancel won, it came before the root's, or the root's did not see it.
        assert!(won || early == "root");
    });
}
