//! `CancellationToken`, its futures and its guard: the laws T1 to T5, T7, T11 and T12. T8 is in `residue`, T9 and T10 in `depth`.

use crate::{
    sequences::sequences,
    support::{Hooks, Wakes, panic_of},
};
use std::{
    collections::HashSet,
    error::Error,
    fmt::{self, Display, Formatter},
    future::Future,
    hint,
    mem::{self, ManuallyDrop},
    pin::Pin,
    ptr,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker},
    thread,
};
use stopcock::{CancellationToken, CancelledOwned, StopReason};

pub(crate) fn poll(
    future: &mut (impl Future<Output = ()> + Unpin),
    wakes: &Arc<Wakes>,
) -> Poll<()> {
    poll_with(future, &Waker::from(Arc::clone(wakes)))
}

pub(crate) fn poll_with(
    future: &mut (impl Future<Output = ()> + Unpin),
    waker: &Waker,
) -> Poll<()> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

pub(crate) fn reason(token: &CancellationToken) -> Option<String> {
    token.stop_reason().map(|reason| reason.to_string())
}

/// A waiter on `token` that has been polled once, and is pending.
pub(crate) fn waiter(token: &CancellationToken) -> (CancelledOwned, Arc<Wakes>) {
    let wakes = Wakes::new();
    let mut cancelled = token.clone().cancelled_owned();
    assert!(poll(&mut cancelled, &wakes).is_pending());
    (cancelled, wakes)
}

/// root, middle, leaf.
pub(crate) fn chain() -> [CancellationToken; 3] {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    [root, middle, leaf]
}

#[test]
fn a_new_token_is_not_cancelled() {
    for token in [CancellationToken::new(), CancellationToken::default()] {
        for token in [token.child_token(), token] {
            assert!(!token.is_cancelled());
            assert!(token.stop_reason().is_none());
            assert!(token.check().is_ok());
        }
    }
}

#[test]
fn a_plain_cancel_has_the_reason_cancelled() {
    let token = CancellationToken::new();
    token.cancel();
    assert!(token.is_cancelled());
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
    assert!(matches!(token.check(), Err(StopReason::Cancelled)));
}

#[test]
fn the_first_cancel_wins_and_its_reason_stays() {
    let token = CancellationToken::new();
    assert!(token.cancel_with("first"));
    assert!(!token.cancel_with("second"));
    token.cancel();
    assert_eq!(reason(&token).unwrap(), "first");
    assert_eq!(token.check().unwrap_err().to_string(), "first");
}

#[test]
fn a_reason_of_ones_own_can_be_taken_back_out_anywhere_below() {
    #[derive(Debug)]
    struct UserLeft(u32);

    impl Display for UserLeft {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            write!(f, "user {} left", self.0)
        }
    }

    impl Error for UserLeft {}

    let [root, _, leaf] = chain();
    root.cancel_with(StopReason::custom(UserLeft(7)));
    let reason = leaf.stop_reason().unwrap();
    assert_eq!(reason.downcast_ref::<UserLeft>().unwrap().0, 7);
}

#[test]
#[expect(
    clippy::mutable_key_type,
    reason = "it is hashed by what it is, not by its state"
)]
fn clones_are_the_same_token_and_children_are_not() {
    let [root, middle, _] = chain();
    let clone = root.clone();
    assert_eq!(root, clone);
    assert_ne!(root, middle);
    assert_ne!(root, CancellationToken::new());
    assert_ne!(root.child_token(), root.child_token());

    let set: HashSet<_> = [root.clone(), clone.clone(), middle.clone()].into();
    assert_eq!(set.len(), 2);
    assert!(set.contains(&root) && set.contains(&middle));
    assert!(!set.contains(&root.child_token()));

    clone.cancel_with("by a clone");
    assert_eq!(reason(&root).unwrap(), "by a clone");
    assert_eq!(root, clone, "what it is does not change with its state");
}

