//! A call that blocks, between its thread and the future of its answer.

use super::{CountingWaker, model};
use crate::producer::Call;
use loom::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// What a call captures and then answers with: counts its drop.
struct Answer(Arc<AtomicUsize>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A call, and how many answers have been dropped.
fn call() -> (Arc<Call<Answer>>, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    let answer = Answer(Arc::clone(&drops));
    (Call::new(move || answer), drops)
}

fn poll(call: &Call<Answer>, flag: &Arc<CountingWaker>) -> Poll<Answer> {
    call.poll(&Context::from_waker(&Waker::from(Arc::clone(flag))))
}

#[test]
fn who_awaits_an_answer_is_woken_or_finds_it() {
    model(|| {
        let (call, drops) = call();
        let running = Arc::clone(&call);
        let thread = thread::spawn(move || running.run());
        let flag = CountingWaker::new();
        let first = poll(&call, &flag);
        thread.join().unwrap();
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
            assert!(poll(&call, &CountingWaker::new()).is_ready());
        }
        drop(first);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is gone");
    });
}

#[test]
fn given_up_at_any_time_a_call_leaves_neither_captures_nor_an_answer() {
    model(|| {
        let (call, drops) = call();
        let running = Arc::clone(&call);
        let thread = thread::spawn(move || running.run());
        let flag = CountingWaker::new();
        let first = poll(&call, &flag);
        call.give_up();
        thread.join().unwrap();
        drop(first);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is gone");
    });
}

#[test]
fn what_a_call_that_has_not_begun_captured_is_dropped_as_it_is_given_up() {
    model(|| {
        let (call, drops) = call();
        call.give_up();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        call.run();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}
