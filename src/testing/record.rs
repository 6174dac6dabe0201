use super::Step;
use crate::StopReason;
use std::{
    fmt::{self, Debug, Formatter},
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
    time::Duration,
};

/// What has happened, in order, to a [`Source`](super::Source) or a [`Probe`](super::Probe), and to the stream around it
/// if a [`Harness`](super::Harness) drives it. It outlives them; clones are the same record.
///
/// It displays as a marble diagram with the letters of [`testing`](super), with a column for each poll and for each event
/// between two polls:
///
/// ```text
/// source   a-..     what each poll of the source returned, as in a `Script`
/// stop     ..X.     when the stop was fired
/// woken    ..w.     when a waker of the stream was woken
/// output   a-.|     what each poll of the stream returned
/// dropped  ...D     when the source was dropped
/// ```
#[derive(Clone, Default)]
pub struct Record {
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    /// The data pointer of each waker, in the order of their first appearance.
    wakers: Vec<usize>,
    /// The waker of the source's last poll, if that was pending.
    latest: Option<Waker>,
}

/// An event in a [`Record`].
///
/// Wakers are numbered in the order of their first appearance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The source is polled, with this waker.
    SourcePolled {
        /// The number of the waker.
        waker: usize,
    },
    /// The poll of the source has returned this.
    SourceGave(Step),
    /// The source has been woken by [`Record::wake`].
    SourceWoken,
    /// The source has been dropped.
    SourceDropped,
    /// The drop of the source has panicked, or its hook in the drop.
    SourcePanickedInDrop,
    /// The stop is about to be fired.
    Stopping,
    /// The stop has been fired. From here on the stream counts as stopped.
    Stopped,
    /// Firing the stop has panicked, because a callback or a waker did.
    StopPanicked,
    /// The harness polls the stream, with this waker.
    Polled {
        /// The number of the waker.
        waker: usize,
    },
    /// A waker of the harness is woken.
    Woken {
        /// The number of the waker.
        waker: usize,
    },
    /// The poll of the stream has returned this.
    Gave(Output),
    /// This much time has passed between two polls.
    Passed(Duration),
    /// What methods of the stream return: after it was made, after each poll, and after a stop that was fired between
    /// two polls.
    Seen(View),
    /// The harness begins to drop the stream.
    Dropping,
    /// The stream has been dropped.
    Dropped {
        /// How many wakers of the harness are still held.
        held_wakers: usize,
        /// Whether the token of the stop has been cancelled by something else than the stop.
        fired_the_stop: bool,
        /// Whether the drop panicked.
        panicked: bool,
    },
}

/// What a poll of a stream returned.
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
    /// The poll panicked with this message.
    Panic(String),
}

/// What methods of a stream return.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct View {
    /// Its `size_hint()`.
    pub size_hint: (usize, Option<usize>),
    /// Its `is_terminated()` and `stop_reason()`, if it is [`Stoppable`](super::Stoppable).
    pub outcome: Option<(bool, Option<StopReason>)>,
    /// The number of wakers of the harness that something other than the source holds.
    pub held_wakers: usize,
}

impl Record {
    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.log().events.clone()
    }

    /// How often the source has been polled.
    pub fn polls(&self) -> usize {
        self.count(|event| matches!(event, Event::SourcePolled { .. }))
    }

    /// How often the source has been polled after it had ended or panicked.
    pub fn polls_after_end(&self) -> usize {
        let log = self.log();
        let is_last = |event: &Event| matches!(event, Event::SourceGave(Step::End | Step::Panic));
        let after = log.events.iter().skip_while(|event| !is_last(event));
        after
            .filter(|event| matches!(event, Event::SourcePolled { .. }))
            .count()
    }

    /// The items that the source has yielded, as their letters.
    pub fn items(&self) -> String {
        let log = self.log();
        let items = log.events.iter().filter_map(|event| match event {
            Event::SourceGave(Step::Item(item)) => Some(*item),
            _ => None,
        });
        items.collect()
    }

    /// Whether the source has been dropped.
    pub fn is_dropped(&self) -> bool {
        self.count(|event| matches!(event, Event::SourceDropped)) > 0
    }

    /// Wakes the task that polled the source last, if that poll was pending. Returns whether it was.
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

    /// The number of events so far.
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

    /// Stores the waker of a pending source, or none.
    pub(super) fn keep(&self, waker: Option<Waker>) {
        let former = std::mem::replace(&mut self.log().latest, waker);
        drop(former);
    }

    /// The number of the stored waker.
    pub(super) fn kept(&self) -> Option<usize> {
        // Without a clone of the waker, which would run foreign code under the lock.
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