#[test]
fn debug_says_whether_and_why() {
    let token = CancellationToken::new();
    let waiting = format!("{token:?} {:?}", token.cancelled());
    assert!(!waiting.contains("ConsumerDropped"));
    token.cancel_with(StopReason::ConsumerDropped);
    let guard = token.clone().drop_guard();
    for text in [
        format!("{token:?}"),
        format!("{:?}", token.cancelled()),
        format!("{:?}", token.clone().cancelled_owned()),
        format!("{guard:?}"),
    ] {
        assert!(text.contains("ConsumerDropped"), "{text}");
    }
}

#[test]
fn a_cancel_propagates_down_and_never_up_or_sideways() {
    let [root, middle, leaf] = chain();
    let [aunt, sibling] = [root.child_token(), middle.child_token()];
    assert!(leaf.cancel_with("leaf"));
    assert_eq!(reason(&leaf).unwrap(), "leaf");
    for token in [&root, &middle, &aunt, &sibling] {
        assert!(!token.is_cancelled());
    }
    assert!(middle.cancel_with("middle"));
    assert_eq!(reason(&middle).unwrap(), "middle");
    assert_eq!(reason(&sibling).unwrap(), "middle");
    assert_eq!(reason(&leaf).unwrap(), "leaf", "it had one");
    for token in [&root, &aunt] {
        assert!(!token.is_cancelled());
    }
}

#[test]
fn a_reason_of_a_descendant_does_not_reach_the_siblings_of_its_parent() {
    let root = CancellationToken::new();
    let [first, second] = [root.child_token(), root.child_token()];
    let below_first = first.child_token();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    for token in [&below_first, &second] {
        let reasons = Arc::clone(&reasons);
        let note = move |reason: &StopReason| reasons.lock().unwrap().push(reason.to_string());
        token.on_cancel(note).detach();
    }
    below_first.cancel_with("below");
    root.cancel_with("root");
    assert_eq!(*reasons.lock().unwrap(), ["below", "root"]);
    assert_eq!(reason(&second).unwrap(), "root");
}

#[test]
fn a_child_of_a_cancelled_token_is_born_cancelled_with_its_reason() {
    let [root, middle, leaf] = chain();
    middle.cancel_with("middle");
    root.cancel_with("root");
    for (parent, why) in [(&root, "root"), (&middle, "middle"), (&leaf, "middle")] {
        let child = parent.child_token();
        assert!(child.is_cancelled());
        assert!(!child.cancel_with("too late"));
        assert_eq!(reason(&child).unwrap(), why);
        let wakes = Wakes::new();
        assert!(poll(&mut child.cancelled(), &wakes).is_ready());
        assert_eq!(wakes.count(), 0);
    }
}

#[test]
fn a_cancel_below_a_cancelled_ancestor_loses_to_it() {
    for look_first in [false, true] {
        let [root, middle, leaf] = chain();
        root.cancel_with("root");
        if look_first {
            assert!(middle.is_cancelled());
        }
        assert!(!leaf.cancel_with("leaf"));
        assert!(!middle.cancel_with("middle"));
        for token in [&leaf, &middle, &root] {
            assert_eq!(reason(token).unwrap(), "root");
        }
    }
}

/// T12.
#[test]
fn dropping_a_middle_token_cuts_nothing() {
    let [root, middle, leaf] = chain();
    drop(middle);
    let (mut cancelled, wakes) = waiter(&leaf);
    root.cancel_with("root");
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut cancelled, &wakes).is_ready());
    assert_eq!(reason(&leaf).unwrap(), "root");
}

#[test]
fn a_middle_token_dropped_after_it_was_cancelled_still_counts() {
    let [root, middle, leaf] = chain();
    middle.cancel_with("middle");
    drop(middle);
    root.cancel_with("root");
    assert_eq!(reason(&leaf).unwrap(), "middle");
}

