//! The plans that a check tries, and those that are simpler than a given one.

use super::{Pace, Plan, Waits};
use crate::testing::{Script, Step, StopPoint, harness::LONG_RUN};
use std::time::Duration;

/// The greatest length of the scripts of random plans.
const LONGEST: usize = 40;

const NANOSECOND: Duration = Duration::from_nanos(1);

impl Plan {
    /// All plans with scripts over `a`, `-`, `|`, `!` and `~` of up to `steps` steps: shorter scripts first, and
    /// for each the earlier stops.
    pub(in crate::testing) fn all(steps: usize) -> impl Iterator<Item = Self> {
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
    pub(in crate::testing) fn over_time(steps: usize) -> impl Iterator<Item = Self> {
        let plans = Self::all(steps).filter(|plan| plan.stop == StopPoint::Never);
        plans.map(|plan| Self {
            time_passes: true,
            ..plan
        })
    }

    /// A source that is ready for more items than a stream may yield without a `Pending`.
    pub(in crate::testing) fn always_ready() -> impl Iterator<Item = Self> {
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
    pub(in crate::testing) fn ready_until_the_end() -> impl Iterator<Item = Self> {
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
    pub(in crate::testing) fn paced() -> impl Iterator<Item = Self> {
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
    pub(in crate::testing) fn random(seed: u64) -> Self {
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
    pub(in crate::testing) fn in_time(
        time: Duration,
        longest: usize,
    ) -> impl Iterator<Item = Self> {
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
    pub(in crate::testing) fn always_ready_in_time(time: Duration) -> impl Iterator<Item = Self> {
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
    pub(in crate::testing) fn random_in_time(time: Duration, seed: u64) -> Self {
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
    pub(in crate::testing) fn simpler(&self) -> impl Iterator<Item = Self> {
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
