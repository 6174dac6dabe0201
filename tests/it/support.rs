//! Scripted sources, hand-driven polls, and what became of both.

use futures::Stream;
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

/// Counts how often it was woken.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Polls a stream by hand.
    pub(crate) fn poll<S: Stream + ?Sized>(
        self: &Arc<Self>,
        stream: Pin<&mut S>,
    ) -> Poll<Option<S::Item>> {
        let waker = Waker::from(Arc::clone(self));
        stream.poll_next(&mut Context::from_waker(&waker))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// One poll by hand, by somebody who does not care for wake-ups.
pub(crate) fn poll<S: Stream + ?Sized>(stream: Pin<&mut S>) -> Poll<Option<S::Item>> {
    Wakes::new().poll(stream)
}

/// A source that does what its script says, a letter for a poll, and keeps its last waker.
///
/// `a` to `z`: that item. `-`: pending. `|`: the end. `!`: a panic. After its last letter: pending for ever.
pub(crate) struct Source {
    script: VecDeque<char>,
    record: Arc<Record>,
    hook: Box<dyn FnMut(Moment) + Send>,
}

/// When a source's hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// During this poll of the source, counted from 0.
    Poll(usize),
    Drop,
}

/// What happened to a source. It outlives it.
#[derive(Default)]
pub(crate) struct Record {
    polls: AtomicUsize,
    drops: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Source {
    pub(crate) fn new(script: &str) -> Self {
        Self::with_hook(script, |_| {})
    }

    pub(crate) fn with_hook(script: &str, hook: impl FnMut(Moment) + Send + 'static) -> Self {
        Self {
            script: script.chars().collect(),
            record: Arc::default(),
            hook: Box::new(hook),
        }
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.record)
    }
}

impl Record {
    pub(crate) fn polls(&self) -> usize {
        self.polls.load(SeqCst)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.drops.load(SeqCst) == 1
    }

    /// Wakes whoever polled last.
    pub(crate) fn wake(&self) {
        self.waker.lock().unwrap().clone().unwrap().wake();
    }
}

impl Stream for Source {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        let poll = self.record.polls.fetch_add(1, SeqCst);
        *self.record.waker.lock().unwrap() = Some(cx.waker().clone());
        (self.hook)(Moment::Poll(poll));
        match self.script.pop_front() {
            Some('|') => {
                self.script.clear();
                Poll::Ready(None)
            }
            Some('!') => panic!("the script says so"),
            Some('-') | None => Poll::Pending,
            Some(item) => Poll::Ready(Some(item)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let items = self.script.iter().take_while(|step| **step != '|');
        let items = items.filter(|step| step.is_alphabetic()).count();
        (items, Some(items))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.record.drops.fetch_add(1, SeqCst);
        // A test that fails is told, not aborted.
        if !thread::panicking() {
            (self.hook)(Moment::Drop);
        }
    }
}

/// All scripts over `letters` of up to `length` letters, shorter ones first.
pub(crate) fn scripts(letters: &str, length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..length {
        let to = all.len();
        for shorter in from..to {
            for letter in letters.chars() {
                let longer = format!("{}{letter}", all[shorter]);
                all.push(longer);
            }
        }
        from = to;
    }
    all
}

/// The message of the panic that `f` ends in.
pub(crate) fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it should have panicked"),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().unwrap().to_string(),
    }
}