#[test]
fn dropping_every_handle_cancels_nothing_and_wakes_no_task() {
    let [root, middle, leaf] = chain();
    let (cancelled, wakes) = waiter(&leaf);
    drop([root, middle, leaf]);
    assert_eq!(wakes.count(), 0);
    drop(cancelled);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

#[test]
fn a_waiter_is_woken_once_by_a_cancel_of_its_token_or_of_any_ancestor() {
    for above in 0..3 {
        for below in above..3 {
            let tokens = chain();
            let (mut cancelled, wakes) = waiter(&tokens[below]);
            tokens[above].cancel();
            assert_eq!(wakes.count(), 1);
            assert!(poll(&mut cancelled, &wakes).is_ready());
            tokens[0].cancel();
            assert_eq!(wakes.count(), 1);
            assert_eq!(Arc::strong_count(&wakes), 1, "the waker is gone");
        }
    }
}

#[test]
fn a_waiter_is_left_alone_by_a_cancel_below_or_beside_it() {
    let [root, middle, leaf] = chain();
    let (mut at_root, root_wakes) = waiter(&root);
    let (mut beside, beside_wakes) = waiter(&middle.child_token());
    let (_below, _) = waiter(&leaf);
    leaf.cancel();
    assert_eq!((root_wakes.count(), beside_wakes.count()), (0, 0));
    assert!(poll(&mut at_root, &root_wakes).is_pending());
    assert!(poll(&mut beside, &beside_wakes).is_pending());
}

#[test]
fn a_waiter_that_came_after_others_had_left_is_woken() {
    let [root, _, leaf] = chain();
    drop(waiter(&leaf));
    let (_cancelled, wakes) = waiter(&leaf);
    root.cancel();
    assert_eq!(wakes.count(), 1);
}

#[test]
fn the_waiters_of_a_token_are_woken_in_the_order_in_which_they_came() {
    struct Entry(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Entry {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    let token = CancellationToken::new();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for place in 0..20 {
        let mut cancelled = token.cancelled();
        let waker = Waker::from(Arc::new(Entry(place, Arc::clone(&woken))));
        assert!(poll_with(&mut cancelled, &waker).is_pending());
        waiters.push(cancelled);
    }
    drop(waiters.remove(7));
    token.cancel();
    let expected: Vec<usize> = (0..20).filter(|place| *place != 7).collect();
    assert_eq!(*woken.lock().unwrap(), expected);
}

#[test]
fn only_the_latest_waker_is_woken() {
    let [root, _, leaf] = chain();
    let mut cancelled = leaf.cancelled();
    let wakes = [Wakes::new(), Wakes::new(), Wakes::new()];
    for wakes in [&wakes[0], &wakes[0], &wakes[1], &wakes[0], &wakes[2]] {
        assert!(poll(&mut cancelled, wakes).is_pending());
    }
    assert_eq!(Arc::strong_count(&wakes[0]), 1, "it is not kept");
    assert_eq!(Arc::strong_count(&wakes[1]), 1, "it is not kept");
    root.cancel();
    assert_eq!(wakes.each_ref().map(|wakes| wakes.count()), [0, 0, 1]);
}

#[test]
fn polling_again_with_the_same_waker_keeps_one_of_it() {
    let token = CancellationToken::new();
    let (mut cancelled, wakes) = waiter(&token);
    for _ in 0..10 {
        assert!(poll(&mut cancelled, &wakes).is_pending());
    }
    assert_eq!(Arc::strong_count(&wakes), 2);
    token.cancel();
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_waiter_that_was_moved_is_woken() {
    let token = CancellationToken::new();
    let (cancelled, wakes) = waiter(&token);
    let mut moved = Box::new(cancelled);
    assert!(poll(&mut moved, &wakes).is_pending());
    token.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut moved, &wakes).is_ready());
}

#[test]
fn a_waiter_that_is_dropped_leaves_nothing_and_is_not_woken() {
    let [root, _, leaf] = chain();
    let (cancelled, wakes) = waiter(&leaf);
    let (_stays, stays_wakes) = waiter(&leaf);
    drop(cancelled);
    assert_eq!(Arc::strong_count(&wakes), 1);
    root.cancel();
    assert_eq!((wakes.count(), stays_wakes.count()), (0, 1));
}

#[test]
fn a_waiter_that_was_never_polled_keeps_nothing_and_is_ready_after_the_cancel() {
    let token = CancellationToken::new();
    let (mut borrowing, mut owning) = (token.cancelled(), token.clone().cancelled_owned());
    token.cancel();
    assert!(poll(&mut borrowing, &Wakes::new()).is_ready());
    assert!(poll(&mut owning, &Wakes::new()).is_ready());
}

#[test]
fn a_waiter_that_was_ready_is_ready_again() {
    let token = CancellationToken::new();
    token.cancel();
    let mut cancelled = token.cancelled();
    for _ in 0..3 {
        assert!(poll(&mut cancelled, &Wakes::new()).is_ready());
    }
}

#[test]
fn a_waiter_that_is_forgotten_is_woken_and_its_waker_dropped() {
    let token = CancellationToken::new();
    let wakes = Wakes::new();
    let mut cancelled = token.cancelled();
    assert!(poll(&mut cancelled, &wakes).is_pending());
    mem::forget(cancelled);
    token.cancel();
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 1));
}

