//! A run poll by poll, and what each law requires of it.

mod any_stream;
mod in_time;
mod stoppable;

use super::Law;
use crate::testing::{Event, Output, Plan, Step, View, harness::LONG_RUN, plan::Run};
use std::{ops::Range, time::Duration};

/// The number of yields that may follow an item: each adapter of a stack may yield after the same item.
const MAX_YIELDS: usize = 16;

/// How many items may come after a deadline, and for how many nanoseconds at a steady pace: D6.
const LATE_ITEMS: usize = 64;
const LATE_NANOS: u64 = 1_000_000;

/// How much of a stream is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// A stream.
    Stream,
    /// A stream that can be stopped.
    Stopped,
    /// A `Stoppable` stream.
    Stoppable,
}

/// What is checked of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Keeps(Law),
    /// The part of the law `panics` that is checked for every stream: it does not panic unless its source does.
    HasNoPanicOfItsOwn,
}

impl Claim {
    /// The law that is broken if the claim is false.
    pub(super) fn law(self) -> Law {
        match self {
            Self::Keeps(law) => law,
            Self::HasNoPanicOfItsOwn => Law::Panics,
        }
    }
}

/// A run, poll by poll.
pub(super) struct Trace<'a> {
    plan: &'a Plan,
    tier: Tier,
    is_timed: bool,
    not_made: Option<&'a str>,
    events: Vec<Event>,
    firsts: Firsts,
    turns: Vec<Turn>,
    /// The number of turns up to and including the one in which the stream ended or panicked.
    lively: usize,
}

/// The indices of the first events of a kind, or the number of events if there is none.
struct Firsts {
    stopped: usize,
    source_ended: usize,
    /// Ended, or panicked.
    source_done: usize,
    source_dropped: usize,
    ended: usize,
    /// Ended, or reported that it was stopped.
    reported: usize,
    /// The same, or panicked.
    over: usize,
}

impl Firsts {
    fn new(events: &[Event]) -> Self {
        let first = |is_it: fn(&Event) -> bool| {
            let at = events.iter().position(is_it);
            at.unwrap_or(events.len())
        };
        let ended = first(|event| matches!(event, Event::Gave(Output::End)));
        let reported = ended.min(first(|event| matches!(event, Event::Gave(Output::Stopped))));
        let panicked = first(|event| matches!(event, Event::Gave(Output::Panic(_))));
        let source_ended = first(|event| matches!(event, Event::SourceGave(Step::End)));
        let source_panicked = first(|event| matches!(event, Event::SourceGave(Step::Panic)));
        Self {
            stopped: first(|event| matches!(event, Event::Stopped)),
            source_ended,
            source_done: source_ended.min(source_panicked),
            source_dropped: first(|event| matches!(event, Event::SourceDropped)),
            ended,
            reported,
            over: reported.min(panicked),
        }
    }
}

/// A poll of the stream, and what happened until the next one.
struct Turn {
    waker: usize,
    output: Output,
    /// How much time had passed when it began, and how much passed until the next one.
    at: Duration,
    passed: Duration,
    /// Whether it is one of the yields that S11 requires, in which the source is not polled. The law `wakes` checks that
    /// the stream wakes itself.
    is_yield: bool,
    /// Its events during the poll, and after it.
    inside: Range<usize>,
    outside: Range<usize>,
    /// Whether the stream was stopped before the poll began, in a way that the poll has to notice.
    is_stopped: bool,
}

