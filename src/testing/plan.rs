mod sets;

use super::{
    Harness, Moment, Record, Script, Source, Stop, StopPoint,
    clock::Clock,
    harness::message,
    quiet::Quiet,
    subject::{Subject, Unmade},
    watch::Watch,
};
use std::{
    fmt::{self, Debug, Display, Formatter},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::Poll,
    time::Duration,
};

#[cfg(feature = "tokio")]
use {super::clock::tick, tokio::time::Instant};

/// One run of a stream under test: what its source does, and when the stream is polled, stopped and dropped.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// What the source does.
    pub script: Script,
    /// When the stop is fired.
    pub stop: StopPoint,
    /// Whether each poll has another waker.
    pub changes_wakers: bool,
    /// The number of polls after which the stream is dropped, if it has not ended. `None`: some polls after its end.
    pub drop_after: Option<usize>,
    /// Whether the drop of the source panics.
    pub panics_in_drop: bool,
    /// How long the polls of the source take, if the stop is a point in time.
    pub(super) pace: Option<Pace>,
    /// How much time passes between two polls, if the law is about a length of time.
    pub(super) waits: Option<Waits>,
    /// Whether time passes and tasks run while the stream is pending.
    pub(super) time_passes: bool,
}

/// How long each poll of the source takes, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// How many polls take `nanos`.
    pub(super) polls: usize,
    pub(super) nanos: u64,
    /// How long each later poll takes.
    pub(super) then_nanos: u64,
    /// The time from the first poll to the deadline.
    pub(super) deadline_nanos: u64,
}

/// The time between polls: after an item the consumer is busy for this long, after a `Pending` the source is. Before the
/// first poll, `time` passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    /// After the first poll, after the second.
    pub(super) after: Vec<Duration>,
    /// After each later poll. It is the time that the law is about.
    pub(super) time: Duration,
    /// Whether a stream that is woken is polled only at the end of the wait.
    pub(super) is_slow: bool,
}

/// What is shared by all plans of a check.
pub(super) struct Stage<'a> {
    pub(super) clock: Clock,
    pub(super) wrap: Wrap<'a>,
    pub(super) watch: Watch,
    quiet: Quiet,
}

impl<'a> Stage<'a> {
    #[track_caller]
    pub(super) fn new(wrap: Wrap<'a>) -> Self {
        Self {
            clock: Clock::new(),
            wrap,
            watch: Watch::new(),
            quiet: Quiet::new(),
        }
    }
}

/// The result of playing a plan.
pub(super) struct Run {
    pub(super) record: Record,
    /// The panic message, if the construction of the stream panicked.
    pub(super) not_made: Option<String>,
    /// Whether the stop was a point in time.
    pub(super) is_timed: bool,
    /// How the stream has misused its stop, if it has.
    pub(super) misuse: Option<&'static str>,
}

/// How often a stream is polled after its end.
const POLLS_AFTER_END: usize = 3;

/// Makes the stream under test from a source and a stop.
pub(super) type Wrap<'a> = &'a dyn Fn(Source, Stop) -> Pin<Box<dyn Subject + 'a>>;

impl Plan {
    /// Plays a script to its end, stops at `stop`, and polls the stream some more times after its end.
    pub fn new(script: Script, stop: StopPoint) -> Self {
        Self {
            script,
            stop,
            changes_wakers: false,
            drop_after: None,
            panics_in_drop: false,
            pace: None,
            waits: None,
            time_passes: false,
        }
    }

    pub(super) fn play(&self, stage: &Stage<'_>) -> Run {
        let (run, was_timed) = stage.quiet.run(|| self.run(stage));
        stage.watch.end();
        assert!(
            run.is_timed == was_timed,
            "the stop was not known to be a point in time: call `deadline` or `timeout` while the stream is made, not \
             in its first poll"
        );
        run
    }

    /// Returns the run, and whether the stop was a point in time when the stream had been made.
    fn run(&self, stage: &Stage<'_>) -> (Run, bool) {
        let clock = &stage.clock;
        let _context = clock.enter();
        clock.align();
        let mut was_timed = false;
        let mut not_made = None;
        let mut harness = Harness::build(
            clock.clone(),
            self.stop,
            |stop, record| {
                stage.watch.begin(self, record);
                let source = self.source(&stop).recorded_in(record);
                let made = catch_unwind(AssertUnwindSafe(|| (stage.wrap)(source, stop.clone())));
                was_timed = stop.is_timed();
                self.approach_deadline(&stop);
                made.unwrap_or_else(|panic| {
                    not_made = Some(message(&*panic));
                    Box::pin(Unmade)
                })
            },
            |letter, _| *letter,
            |subject| subject.outcome(),
        );
        if not_made.is_none() {
            self.drive(&mut harness);
        }
        let run = Run {
            record: harness.record().clone(),
            not_made,
            is_timed: harness.stop_handle().is_timed(),
            misuse: harness.stop_handle().misuse(),
        };
        (run, was_timed)
    }