#[test]
fn the_waker_of_a_waiter_that_was_forgotten_is_dropped_with_the_token() {
    let token = CancellationToken::new();
    let wakes = Wakes::new();
    let mut cancelled = token.cancelled();
    assert!(poll(&mut cancelled, &wakes).is_pending());
    mem::forget(cancelled);
    drop(token);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

#[test]
fn a_guard_cancels_when_dropped() {
    let token = CancellationToken::new();
    let guard = token.clone().drop_guard();
    assert!(!token.is_cancelled());
    drop(guard);
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
}

#[test]
fn a_disarmed_guard_gives_its_token_back_as_it_was() {
    let token = CancellationToken::new();
    let disarmed = token.clone().drop_guard().disarm();
    assert_eq!(disarmed, token);
    drop(disarmed);
    assert!(!token.is_cancelled());
}

#[test]
fn a_guard_cancels_while_a_panic_unwinds() {
    let token = CancellationToken::new();
    let (_cancelled, wakes) = waiter(&token);
    let guarded = token.clone();
    let message = panic_of(|| {
        let _guard = guarded.drop_guard();
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    assert!(token.is_cancelled());
    assert_eq!(wakes.count(), 1);
}

/// T2 and T4: at the first wake the whole subtree is cancelled already, and nothing else is.
#[test]
fn while_a_waker_runs_the_whole_subtree_reports_cancelled() {
    const PARENTS: [usize; 7] = [0, 0, 0, 1, 1, 2, 3];

    for cancelled in 0..PARENTS.len() {
        let mut tokens = vec![CancellationToken::new()];
        for parent in &PARENTS[1..] {
            tokens.push(tokens[*parent].child_token());
        }
        let tokens = Arc::new(tokens);
        let mut below = [false; PARENTS.len()];
        for node in 0..PARENTS.len() {
            below[node] = node == cancelled || (node > 0 && below[PARENTS[node]]);
        }

        let woken = Arc::new(AtomicUsize::new(0));
        let mut waiters = Vec::new();
        for token in tokens.iter() {
            let hooks = Hooks::new();
            let (seen, woken) = (Arc::clone(&tokens), Arc::clone(&woken));
            hooks.on_wake.set(move || {
                for (node, token) in seen.iter().enumerate() {
                    assert_eq!(token.is_cancelled(), below[node]);
                    assert_eq!(reason(token).is_some(), below[node]);
                }
                woken.fetch_add(1, SeqCst);
            });
            let mut cancelled = token.cancelled();
            assert!(poll_with(&mut cancelled, &hooks.waker()).is_pending());
            waiters.push((cancelled, hooks));
        }
        assert!(tokens[cancelled].cancel_with("the reason"));
        let expected = below.iter().filter(|below| **below).count();
        assert_eq!(woken.load(SeqCst), expected);
    }
}

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

/// Where the wakers of all tasks lie, one after the other, as those do that a runtime lends to a poll. A clone is a waker
/// of the task's own, somewhere else.
struct Place(Mutex<Arc<Wakes>>);

#[expect(
    unsafe_code,
    reason = "the clone of one of std's wakers lies where that one does"
)]
impl Place {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(Self::cloned, |_| {}, |_| {}, |_| {});

    fn waker_of(&self, task: &Arc<Wakes>) -> Waker {
        *self.0.lock().unwrap() = Arc::clone(task);
        // SAFETY: the data is a `Place`, as `cloned` takes it, and each test keeps its own for as long as it polls.
        unsafe { Waker::new(ptr::from_ref(self).cast(), &Self::VTABLE) }
    }

    unsafe fn cloned(data: *const ()) -> RawWaker {
        // SAFETY: the data is a `Place` that is still there.
        let place = unsafe { &*data.cast::<Self>() };
        let clone = ManuallyDrop::new(Waker::from(Arc::clone(&place.0.lock().unwrap())));
        RawWaker::new(clone.data(), clone.vtable())
    }
}

#[test]
fn a_waker_that_lies_where_an_earlier_one_lay_is_another_one() {
    let token = CancellationToken::new();
    let (first, second) = (Wakes::new(), Wakes::new());
    let place = Place(Mutex::new(Arc::clone(&first)));
    let mut cancelled = Box::pin(token.cancelled());
    assert!(poll_with(&mut cancelled, &place.waker_of(&first)).is_pending());
    assert!(poll_with(&mut cancelled, &place.waker_of(&second)).is_pending());
    token.cancel();
    assert_eq!((first.count(), second.count()), (0, 1));
}

/// When foreign code runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// A waiter's waker is cloned at its first poll,
    Cloned,
    /// or at a later one, with another waker,
    ClonedAgain,
    /// for which the earlier one is dropped.
    Replaced,
    /// The waiter is dropped.
    Left,
    /// The root is cancelled,
    WokenByRoot,
    /// or the waiter's own token.
    Woken,
    /// The waiter is refused, as its token was cancelled while its waker was cloned,
    Refused,
    /// or the root.
    RefusedByRoot,
    /// The waiter is refused another waker.
    RefusedAgain,
}

