//! A blocking call, between its thread and the future of its result.

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

/// Captured by a call and returned as its result. Counts its drop.
struct Output(Arc<AtomicUsize>);

impl Drop for Output {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A call, and how many results have been dropped.
fn call() -> (Arc<Call<Output>>, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    let output = Output(Arc::clone(&drops));
    (Call::new(move || output), drops)
}

fn poll(call: &Call<Output>, flag: &Arc<CountingWaker>) -> Poll<Output> {
    call.poll(&Context::from_waker(&Waker::from(Arc::clone(flag))))
}

#[test]
fn a_task_that_awaits_a_result_is_woken_or_finds_it() {
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
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn a_call_that_is_given_up_at_any_time_leaks_neither_captures_nor_a_result() {
    model(|| {
        let (call, drops) = call();
        let running = Arc::clone(&call);
        let thread = thread::spawn(move || running.run());
        let flag = CountingWaker::new();
        let first = poll(&call, &flag);
        call.abandon();
        thread.join().unwrap();
        drop(first);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn the_captures_of_a_call_that_has_not_begun_are_dropped_when_it_is_given_up() {
    model(|| {
        let (call, drops) = call();
        call.abandon();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        call.run();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}