    fn drive<S: Subject + ?Sized>(&self, harness: &mut Harness<S>) {
        if let Some(waits) = &self.waits {
            // The record has its panic.
            let _ = harness.wait_for(waits.time, waits.is_slow);
        }
        // The number of polls since the stream ended, including the one that returned the end.
        let mut over = 0;
        for polls in 0..self.budget() {
            if self.drop_after == Some(polls) || over > POLLS_AFTER_END {
                break;
            }
            if over > 0 && self.stop != StopPoint::Never {
                // It must not change anything after the end. The record has its panic.
                let _ = harness.try_stop();
            }
            if self.changes_wakers && polls > 0 {
                harness.change_waker();
            }
            let polled = harness.try_poll();
            let ends = matches!(polled, Ok(Poll::Ready(None)) | Err(_));
            over += usize::from(ends || over > 0);
            if let (Some(waits), 0) = (&self.waits, over) {
                // The record has its panic.
                let _ = harness.wait_for(waits.after(polls), waits.is_slow);
                continue;
            }
            if over > 0 || !matches!(polled, Ok(Poll::Pending)) {
                continue;
            }
            let happened = match self.time_passes {
                true => harness.wait_until_woken(),
                false => harness.wait(),
            };
            if matches!(happened, Ok(false)) {
                break;
            }
        }
        // The record has its panic.
        let _ = harness.try_drop_stream(self.time_passes);
    }

    fn source(&self, stop: &Stop) -> Source {
        let Self {
            panics_in_drop,
            #[cfg(feature = "tokio")]
            pace,
            ..
        } = *self;
        let stop = stop.clone();
        Source::from(self.script.clone())
            .by_hand()
            .with_hook(move |moment| {
                #[cfg(feature = "tokio")]
                if let (Moment::Poll(poll), Some(pace)) = (moment, pace) {
                    pace.tick(poll);
                    stop.check_clock();
                }
                stop.reached(moment.into());
                if panics_in_drop && moment == Moment::Drop {
                    resume_unwind(Box::new("dropped as the plan says"));
                }
            })
    }

    /// Advances the clock to a nanosecond before the deadline, to detect a stream that stops too early.
    #[cfg(feature = "tokio")]
    fn approach_deadline(&self, stop: &Stop) {
        let nanos = self.pace.map_or(1, |pace| pace.deadline_nanos);
        if let (Some(deadline), false) = (stop.instant(), stop.is_fired()) {
            tick(deadline - Instant::now() - Duration::from_nanos(nanos));
        }
    }

    #[cfg(not(feature = "tokio"))]
    fn approach_deadline(&self, _: &Stop) {}

    /// More polls than a stream needs unless it spins.
    fn budget(&self) -> usize {
        let steps = self.script.steps().len();
        match self.waits {
            // A stop after the last step, what follows it in time, and the polls after that.
            Some(_) => steps + POLLS_AFTER_END + 5,
            None => 2 * steps + 16,
        }
    }
}

impl Waits {
    fn after(&self, poll: usize) -> Duration {
        self.after.get(poll).copied().unwrap_or(self.time)
    }

    fn without(&self, poll: usize) -> Self {
        let mut waits = self.clone();
        if poll < waits.after.len() {
            waits.after.remove(poll);
        }
        waits
    }

    /// Those with one wait less, or with a faster executor.
    fn simpler(&self) -> impl Iterator<Item = Self> {
        let waiting = (0..self.after.len()).filter(|poll| !self.after[*poll].is_zero());
        let shorter = waiting.map(|poll| {
            let mut waits = self.clone();
            waits.after[poll] = Duration::ZERO;
            waits
        });
        let faster = self.is_slow.then(|| Self {
            is_slow: false,
            ..self.clone()
        });
        faster.into_iter().chain(shorter)
    }
}

impl Display for Waits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "before its polls pass {:?}, ", self.time)?;
        for waits in self.after.chunk_by(Duration::eq) {
            match waits {
                [wait] => write!(f, "{wait:?}, ")?,
                waits => write!(f, "{} times {:?}, ", waits.len(), waits[0])?,
            }
        }
        write!(f, "then {:?} each", self.time)?;
        if self.is_slow {
            f.write_str(", even if it is woken before")?;
        }
        Ok(())
    }
}

#[cfg(feature = "tokio")]
impl Pace {
    fn tick(self, poll: usize) {
        let nanos = if poll < self.polls {
            self.nanos
        } else {
            self.then_nanos
        };
        tick(Duration::from_nanos(nanos));
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let script = self.script.to_string();
        match script.char_indices().nth(60) {
            None => write!(f, "script {script:?}")?,
            Some((cut, _)) => write!(
                f,
                "script {:?}… of {} steps",
                &script[..cut],
                self.script.steps().len()
            )?,
        }
        write!(f, ", stopped {}", self.stop)?;
        if self.changes_wakers {
            f.write_str(", with a new waker at each poll")?;
        }
        match self.drop_after {
            Some(0) => f.write_str(", dropped before the first poll")?,
            Some(polls) => write!(f, ", dropped after {polls} polls")?,
            None => {}
        }
        if self.panics_in_drop {
            f.write_str(", and the drop of the source panics")?;
        }
        if let Some(pace) = self.pace {
            let Pace {
                polls,
                nanos,
                then_nanos,
                deadline_nanos,
            } = pace;
            write!(f, ", from {deadline_nanos} ns before the deadline on; ")?;
            if polls > 0 {
                write!(f, "{polls} polls of the source take {nanos} ns each, then ")?;
            }
            write!(f, "each poll of the source takes {then_nanos} ns")?;
        }
        if let Some(waits) = &self.waits {
            write!(f, "; {waits}")?;
        }
        if self.time_passes {
            f.write_str("; while it is pending, time passes and tasks run")?;
        }
        Ok(())
    }
}

impl Debug for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({self})")
    }
}

impl Display for StopPoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::AtBirth => f.write_str("before it is made"),
            Self::Before(poll) => write!(f, "before poll {poll}"),
            Self::ByHand => f.write_str("by hand or by the clock"),
            Self::During(poll) => write!(f, "during poll {poll} of the source"),
            Self::InWaker(wake) => write!(f, "inside its wake-up {wake}"),
            Self::InDrop => f.write_str("inside the drop of the source"),
        }
    }
}