const MOMENTS: [Moment; 9] = [
    Moment::Cloned,
    Moment::ClonedAgain,
    Moment::Replaced,
    Moment::Left,
    Moment::WokenByRoot,
    Moment::Woken,
    Moment::Refused,
    Moment::RefusedByRoot,
    Moment::RefusedAgain,
];

/// What foreign code does to a token.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Cancel,
    Look,
    MakeChild,
    Wait,
    DropHandle,
}

const DEEDS: [Deed; 5] = [
    Deed::Cancel,
    Deed::Look,
    Deed::MakeChild,
    Deed::Wait,
    Deed::DropHandle,
];

impl Deed {
    fn hold_against(self, token: CancellationToken) {
        match self {
            Self::Cancel => token.cancel(),
            Self::Look => drop((token.is_cancelled(), token.stop_reason())),
            Self::MakeChild => drop(token.child_token().child_token()),
            Self::Wait => {
                let child = token.child_token();
                let (mut here, mut below) = (token.cancelled(), child.cancelled());
                for _ in 0..2 {
                    let _ = poll(&mut here, &Wakes::new());
                    let _ = poll(&mut below, &Wakes::new());
                }
            }
            Self::DropHandle => drop(token),
        }
    }
}

/// T7: were a lock held at `moment`, this would wait for itself. `which` is the root, the waiter's token, or a leaf
/// below, of which foreign code then has the last handle.
fn check_reentry(moment: Moment, deed: Deed, which: usize) {
    let [root, middle, leaf] = chain();
    // All of them list their children.
    drop(waiter(&leaf));
    let target = [root.clone(), middle.clone(), leaf][which].clone();
    let done = Arc::new(AtomicBool::new(false));
    let foreign = {
        let done = Arc::clone(&done);
        move || {
            deed.hold_against(target);
            done.store(true, SeqCst);
        }
    };

    let hooks = Hooks::new();
    let waker = hooks.waker();
    let (other, other_wakes) = waiter(&middle);
    let mut cancelled = middle.cancelled();
    match moment {
        Moment::Cloned => {
            hooks.on_clone.set(foreign);
            let _ = poll_with(&mut cancelled, &waker);
        }
        Moment::ClonedAgain => {
            assert!(poll(&mut cancelled, &Wakes::new()).is_pending());
            hooks.on_clone.set(foreign);
            let _ = poll_with(&mut cancelled, &waker);
        }
        Moment::Replaced => {
            assert!(poll_with(&mut cancelled, &waker).is_pending());
            hooks.on_drop.set(foreign);
            let _ = poll(&mut cancelled, &Wakes::new());
        }
        Moment::Left => {
            assert!(poll_with(&mut cancelled, &waker).is_pending());
            hooks.on_drop.set(foreign);
            drop(cancelled);
        }
        Moment::WokenByRoot | Moment::Woken => {
            assert!(poll_with(&mut cancelled, &waker).is_pending());
            hooks.on_wake.set(foreign);
            match moment {
                Moment::Woken => assert!(middle.cancel_with("middle")),
                _ => assert!(root.cancel_with("root")),
            }
        }
        Moment::Refused | Moment::RefusedByRoot | Moment::RefusedAgain => {
            if moment == Moment::RefusedAgain {
                assert!(poll(&mut cancelled, &Wakes::new()).is_pending());
            }
            let above = match moment {
                Moment::RefusedByRoot => root.clone(),
                _ => middle.clone(),
            };
            hooks.on_clone.set(move || above.cancel());
            hooks.on_drop.set(foreign);
            assert!(poll_with(&mut cancelled, &waker).is_ready());
        }
    }
    let case = format!("{moment:?}: {deed:?} {which}");
    assert!(done.load(SeqCst), "{case}");
    drop(waker);
    root.cancel();
    assert_eq!(other_wakes.count(), 1, "{case}");
    drop(other);
    assert_eq!(Arc::strong_count(&other_wakes), 1, "{case}");
    assert!(middle.is_cancelled(), "{case}");
}