impl<'a> Trace<'a> {
    pub(super) fn new(plan: &'a Plan, tier: Tier, run: &'a Run) -> Self {
        let events = run.record.events();
        let firsts = Firsts::new(&events);
        let begins: Vec<_> = (0..events.len())
            .filter(|at| matches!(events[*at], Event::Polled { .. }))
            .collect();
        let dropping = events
            .iter()
            .position(|event| matches!(event, Event::Dropping));
        let mut turns: Vec<Turn> = Vec::new();
        let mut ready_run = 0;
        let passed = |events: &[Event]| {
            let passed = events.iter().map(|event| match event {
                Event::Passed(time) => *time,
                _ => Duration::ZERO,
            });
            passed.sum()
        };
        let mut at: Duration = passed(&events[..begins.first().copied().unwrap_or_default()]);
        // The number of yields that may follow.
        let mut may_yield = 0;
        for (n, &begin) in begins.iter().enumerate() {
            let end = begins
                .get(n + 1)
                .copied()
                .or(dropping)
                .unwrap_or(events.len());
            let Event::Polled { waker } = events[begin] else {
                unreachable!("a turn begins with a poll");
            };
            let answer = (begin..end).find_map(|at| match &events[at] {
                Event::Gave(output) => Some((at, output.clone())),
                _ => None,
            });
            let Some((gave, output)) = answer else {
                unreachable!("each poll has an output");
            };
            // In a run of ready items, a point in time need not be noticed at once: D6. It has to be if the consumer
            // has awaited something after a long run.
            let waited_since = |turn: &Turn| {
                let after = &events[turn.outside.clone()];
                ready_run >= LONG_RUN && after.iter().any(|event| matches!(event, Event::Stopped))
            };
            let is_exact = !run.is_timed
                || turns.last().is_none_or(|last| {
                    last.output == Output::Pending || last.is_stopped || waited_since(last)
                });
            ready_run = if matches!(output, Output::Item(_)) {
                ready_run + 1
            } else {
                0
            };
            let inside = begin + 1..gave;
            let outside = gave + 1..end;
            let is_polled = |event: &Event| matches!(event, Event::SourcePolled { .. });
            let is_yield = output == Output::Pending
                && may_yield > 0
                && !events[inside.clone()].iter().any(is_polled);
            may_yield = match output {
                Output::Item(_) => MAX_YIELDS,
                _ if is_yield => may_yield - 1,
                _ => 0,
            };
            let passed = passed(&events[outside.clone()]);
            turns.push(Turn {
                waker,
                output,
                at,
                passed,
                is_yield,
                inside,
                outside,
                is_stopped: firsts.stopped < begin && is_exact,
            });
            at += passed;
        }
        let last = |turn: &Turn| matches!(turn.output, Output::End | Output::Panic(_));
        let lively = match turns.iter().position(last) {
            Some(last) => last + 1,
            None => turns.len(),
        };
        Self {
            plan,
            tier,
            is_timed: run.is_timed,
            not_made: run.not_made.as_deref(),
            events,
            firsts,
            turns,
            lively,
        }
    }

    /// Checks a claim. The `Err` says what was expected.
    pub(super) fn check(&self, claim: Claim) -> Result<(), String> {
        match claim {
            Claim::Keeps(law) => self.keeps(law),
            Claim::HasNoPanicOfItsOwn => self.has_no_panic_of_its_own(),
        }
    }

    fn keeps(&self, law: Law) -> Result<(), String> {
        match law {
            Law::Fused => self.fused(),
            Law::SizeHint => self.size_hint(),
            Law::Wakes => self.wakes(),
            Law::Dropping => self.dropping(),
            Law::Lazy => self.lazy(),
            Law::Panics => self.panics(),
            Law::Prefix => self.prefix(),
            Law::Identity => self.identity(),
            Law::NothingEarly => self.nothing_early(),
            Law::NothingLate => self.nothing_late(),
            Law::NothingLost => self.nothing_lost(),
            Law::Ends => self.ends(),
            Law::LeftAlone => self.left_alone(),
            Law::DroppedFirst => self.dropped_first(),
            Law::Released => self.released(),
            Law::Fair => self.fair(),
            Law::OneOutcome => self.one_outcome(self.is_stopped_at_end()),
            Law::Honest => self.honest(),
            Law::OnTime => self.on_time(),
            Law::StopIsReported => self.stop_is_reported(),
            Law::DropOnCancel => self.drop_on_cancel(),
            Law::Drains => self.drains(),
            Law::EndsWhenIdle => self.ends_when_idle(),
        }
    }

    /// The polls until the stream ended, counted from 0.
    fn lively(&self) -> impl Iterator<Item = (usize, &Turn)> {
        self.turns[..self.lively].iter().enumerate()
    }

    /// The polls after the stream ended.
    fn over(&self) -> impl Iterator<Item = (usize, &Turn)> {
        self.turns.iter().enumerate().skip(self.lively)
    }

    fn inside(&self, turn: &Turn) -> &[Event] {
        &self.events[turn.inside.clone()]
    }

    fn outside(&self, turn: &Turn) -> &[Event] {
        &self.events[turn.outside.clone()]
    }

    fn source_panics(&self, turn: &Turn) -> bool {
        self.inside(turn).iter().any(|event| {
            matches!(
                event,
                Event::SourceGave(Step::Panic) | Event::SourcePanickedInDrop
            )
        })
    }

    /// All events, with their indices.
    fn events(&self) -> impl Iterator<Item = (usize, &Event)> {
        self.events.iter().enumerate()
    }

    fn views(&self) -> impl Iterator<Item = (usize, &View)> {
        self.events().filter_map(|(at, event)| match event {
            Event::Seen(view) => Some((at, view)),
            _ => None,
        })
    }
}

fn expect(holds: bool, expected: impl FnOnce() -> String) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(expected()),
    }
}
