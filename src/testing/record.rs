use super::Step;
use crate::StopReason;
use std::{
    fmt::{self, Debug, Formatter},
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
    time::Duration,
};

/// What happened, in order, to a [`Source`](super::Source) or a [`Probe`](super::Probe), and to the stream around it
/// if a [`Harness`](super::Harness) drives it. It outlives them; clones are the same record.
///
/// It displays as a marble diagram, a column for each poll and for each thing that came about between two polls, with the
/// letters of [`testing`](super):
///
/// ```text
/// source   a-..     what each poll of the source gave, as in a `Script`
/// stop     ..X.     where the stop was fired
/// woken    ..w.     where a waker of the stream was woken
/// output   a-.|     what each poll of the stream gave
/// dropped  ...D     where the source was dropped
/// ```
#[derive(Clone, Default)]
pub struct Record {
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    /// Where the data of each waker is, in the order of their first appearance.
    wakers: Vec<usize>,
    /// The waker of the source's last poll, for as long as there is something to wake.
    latest: Option<Waker>,
}

/// One thing that happened.
///
/// Wakers are numbered in the order in which they were first seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The source is polled, with this waker.
    SourcePolled {
        /// Which one.
        waker: usize,
    },
    /// The poll of the source is done, and gave this.
    SourceGave(Step),
    /// The source was woken by hand: its `-` is over.
    SourceWoken,
    /// The source has been dropped.
    SourceDropped,
    /// The source panicked as it was dropped, or its hook did.
    SourcePanickedInDrop,
    /// The stop begins to be fired.
    Stopping,
    /// The stop has been fired: from here on the stream counts as stopped.
    Stopped,
    /// Firing it panicked, as it does if a callback or a waker does.
    StopPanicked,
    /// The harness polls the stream, with this waker.
    Polled {
        /// Which one.
        waker: usize,
    },
    /// A waker that the harness brought is woken.
    Woken {
        /// Which one.
        waker: usize,
    },
    /// The poll of the stream is done, and gave this.
    Gave(Output),
    /// So much time went by between two polls.
    Passed(Duration),
    /// What the stream says of itself: after it was made, after each poll, and after a stop that was fired between
    /// two polls.
    Seen(View),
    /// The harness begins to drop the stream.
    Dropping,
    /// The stream has been dropped.
    Dropped {
        /// How many wakers of the harness are still held.
        held_wakers: usize,
        /// Whether the token of the stop is cancelled, and not by the stop.
        fired_the_stop: bool,
        /// Whether that was a panic.
        panicked: bool,
    },
}

/// What a poll of a stream gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// `Pending`.
    Pending,
    /// An item, as its letter.
    Item(char),
    /// The `Err` with which a stream reports its stop.
    Stopped,
    /// `None`.
    End,
    /// A panic, and its message.
    Panic(String),
}

/// What a stream says of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct View {
    /// Its `size_hint()`.
    pub size_hint: (usize, Option<usize>),
    /// Its `is_terminated()` and `stop_reason()`, where it is [`Stoppable`](super::Stoppable).
    pub outcome: Option<(bool, Option<StopReason>)>,
    /// How many wakers of the harness are held by anything but the source.
    pub held_wakers: usize,
}

impl Record {
    /// All that happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.log().events.clone()
    }

    /// How often the source was polled.
    pub fn polls(&self) -> usize {
        self.count(|event| matches!(event, Event::SourcePolled { .. }))
    }

    /// How often the source was polled although it had ended or panicked.
    pub fn polls_after_end(&self) -> usize {
        let log = self.log();
        let is_last = |event: &Event| matches!(event, Event::SourceGave(Step::End | Step::Panic));
        let after = log.events.iter().skip_while(|event| !is_last(event));
        after
            .filter(|event| matches!(event, Event::SourcePolled { .. }))
            .count()
    }

    /// The items that the source gave, as their letters.
    pub fn items(&self) -> String {
        let log = self.log();
        let items = log.events.iter().filter_map(|event| match event {
            Event::SourceGave(Step::Item(item)) => Some(*item),
            _ => None,
        });
        items.collect()
    }

    /// Whether the source was dropped.
    pub fn is_dropped(&self) -> bool {
        self.count(|event| matches!(event, Event::SourceDropped)) > 0
    }

    /// Wakes the task that polled the source last, if its last answer was `-`; returns whether it was.
    pub fn wake(&self) -> bool {
        let waker = {
            let mut log = self.log();
            let waker = log.latest.take();
            if waker.is_some() {
                log.events.push(Event::SourceWoken);
            }
            waker
        };
        // Without the lock: a waker is foreign code.
        let is_woken = waker.is_some();
        waker.into_iter().for_each(Waker::wake);
        is_woken
    }

    /// How much happened so far.
    pub(super) fn len(&self) -> usize {
        self.log().events.len()
    }

    pub(super) fn add(&self, event: Event) {
        self.log().events.push(event);
    }

    pub(super) fn number(&self, waker: &Waker) -> usize {
        let data = waker.data().addr();
        let wakers = &mut self.log().wakers;
        match wakers.iter().position(|known| *known == data) {
            Some(number) => number,
            None => {
                wakers.push(data);
                wakers.len() - 1
            }
        }
    }

    /// Keeps the waker that ends the source's `-`, or none.
    pub(super) fn keep(&self, waker: Option<Waker>) {
        let former = std::mem::replace(&mut self.log().latest, waker);
        drop(former);
    }

    /// The number of the waker that is kept.
    pub(super) fn kept(&self) -> Option<usize> {
        // Without a clone of the waker, which would be foreign code under the lock.
        let log = self.log();
        let data = log.latest.as_ref()?.data().addr();
        log.wakers.iter().position(|known| *known == data)
    }

    fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.log()
            .events
            .iter()
            .filter(|event| is_it(event))
            .count()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing panics while it is locked.
        self.log.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Debug for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.events()).finish()
    }
}