#[test]
fn foreign_code_may_do_anything_to_a_token_its_ancestor_or_its_descendant() {
    for moment in MOMENTS {
        for deed in DEEDS {
            for which in 0..3 {
                check_reentry(moment, deed, which);
            }
        }
    }
}

/// Between its check and its registration, and with no list above that has it.
#[test]
fn a_first_waiter_whose_ancestor_is_cancelled_while_its_waker_is_cloned_is_ready() {
    for above in 0..3 {
        let tokens = chain();
        let cancelled = tokens[above].clone();
        let hooks = Hooks::new();
        hooks.on_clone.set(move || cancelled.cancel());
        let mut waits = tokens[2].cancelled();
        assert!(poll_with(&mut waits, &hooks.waker()).is_ready());
        assert_eq!(Arc::strong_count(&hooks), 1, "the clone is gone");
    }
}

#[test]
fn a_wake_may_drop_its_own_waiter_and_with_it_the_last_handle() {
    for neighbours in 0..3 {
        let root = CancellationToken::new();
        let middle = root.child_token();
        let hooks = Hooks::new();
        let mut cancelled = middle.child_token().cancelled_owned();
        assert!(poll_with(&mut cancelled, &hooks.waker()).is_pending());
        let waiters: Vec<_> = (0..neighbours).map(|_| waiter(&middle)).collect();
        hooks.on_wake.set(move || drop((cancelled, middle)));
        root.cancel();
        for (_, wakes) in &waiters {
            assert_eq!(wakes.count(), 1);
        }
        drop(waiters);
        assert_eq!(Arc::strong_count(&hooks), 1);
    }
}

