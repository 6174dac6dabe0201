use super::{Moment, ParseScriptError, Probe, Record, Script, Step};
use futures_core::Stream;
use std::{
    panic::resume_unwind,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

/// A stream that plays a [`Script`], and keeps a [`Record`] of everything that happens to it.
///
/// At a `-` it wakes its task at once, so it runs on any executor; with [`by_hand`](Self::by_hand), [`Record::wake`]
/// wakes it. After `!`, `~`, or the last step of a script without an end, it is pending forever. After its end it
/// returns `None` again. Its `size_hint` is exact.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use stopcock::testing::Source;
///
/// let source = Source::new("a-(bc)-d|");
/// let record = source.record();
/// let items: String = futures::executor::block_on(source.take(2).collect());
///
/// assert_eq!(items, "ab");
/// assert_eq!(record.polls(), 3);
/// assert!(record.is_dropped());
/// assert_eq!(record.to_string(), "\
/// source   a-b.
/// stop     ....
/// woken    ....
/// output   ....
/// dropped  ...D");
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Source {
    probe: Probe<Playback>,
}

/// A script that is being played.
#[derive(Debug)]
pub(super) struct Playback {
    script: Script,
    played: usize,
    items_to_come: usize,
    last: Step,
    by_hand: bool,
}

impl Source {
    /// Plays `script`.
    ///
    /// # Panics
    ///
    /// If `script` does not parse. [`Script::from_str`] returns an error instead.
    #[track_caller]
    pub fn new(script: &str) -> Self {
        match Script::from_str(script) {
            Ok(script) => Self::from(script),
            Err(error) => panic!("{error}"),
        }
    }

    /// Does not wake itself at a `-`: [`Record::wake`] does.
    pub fn by_hand(mut self) -> Self {
        if let Some(playback) = self.probe.stream_mut() {
            playback.by_hand = true;
        }
        self
    }

    /// Runs `hook` in each poll and in the drop of the source: see [`Probe::with_hook`].
    pub fn with_hook(self, hook: impl FnMut(Moment) + Send + 'static) -> Self {
        Self {
            probe: self.probe.with_hook(hook),
        }
    }

    /// The record of what happens to it.
    pub fn record(&self) -> Record {
        self.probe.record()
    }

    pub(super) fn recorded_in(self, record: &Record) -> Self {
        Self {
            probe: self.probe.recorded_in(record),
        }
    }
}

impl From<Script> for Source {
    fn from(script: Script) -> Self {
        let is_item = |step: &&Step| matches!(step, Step::Item(_));
        let playback = Playback {
            items_to_come: script.steps().iter().filter(is_item).count(),
            script,
            played: 0,
            last: Step::Never,
            by_hand: false,
        };
        Self {
            probe: Probe::described_by(playback, |playback, _, _| playback.last),
        }
    }
}

impl FromStr for Source {
    type Err = ParseScriptError;

    fn from_str(script: &str) -> Result<Self, ParseScriptError> {
        script.parse().map(|script: Script| Self::from(script))
    }
}

impl Stream for Source {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        Pin::new(&mut self.probe).poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.probe.size_hint()
    }
}

impl Playback {
    fn step(&self) -> Step {
        match (self.script.steps().get(self.played), self.script.steps()) {
            (Some(step), _) => *step,
            (None, [.., Step::End]) => Step::End,
            (None, _) => Step::Never,
        }
    }
}

impl Stream for Playback {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        let step = self.step();
        self.last = step;
        self.played += 1;
        self.items_to_come -= usize::from(matches!(step, Step::Item(_)));
        match step {
            Step::Item(item) => Poll::Ready(Some(item)),
            Step::Pending => {
                if !self.by_hand {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Step::Never => Poll::Pending,
            // Not `panic!`, whose message would be in the output of a test that passes.
            Step::Panic => resume_unwind(Box::new("the script says so")),
            Step::End => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.items_to_come, Some(self.items_to_come))
    }
}
