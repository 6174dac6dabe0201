use super::{
    Harness, Moment, Record, Script, Source, Step, Stop, StopPoint,
    clock::Clock,
    harness::{LONG_RUN, message},
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

/// The greatest length of the scripts of random plans.
const LONGEST: usize = 40;

const NANOSECOND: Duration = Duration::from_nanos(1);

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

    /// All plans with scripts over `a`, `-`, `|`, `!` and `~` of up to `steps` steps: shorter scripts first, and
    /// for each the earlier stops.
    pub(super) fn all(steps: usize) -> impl Iterator<Item = Self> {
        Script::all("a-|!~", steps).flat_map(|script| {
            let script = script.relabelled();
            let steps = script.steps().len();
            let mut stops = vec![StopPoint::Never, StopPoint::AtBirth];
            for n in 0..=steps + 1 {
                stops.extend([StopPoint::Before(n), StopPoint::During(n)]);
            }
            stops.extend((0..2).map(StopPoint::InWaker));
            stops.push(StopPoint::InDrop);

            let plan = move |stop| Self::new(script.clone(), stop);
            let mut plans = Vec::new();
            for stop in stops {
                for changes_wakers in [false, true] {
                    plans.push(Self {
                        changes_wakers,
                        ..plan(stop)
                    });
                }
                if matches!(stop, StopPoint::Never | StopPoint::Before(_)) {
                    plans.push(Self {
                        panics_in_drop: true,
                        ..plan(stop)
                    });
                }
            }
            // Also dropped after a stop that it has not noticed yet.
            for polls in 0..=steps {
                let last = match polls {
                    0 => StopPoint::AtBirth,
                    _ => StopPoint::During(polls - 1),
                };
                plans.extend(
                    [StopPoint::Never, last, StopPoint::Before(polls)].map(|stop| Self {
                        drop_after: Some(polls),
                        ..plan(stop)
                    }),
                );
            }
            plans
        })
    }

    /// Plans in which nothing stops the stream, and in which timers fire and tasks run.
    #[cfg(feature = "tokio")]
    pub(super) fn over_time(steps: usize) -> impl Iterator<Item = Self> {
        let plans = Self::all(steps).filter(|plan| plan.stop == StopPoint::Never);
        plans.map(|plan| Self {
            time_passes: true,
            ..plan
        })
    }

    /// A source that is ready for more items than a stream may yield without a `Pending`.
    pub(super) fn always_ready() -> impl Iterator<Item = Self> {
        // At the last stop the source is pending, after all items and a yield.
        let stops = [
            StopPoint::Never,
            StopPoint::Before(1060),
            StopPoint::Before(1102),
        ];
        stops.into_iter().flat_map(|stop| {
            [false, true].map(|changes_wakers| Self {
                changes_wakers,
                ..Self::new(Script::items(1100), stop)
            })
        })
    }

    /// A source that is always ready until it ends, and a stop at about its end: also in its last poll, which may be many
    /// items after the last check of an expensive signal.
    pub(super) fn ready_until_the_end() -> impl Iterator<Item = Self> {
        [10, 63, 64, 65, 100, 1023, 1030]
            .into_iter()
            .flat_map(|items| {
                // A yield is a poll of the stream, but not of the source.
                let last = items + items / 1024;
                [
                    StopPoint::Never,
                    StopPoint::During(items - 1),
                    StopPoint::During(items),
                    StopPoint::Before(last - 1),
                    StopPoint::Before(last),
                ]
                .map(|stop| Self::new(Script::items(items).ended(), stop))
            })
    }

    /// Sources that are always ready but slow, with a deadline in their course.
    pub(super) fn paced() -> impl Iterator<Item = Self> {
        // So far away that the segments between two checks have their full length by then.
        let steady = |nanos: u64| {
            let deadline_nanos = (1500 * nanos).min(20_000_000);
            let pace = Pace {
                polls: 0,
                nanos,
                then_nanos: nanos,
                deadline_nanos,
            };
            (2 * deadline_nanos / nanos + 8, pace)
        };
        // A deadline that passes with the first slow item, after a run of fast ones.
        let slowing = |polls: usize| {
            let pace = Pace {
                polls,
                nanos: 1,
                then_nanos: 1_000_000_000,
                deadline_nanos: 1_000_000_000,
            };
            (polls as u64 + 200, pace)
        };
        let steady = [7_777, 33_333, 500_000, 999_999, 1_000_001, 7_000_000].map(steady);
        let slowing = [1, 10, 63, 64, 65, 66, 1000].map(slowing);
        let paced = steady.into_iter().chain(slowing).map(|(items, pace)| Self {
            pace: Some(pace),
            ..Self::new(Script::items(items as usize), StopPoint::ByHand)
        });
        // A consumer that awaits something after a long run of ready items.
        let waiting =
            [LONG_RUN, 130, 200].map(|n| Self::new(Script::items(n + 70), StopPoint::Before(n)));
        paced.chain(waiting)
    }

    /// A longer plan, determined by the seed.
    pub(super) fn random(seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let mut below = |n: usize| random.below(n);
        let mut steps: Vec<_> = (0..5 + below(LONGEST - 5))
            .map(|_| match below(3) {
                0 => Step::Pending,
                _ => Step::Item('a'),
            })
            .collect();
        steps.extend([Step::End, Step::End, Step::End, Step::Panic, Step::Never].get(below(6)));
        let script = Script::from_steps(steps).relabelled();
        let steps = script.steps().len();
        let stop = match below(8) {
            0 => StopPoint::Never,
            1 | 2 => StopPoint::During(below(steps + 1)),
            3 => StopPoint::InWaker(below(steps)),
            4 => StopPoint::InDrop,
            _ => StopPoint::Before(below(steps + 2)),
        };
        Self {
            changes_wakers: below(2) == 0,
            drop_after: (stop == StopPoint::Never && below(2) == 0).then(|| below(steps + 1)),
            ..Self::new(script, stop)
        }
    }

    /// Plans in which time passes, often about as much as `time`: with all scripts of `a`, `-` and `|` of up to `longest`
    /// steps.
    pub(super) fn in_time(time: Duration, longest: usize) -> impl Iterator<Item = Self> {
        let lengths = [
            Duration::ZERO,
            time / 2,
            time.saturating_sub(NANOSECOND),
            time,
        ];
        Script::all("a-|", longest).flat_map(move |script| {
            let script = script.relabelled();
            let steps = script.steps().len();
            let mut stops = vec![StopPoint::Never, StopPoint::AtBirth];
            for n in 0..=steps + 1 {
                stops.extend([StopPoint::Before(n), StopPoint::During(n)]);
            }
            // Not with the longest scripts, which are most of the plans.
            let flags: &[(bool, bool)] = match steps < longest {
                true => &[(false, false), (true, false), (false, true)],
                false => &[(false, false)],
            };
            // After the end, no time has to pass.
            let is_open = |step: &&Step| **step != Step::End;
            let open = script.steps().iter().filter(is_open).count();
            let all = (0..lengths.len().pow(open as u32)).map(move |mut n| {
                let digits = (0..open).map(|_| {
                    let digit = n % lengths.len();
                    n /= lengths.len();
                    lengths[digit]
                });
                digits.collect::<Vec<_>>()
            });
            all.flat_map(move |after| {
                let mut plans = Vec::new();
                for stop in &stops {
                    plans.extend(flags.iter().map(|(changes_wakers, is_slow)| Self {
                        changes_wakers: *changes_wakers,
                        waits: Some(Waits {
                            after: after.clone(),
                            time,
                            is_slow: *is_slow,
                        }),
                        ..Self::new(script.clone(), *stop)
                    }));
                }
                plans
            })
        })
    }

    /// A source that is always ready, and from shortly before its first yield on at a steady pace, with a stop at about
    /// that yield.
    pub(super) fn always_ready_in_time(time: Duration) -> impl Iterator<Item = Self> {
        let fast = [Duration::ZERO; 1018];
        let steady = [time / 8; 42];
        [1020, 1024, 1025].into_iter().map(move |stop| Self {
            waits: Some(Waits {
                after: [&fast[..], &steady].concat(),
                time,
                is_slow: false,
            }),
            ..Self::new(Script::items(1060), StopPoint::Before(stop))
        })
    }

    /// A longer plan, determined by the seed.
    pub(super) fn random_in_time(time: Duration, seed: u64) -> Self {
        let mut random = SplitMix(!seed);
        // The first ones are shorter than `time`, so that many sequences of waits are long.
        let lengths = [
            time.saturating_sub(NANOSECOND),
            time / 2,
            Duration::ZERO,
            NANOSECOND,
            time,
            time + NANOSECOND,
            time * 2,
        ];
        let lengths = &lengths[..=random.below(lengths.len())];
        let plan = Self::random(seed);
        let waits = Waits {
            after: (0..plan.script.steps().len())
                .map(|_| lengths[random.below(lengths.len())])
                .collect(),
            time,
            is_slow: random.below(4) == 0,
        };
        Self {
            waits: Some(waits),
            ..plan
        }
    }

    /// The plans that are one step shorter or are stopped one poll earlier. None for very long plans, in which the length
    /// matters.
    pub(super) fn simpler(&self) -> impl Iterator<Item = Self> {
        let steps = self.script.steps().len();
        let earlier = match self.stop {
            StopPoint::Before(n) if n > 0 => Some(StopPoint::Before(n - 1)),
            StopPoint::During(n) if n > 0 => Some(StopPoint::During(n - 1)),
            StopPoint::InWaker(n) if n > 0 => Some(StopPoint::InWaker(n - 1)),
            _ => None,
        };
        // Where a step is removed, the stop may have to move as well.
        let stops = [Some(self.stop), earlier].into_iter().flatten();
        let shorter = stops.flat_map(move |stop| {
            (0..steps).map(move |removed| {
                let mut steps = self.script.steps().to_vec();
                steps.remove(removed);
                Self {
                    script: Script::from_steps(steps).relabelled(),
                    stop,
                    waits: self.waits.as_ref().map(|waits| waits.without(removed)),
                    ..self.clone()
                }
            })
        });
        let earlier = earlier.map(|stop| Self {
            stop,
            ..self.clone()
        });
        let same_waker = self.changes_wakers.then(|| Self {
            changes_wakers: false,
            ..self.clone()
        });
        let never = (self.stop != StopPoint::Never).then(|| Self {
            stop: StopPoint::Never,
            ..self.clone()
        });
        let waits = self.waits.iter().flat_map(Waits::simpler);
        let waits = waits.map(|waits| Self {
            waits: Some(waits),
            ..self.clone()
        });
        let simpler = shorter.chain(never).chain(earlier);
        let simpler = simpler.chain(same_waker).chain(waits);
        simpler.filter(move |_| steps <= LONGEST)
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

/// Sebastiano Vigna's `splitmix64`: <https://prng.di.unimi.it/splitmix64.c>.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
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