#[test]
fn a_wake_may_drop_a_neighbour_that_was_not_woken_yet() {
    let [root, middle, leaf] = chain();
    let hooks = Hooks::new();
    let mut first = middle.cancelled();
    assert!(poll_with(&mut first, &hooks.waker()).is_pending());
    let (neighbour, neighbour_wakes) = waiter(&middle);
    let (below, below_wakes) = waiter(&leaf);
    let (stays, stays_wakes) = waiter(&root.child_token());
    hooks.on_wake.set(move || drop((neighbour, below, leaf)));
    root.cancel();
    assert!(neighbour_wakes.count() <= 1 && below_wakes.count() <= 1);
    assert_eq!(stays_wakes.count(), 1);
    drop(stays);
    for wakes in [neighbour_wakes, below_wakes, stays_wakes] {
        assert_eq!(Arc::strong_count(&wakes), 1);
    }
}

#[test]
fn a_cancel_within_a_wake_loses_and_finds_everything_cancelled() {
    let [root, middle, leaf] = chain();
    let hooks = Hooks::new();
    let mut first = root.cancelled();
    assert!(poll_with(&mut first, &hooks.waker()).is_pending());
    let (_below, wakes) = waiter(&leaf);
    let inner = [root.clone(), middle.clone(), leaf.clone()];
    hooks.on_wake.set(move || {
        for token in inner.iter().rev() {
            assert!(!token.cancel_with("inner"));
            assert_eq!(reason(token).unwrap(), "outer");
        }
    });
    assert!(root.cancel_with("outer"));
    assert_eq!(wakes.count(), 1);
}

/// An error is dropped under no lock either.
#[test]
fn the_error_of_a_losing_reason_may_do_anything_when_it_is_dropped() {
    #[derive(Debug)]
    struct CancelsOnDrop([CancellationToken; 3]);

    impl Display for CancelsOnDrop {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("an error")
        }
    }

    impl Error for CancelsOnDrop {}

    impl Drop for CancelsOnDrop {
        fn drop(&mut self) {
            for token in &self.0 {
                token.cancel();
                let _ = poll(&mut token.child_token().cancelled(), &Wakes::new());
            }
        }
    }

    for above in 0..3 {
        for below in above..3 {
            let tokens = chain();
            let (_cancelled, wakes) = waiter(&tokens[2]);
            tokens[above].cancel_with("first");
            let error = CancelsOnDrop(tokens.clone());
            assert!(!tokens[below].cancel_with(StopReason::custom(error)));
            assert_eq!(reason(&tokens[below]).unwrap(), "first");
            assert_eq!(wakes.count(), 1);
            assert!(tokens[0].is_cancelled(), "the error was dropped");
        }
    }
}

/// Pending waiters at `token`, of which the first and the third panic when woken.
fn panicking_waiters(token: &CancellationToken) -> (Vec<CancelledOwned>, [Arc<Wakes>; 2]) {
    let (second, second_wakes) = waiter(token);
    drop(second);
    let mut waiters = Vec::new();
    let fourth_wakes = Wakes::new();
    for waker in [
        panicking_waker("first"),
        Waker::from(Arc::clone(&second_wakes)),
        panicking_waker("third"),
        Waker::from(Arc::clone(&fourth_wakes)),
    ] {
        let mut cancelled = token.clone().cancelled_owned();
        assert!(poll_with(&mut cancelled, &waker).is_pending());
        waiters.push(cancelled);
    }
    (waiters, [second_wakes, fourth_wakes])
}

fn panicking_waker(message: &'static str) -> Waker {
    struct Panics(&'static str);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("{}", self.0);
        }
    }

    Waker::from(Arc::new(Panics(message)))
}

#[test]
fn a_panicking_waker_stops_no_other_and_the_first_panic_comes_out_once() {
    for which in 0..3 {
        let [root, middle, leaf] = chain();
        let token = [&root, &middle, &leaf][which];
        let (_waiters, panicking_wakes) = panicking_waiters(token);
        let (_below, below_wakes) = waiter(&leaf);
        let (_beside, beside_wakes) = waiter(&root.child_token());

        assert_eq!(panic_of(|| root.cancel_with("root")), "first");
        for wakes in panicking_wakes.iter().chain([&below_wakes, &beside_wakes]) {
            assert_eq!(wakes.count(), 1);
        }
        assert_eq!(reason(&leaf).unwrap(), "root");
        assert!(!root.cancel_with("again"), "and it has no panic any more");
    }
}

