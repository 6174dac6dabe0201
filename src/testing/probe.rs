use super::{Event, Record, Step};
use futures_core::{FusedStream, Stream};
use pin_project::{pin_project, pinned_drop};
use std::{
    fmt::{self, Debug, Formatter},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll},
    thread,
};

/// Wraps any stream, and keeps a [`Record`] of everything that happens to it.
///
/// In the record its items are `a`, `b`, `c` and so on.
///
/// # Examples
///
/// ```
/// use futures::{StreamExt, stream};
/// use stopcock::testing::Probe;
///
/// let probe = Probe::new(stream::iter(1..=9));
/// let record = probe.record();
/// let sum: i32 = futures::executor::block_on(probe.take(3).fold(0, async |sum, n| sum + n));
///
/// assert_eq!(sum, 6);
/// assert_eq!(record.items(), "abc");
/// assert!(record.is_dropped());
/// ```
#[pin_project(PinnedDrop)]
#[must_use = "streams do nothing unless polled"]
pub struct Probe<S: Stream> {
    /// `None` once it has been dropped, which is before its drop is recorded.
    #[pin]
    stream: Option<S>,
    record: Record,
    polls: usize,
    items: usize,
    describe: Describe<S>,
    hook: Option<Box<dyn FnMut(Moment) + Send>>,
}

/// Describes a poll of a stream after this number of items.
type Describe<S> = fn(&S, &Poll<Option<<S as Stream>::Item>>, usize) -> Step;

/// When a hook runs: see [`Probe::with_hook`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// In this poll, counted from 0, before the stream itself is polled.
    Poll(usize),
    /// In the drop, after the stream itself has been dropped, unless the thread is panicking.
    Drop,
}

impl<S: Stream> Probe<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self::described_by(stream, |_, poll, items| match poll {
            Poll::Pending => Step::Pending,
            Poll::Ready(Some(_)) => Step::Item(nth_letter(items)),
            Poll::Ready(None) => Step::End,
        })
    }

    pub(super) fn described_by(stream: S, describe: Describe<S>) -> Self {
        Self {
            stream: Some(stream),
            record: Record::default(),
            polls: 0,
            items: 0,
            describe,
            hook: None,
        }
    }

    /// Runs `hook` in each poll and in the drop: to fire a stop, to advance a clock, or to panic.
    pub fn with_hook(mut self, hook: impl FnMut(Moment) + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// The record of what happens to it.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    pub(super) fn recorded_in(mut self, record: &Record) -> Self {
        self.record = record.clone();
        self
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut S> {
        self.stream.as_mut()
    }
}

/// The letter of the `n`-th item, for streams whose items are not letters.
pub(super) fn nth_letter(n: usize) -> char {
    ('a'..='z').nth(n % 26).unwrap_or('a')
}

impl<S: Stream> Stream for Probe<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        let Some(mut stream) = this.stream.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let waker = this.record.number(cx.waker());
        this.record.add(Event::SourcePolled { waker });
        let poll = catch_unwind(AssertUnwindSafe(|| {
            if let Some(hook) = this.hook {
                hook(Moment::Poll(*this.polls));
            }
            stream.as_mut().poll_next(cx)
        }));
        *this.polls += 1;
        let step = match &poll {
            Ok(poll) => (this.describe)(&stream, poll, *this.items),
            Err(_) => Step::Panic,
        };
        *this.items += usize::from(matches!(step, Step::Item(_)));
        this.record.add(Event::SourceGave(step));
        let waits = matches!(step, Step::Pending);
        this.record.keep(waits.then(|| cx.waker().clone()));
        poll.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.stream {
            Some(stream) => stream.size_hint(),
            None => (0, Some(0)),
        }
    }
}

impl<S: FusedStream> FusedStream for Probe<S> {
    fn is_terminated(&self) -> bool {
        self.stream.as_ref().is_none_or(S::is_terminated)
    }
}

#[pinned_drop]
impl<S: Stream> PinnedDrop for Probe<S> {
    fn drop(self: Pin<&mut Self>) {
        let mut this = self.project();
        let dropped = catch_unwind(AssertUnwindSafe(|| this.stream.set(None)));
        this.record.keep(None);
        this.record.add(Event::SourceDropped);
        let dropped = dropped.and_then(|()| match this.hook {
            // A second panic would abort the test.
            Some(hook) if !thread::panicking() => {
                catch_unwind(AssertUnwindSafe(|| hook(Moment::Drop)))
            }
            _ => Ok(()),
        });
        if let Err(panic) = dropped {
            this.record.add(Event::SourcePanickedInDrop);
            resume_unwind(panic);
        }
    }
}

impl<S: Stream> Debug for Probe<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}
