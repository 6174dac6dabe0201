//! How costs grow with the ancestry (T14). There are so many tokens that quadratic work takes minutes, and linear work
//! a fraction of a second: a test that breaks the law does not end.

use crate::{
    residue::{NOTHING, cost},
    support::{Wakes, poll as poll_stream},
};
use futures::stream;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use stopcock::{CancelStreamExt, CancellationToken, CancelledOwned};

const MANY: usize = if cfg!(miri) { 50 } else { 100_000 };

/// The number of repetitions of what takes [`MANY`] steps.
const SOME: usize = 20;

fn poll(future: &mut (impl Future<Output = ()> + Unpin), wakes: &Arc<Wakes>) -> Poll<()> {
    let waker = Waker::from(Arc::clone(wakes));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

fn waiter(token: &CancellationToken, wakes: &Arc<Wakes>) -> CancelledOwned {
    let mut cancelled = token.clone().cancelled_owned();
    assert!(poll(&mut cancelled, wakes).is_pending());
    cancelled
}

/// From the root to the leaf.
fn chain(root: &CancellationToken, length: usize) -> Vec<CancellationToken> {
    let mut tokens = vec![root.clone()];
    while tokens.len() < length {
        tokens.push(tokens[tokens.len() - 1].child_token());
    }
    tokens
}

fn last(tokens: &[CancellationToken]) -> &CancellationToken {
    &tokens[tokens.len() - 1]
}

/// Each linked to the one before it and to a common one.
fn joints(shared: &CancellationToken, count: usize) -> Vec<CancellationToken> {
    let mut tokens = vec![CancellationToken::new()];
    for _ in 0..count {
        tokens.push(CancellationToken::linked([last(&tokens), shared]));
    }
    tokens
}

fn check_registering_at_every_level(root: &CancellationToken) {
    let wakes = Wakes::new();
    let mut token = root.clone();
    let mut guests = Vec::new();
    for _ in 0..MANY {
        token = token.child_token();
        guests.push((token.on_cancel(|_| ()), waiter(&token, &wakes)));
    }
    root.cancel();
    assert_eq!(wakes.count(), MANY);
    for (registration, _) in guests {
        assert!(!registration.unregister());
    }
}

#[test]
fn to_register_at_every_level_of_a_growing_chain_is_linear_in_all() {
    check_registering_at_every_level(&CancellationToken::new());
}

#[test]
fn to_register_at_every_level_below_a_link_is_linear_in_all() {
    let [one, other] = [CancellationToken::new(), CancellationToken::new()];
    check_registering_at_every_level(&CancellationToken::linked([&one, &other]));
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn to_register_at_every_level_below_a_deadline_is_linear_in_all() {
    use std::time::Duration;

    let timed = CancellationToken::with_timeout(Duration::from_secs(1));
    check_registering_at_every_level(&timed);
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn to_make_a_growing_chain_of_later_deadlines_is_linear_in_all() {
    use std::time::Duration;
    let root = CancellationToken::with_timeout(Duration::from_secs(1));
    let mut token = root.clone();
    for _ in 0..MANY {
        token = token.child_with_timeout(Duration::from_secs(2));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(token.is_cancelled());
}

#[test]
fn to_register_at_every_level_of_a_growing_line_of_links_is_linear_in_all() {
    let shared = chain(&CancellationToken::new(), MANY);
    let wakes = Wakes::new();
    let tokens = joints(last(&shared), MANY);
    let _waiters: Vec<_> = tokens.iter().map(|token| waiter(token, &wakes)).collect();
    tokens[0].cancel();
    assert_eq!(wakes.count(), MANY + 1);
}

/// Each callback records whether a cancel has run it.
#[test]
fn to_drop_a_chain_with_a_callback_at_every_level_is_linear_in_all() {
    for of_links in [true, false] {
        let root = CancellationToken::new();
        let mut tokens = match of_links {
            true => joints(&root, MANY),
            false => chain(&root, MANY),
        };
        for token in &tokens {
            token.on_cancel(|_| unreachable!()).detach();
        }
        drop(tokens.drain(..MANY / 2));
        while tokens.pop().is_some() {}
    }
}

#[test]
fn a_check_under_many_links_that_share_a_chain_is_linear_and_allocates_nothing() {
    let shared = chain(&CancellationToken::new(), MANY);
    let tokens = joints(last(&shared), MANY);
    for _ in 0..SOME {
        assert_eq!(cost(|| last(&tokens).is_cancelled()), NOTHING);
        assert_eq!(cost(|| last(&tokens).stop_reason()), NOTHING);
    }
    // The next check is as fast.
    assert!(shared[0].cancel_with("the first of the chain"));
    let reason = last(&tokens).stop_reason().unwrap();
    assert_eq!(reason.to_string(), "the first of the chain");
}

#[test]
fn a_check_under_many_links_that_share_a_chain_at_different_levels_is_linear() {
    let shared = chain(&CancellationToken::new(), MANY);
    let leaves = shared.iter().map(CancellationToken::child_token);
    let mut token = CancellationToken::new();
    for leaf in leaves {
        token = CancellationToken::linked([&token, &leaf]);
    }
    for _ in 0..SOME {
        assert_eq!(cost(|| token.is_cancelled()), NOTHING);
    }
}

#[test]
fn a_check_of_a_token_with_many_parents_allocates_nothing() {
    const PARENTS: usize = if cfg!(miri) { 30 } else { 1_000 };

    let root = CancellationToken::new();
    let of_one_root: Vec<_> = (0..PARENTS).map(|_| root.child_token()).collect();
    let roots: Vec<_> = (0..PARENTS).map(|_| CancellationToken::new()).collect();
    let of_many_roots: Vec<_> = roots
        .iter()
        .map(|root| root.child_token().child_token())
        .collect();
    let links: Vec<_> = roots
        .iter()
        .map(|other| CancellationToken::linked([&root, other]))
        .collect();
    for parents in [of_one_root, roots.clone(), of_many_roots, links] {
        let token = CancellationToken::linked(parents).child_token();
        assert_eq!(cost(|| assert!(!token.is_cancelled())), NOTHING);
        assert_eq!(cost(|| assert!(token.check().is_ok())), NOTHING);
    }
}

#[test]
fn a_hold_under_many_links_that_share_a_chain_is_linear() {
    let shared = chain(&CancellationToken::new(), MANY);
    let tokens = joints(last(&shared), MANY);
    let hold = || stream::pending::<()>().take_until_cancelled(last(&tokens));
    (1..SOME).for_each(|_| drop(hold()));
    let mut adapter = hold();
    let wakes = Wakes::new();
    let mut settled = shared[0].cancel_and_settle();
    assert!(poll(&mut settled, &wakes).is_pending());
    assert!(poll_stream(Pin::new(&mut adapter)).is_ready());
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut settled, &wakes).is_ready());
}

/// With another parent at this depth.
fn check_cancel_of_links(others: Vec<&CancellationToken>) {
    let root = CancellationToken::new();
    let wakes = Wakes::new();
    let waiters: Vec<_> = others
        .into_iter()
        .map(|other| waiter(&CancellationToken::linked([&root, other]), &wakes))
        .collect();
    root.cancel();
    assert_eq!(wakes.count(), waiters.len());
}

#[test]
fn a_cancel_of_many_links_whose_other_parent_is_deep_is_linear_in_all() {
    let deep = chain(&CancellationToken::new(), MANY);
    check_cancel_of_links(vec![last(&deep); MANY]);
}

#[test]
fn a_cancel_of_many_links_whose_other_parents_are_a_chain_is_linear_in_all() {
    let deep = chain(&CancellationToken::new(), MANY);
    check_cancel_of_links(deep.iter().collect());
}

#[test]
fn a_cancel_of_many_links_whose_other_parent_is_under_many_links_is_linear_in_all() {
    let deep = joints(&CancellationToken::new(), MANY);
    check_cancel_of_links(vec![last(&deep); MANY]);
}

/// The deadline of a token with several parents is that of one of them.
#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_link_to_one_cancelled_and_one_born_past_its_deadline_later_has_the_reason_of_the_first()
{
    use tokio::time::{Duration, Instant, advance};

    advance(Duration::from_secs(10)).await;
    let past = Instant::now() - Duration::from_secs(5);
    let cancelled = CancellationToken::new();
    cancelled.cancel_with("first");
    let over = CancellationToken::with_deadline(past);
    for parents in [[&cancelled, &over], [&over, &cancelled]] {
        let link = CancellationToken::linked(parents);
        assert_eq!(link.stop_reason().unwrap().to_string(), "first");
    }
}

/// What a cancel has stored for one parent is not used for another one that was made at the same address.
#[test]
fn a_cancel_on_its_way_gives_each_link_the_reason_of_the_parent_cancelled_first() {
    let root = CancellationToken::new();
    let deep = chain(&CancellationToken::new(), 40);
    let wakes = Wakes::new();
    let link = |other: &CancellationToken| CancellationToken::linked([&root, other]);
    let before = link(last(&deep));
    let _first = waiter(&before, &wakes);
    let late = deep[10].clone();
    before
        .on_cancel(move |_| assert!(late.cancel_with("while the root's is on its way")))
        .detach();
    let after = link(last(&deep));
    let _second = waiter(&after, &wakes);
    assert!(root.cancel_with("root"));
    assert_eq!(before.stop_reason().unwrap().to_string(), "root");
    assert_eq!(after.stop_reason().unwrap().to_string(), "root");
}