#[test]
fn a_panicking_waker_does_not_throw_into_an_unwinding() {
    let [root, _, leaf] = chain();
    let (_waiters, panicking_wakes) = panicking_waiters(&leaf);
    let guarded = root.clone();
    let message = panic_of(|| {
        let _guard = guarded.drop_guard();
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    for wakes in panicking_wakes {
        assert_eq!(wakes.count(), 1);
    }
    assert!(leaf.is_cancelled());
}

#[test]
fn a_token_works_on_after_a_waker_panicked_while_it_was_cloned_replaced_or_dropped() {
    let [root, _, leaf] = chain();
    let hooks = Hooks::new();
    let wakes = Wakes::new();
    let mut cancelled = leaf.cancelled();

    hooks.on_clone.set(|| panic!("cloned"));
    let cloned = panic_of(|| poll_with(&mut cancelled, &hooks.waker()));
    assert_eq!(cloned, "cloned");
    assert!(poll_with(&mut cancelled, &hooks.waker()).is_pending());
    hooks.on_drop.set(|| panic!("dropped"));
    assert_eq!(panic_of(|| poll(&mut cancelled, &wakes)), "dropped");
    assert!(poll(&mut cancelled, &wakes).is_pending());

    let mut leaves = leaf.cancelled();
    assert!(poll_with(&mut leaves, &hooks.waker()).is_pending());
    hooks.on_drop.set(|| panic!("dropped"));
    assert_eq!(panic_of(move || drop(leaves)), "dropped");

    root.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut cancelled, &wakes).is_ready());
}

#[test]
fn the_latest_waker_is_woken_though_the_drop_of_an_earlier_one_panicked() {
    let token = CancellationToken::new();
    let mut cancelled = token.cancelled();
    let (hooks, between) = (Hooks::new(), Wakes::new());
    let woken = Arc::new(AtomicBool::new(false));
    let waker = hooks.waker();
    assert!(poll_with(&mut cancelled, &waker).is_pending());
    hooks.on_drop.set(|| panic!("dropped"));
    assert_eq!(panic_of(|| poll(&mut cancelled, &between)), "dropped");
    assert!(poll_with(&mut cancelled, &waker).is_pending());

    hooks.on_wake.set({
        let woken = Arc::clone(&woken);
        move || woken.store(true, SeqCst)
    });
    token.cancel();
    assert!(woken.load(SeqCst));
    assert_eq!(between.count(), 0);
}

/// Only the call that loses has the error. It has to wake the waiters that it found all the same.
#[test]
fn a_losing_reason_that_panics_when_dropped_leaves_everything_cancelled() {
    for above in 0..3 {
        let tokens = chain();
        let (_cancelled, wakes) = waiter(&tokens[2]);
        tokens[above].cancel_with("first");
        let error = StopReason::custom(PanicsOnDrop);
        assert_eq!(panic_of(|| tokens[2].cancel_with(error)), "dropped");
        assert_eq!(reason(&tokens[2]).unwrap(), "first");
        assert_eq!(wakes.count(), 1);
    }
}

#[derive(Debug)]
struct PanicsOnDrop;

impl Display for PanicsOnDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an error")
    }
}

impl Error for PanicsOnDrop {}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Runs `round(thread, round)` on several threads, all of them in the same round.
pub(crate) fn in_step(threads: usize, rounds: usize, round: impl Fn(usize, usize) + Sync) {
    let arrived = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (arrived, round) = (&arrived, &round);
            scope.spawn(move || {
                for number in 0..rounds {
                    arrived.fetch_add(1, SeqCst);
                    let mut turns = 0;
                    while arrived.load(SeqCst) < (number + 1) * threads {
                        turns += 1;
                        if turns % 64 == 0 || cfg!(miri) {
                            thread::yield_now();
                        } else {
                            hint::spin_loop();
                        }
                    }
                    round(thread, number);
                }
            });
        }
    });
}

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
