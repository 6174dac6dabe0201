//! What each law says of a run.

mod in_time;

use super::Law;
use crate::{
    StopReason,
    testing::{Event, Output, Plan, Step, StopPoint, View, harness::LONG_ROW, plan::Run},
};
use std::{ops::Range, time::Duration};

/// How many items may come in a row without a `Pending`: S11.
const ITEMS_IN_A_ROW: usize = 1024;

/// How many yields may follow an item: one for each adapter of a stack, each after the same item.
const YIELDS_IN_A_ROW: usize = 16;

/// How many items may come late at a deadline, and by how many nanoseconds at a steady pace: D6.
const LATE_ITEMS: usize = 64;
const LATE_NANOS: u64 = 1_000_000;

/// What of a stream is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// That it is a stream.
    Stream,
    /// That it can be stopped.
    Stopped,
    /// That it can say why.
    Stoppable,
}

/// What is claimed of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Keeps(Law),
    /// The part of the law of panics that is asked of every stream: it does not panic unless its source does.
    HasNoPanicOfItsOwn,
}

impl Claim {
    /// The law that is broken if it is not so.
    pub(super) fn law(self) -> Law {
        match self {
            Self::Keeps(law) => law,
            Self::HasNoPanicOfItsOwn => Law::Panics,
        }
    }
}

/// A run, poll by poll.
pub(super) struct Story<'a> {
    plan: &'a Plan,
    tier: Tier,
    is_timed: bool,
    not_made: Option<&'a str>,
    events: Vec<Event>,
    firsts: Firsts,
    turns: Vec<Turn>,
    /// The turns until the stream was over, or panicked, the last of them included.
    lively: usize,
}

/// Where something happened for the first time, or beyond all that did.
struct Firsts {
    stopped: usize,
    source_ended: usize,
    /// Ended, or panicked.
    source_done: usize,
    source_dropped: usize,
    ended: usize,
    /// Ended, or said that it was stopped.
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
    /// How much time had gone by when it began, and until the next one.
    at: Duration,
    passed: Duration,
    /// Whether it is one of the yields that S11 asks for: the source is not polled. That the stream wakes itself then is
    /// for the law of wake-ups.
    is_yield: bool,
    /// Its events while it is polled, and after.
    inside: Range<usize>,
    outside: Range<usize>,
    /// Whether it was stopped before the poll began, and has to know.
    is_stopped: bool,
}

impl<'a> Story<'a> {
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
        let mut row = 0;
        let passed = |events: &[Event]| {
            let passed = events.iter().map(|event| match event {
                Event::Passed(time) => *time,
                _ => Duration::ZERO,
            });
            passed.sum()
        };
        let mut at: Duration = passed(&events[..begins.first().copied().unwrap_or_default()]);
        // How many yields may come now.
        let mut may_yield = 0;
        for (n, &begin) in begins.iter().enumerate() {
            let end = begins
                .get(n + 1)
                .copied()
                .or(dropping)
                .unwrap_or(events.len());
            let Event::Polled { waker } = events[begin] else {
                unreachable!("it begins with the poll");
            };
            let answer = (begin..end).find_map(|at| match &events[at] {
                Event::Gave(output) => Some((at, output.clone())),
                _ => None,
            });
            let Some((gave, output)) = answer else {
                unreachable!("each poll gives something");
            };
            // A point in time need not be seen at once in a run of ready items: D6. But it is when the consumer
            // waited after a long row.
            let waited_since = |turn: &Turn| {
                let after = &events[turn.outside.clone()];
                row >= LONG_ROW && after.iter().any(|event| matches!(event, Event::Stopped))
            };
            let is_exact = !run.is_timed
                || turns.last().is_none_or(|last| {
                    last.output == Output::Pending || last.is_stopped || waited_since(last)
                });
            row = if matches!(output, Output::Item(_)) {
                row + 1
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
                Output::Item(_) => YIELDS_IN_A_ROW,
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

    /// Whether a claim is true; else what was expected.
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

    /// The polls until it was over, counted from 0.
    fn lively(&self) -> impl Iterator<Item = (usize, &Turn)> {
        self.turns[..self.lively].iter().enumerate()
    }

    /// The polls after it was over.
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

    /// Everything that happened, and when.
    fn events(&self) -> impl Iterator<Item = (usize, &Event)> {
        self.events.iter().enumerate()
    }

    fn views(&self) -> impl Iterator<Item = (usize, &View)> {
        self.events().filter_map(|(at, event)| match event {
            Event::Seen(view) => Some((at, view)),
            _ => None,
        })
    }

    fn fused(&self) -> Result<(), String> {
        let mut stopped = false;
        for (n, turn) in self.lively() {
            let is_fused = turn.output == Output::End || self.source_panics(turn);
            expect(!stopped || is_fused, || {
                format!("poll {n} to give the end, as the one before it gave the error of a stop")
            })?;
            stopped = turn.output == Output::Stopped;
        }
        let ended = self.turns[..self.lively]
            .last()
            .is_some_and(|last| last.output == Output::End);
        for (n, turn) in self.over() {
            // A source that is dropped late, and panics, is for other laws.
            let is_fused = turn.output == Output::End || self.source_panics(turn);
            expect(!ended || is_fused, || {
                format!("poll {n} to give the end once more")
            })?;
        }
        for (at, view) in self.views() {
            let Some((is_terminated, _)) = view.outcome else {
                continue;
            };
            expect(!is_terminated || self.firsts.over < at, || {
                "is_terminated() to be false while it runs".to_owned()
            })?;
            expect(is_terminated || at < self.firsts.ended, || {
                "is_terminated() to be true after the end".to_owned()
            })?;
        }
        Ok(())
    }

    fn size_hint(&self) -> Result<(), String> {
        let last = self.turns[..self.lively].last().map(|last| &last.output);
        let ended = matches!(last, Some(Output::End));
        let panicked = matches!(last, Some(Output::Panic(_)));
        // Backwards, so that what is still to come is known.
        let mut to_come = 0;
        for (at, event) in self.events.iter().enumerate().rev() {
            let view = match event {
                Event::Gave(Output::Item(_) | Output::Stopped) if at <= self.firsts.reported => {
                    to_come += 1;
                    continue;
                }
                Event::Seen(view) => view,
                _ => continue,
            };
            let (lower, upper) = view.size_hint;
            let expect = |holds, expected: &str| {
                expect(holds, || {
                    format!("{expected}, and not {:?}", view.size_hint)
                })
            };
            if self.firsts.over < at {
                let is_empty = match self.tier {
                    Tier::Stream => lower == 0,
                    _ => view.size_hint == (0, Some(0)),
                };
                expect(
                    is_empty || panicked,
                    "a size_hint() of (0, Some(0)) after the end",
                )?;
                continue;
            }
            expect(
                upper.is_none_or(|upper| to_come <= upper),
                "an upper bound that is not below what came",
            )?;
            expect(
                !ended || lower <= to_come,
                "a lower bound that is not above what came",
            )?;
            expect(
                self.tier == Tier::Stream || lower == 0,
                "a lower bound of 0 while it can be stopped",
            )?;
        }
        Ok(())
    }

    fn wakes(&self) -> Result<(), String> {
        let begin = self.turns.first().map_or(0, |first| first.inside.start);
        let mut source_waits = waits_after(false, &self.events[..begin]);
        for (n, turn) in self.lively() {
            source_waits = waits_after(source_waits, self.inside(turn));
            let goes_on = self.plan.goes_on;
            if goes_on {
                // A task may poll it on.
                source_waits = waits_after(source_waits, self.outside(turn));
            }
            if turn.output != Output::Pending {
                continue;
            }
            let mut happened = self.inside(turn).iter().chain(self.outside(turn));
            let is_woken = happened
                .clone()
                .any(|event| matches!(event, Event::Woken { waker } if *waker == turn.waker));
            let why = if happened
                .clone()
                .any(|event| matches!(event, Event::Stopped))
            {
                Some("the stop was fired")
            } else if !goes_on && happened.any(|event| matches!(event, Event::SourceWoken)) {
                Some("its source was woken")
            } else if !source_waits {
                Some("its source does not wait for anything")
            } else {
                None
            };
            if let (Some(why), false) = (why, is_woken) {
                return Err(format!(
                    "the latest waker of poll {n}, which was pending, to be woken, as {why}"
                ));
            }
        }
        Ok(())
    }

    fn dropping(&self) -> Result<(), String> {
        for (at, event) in self.events() {
            let Event::Dropped {
                held_wakers,
                fired_the_stop,
                ..
            } = event
            else {
                continue;
            };
            expect(self.firsts.source_dropped < at, || {
                "the source to be dropped with the stream".to_owned()
            })?;
            expect(!fired_the_stop, || {
                "the token to be left alone by the drop of the stream".to_owned()
            })?;
            expect(*held_wakers == 0, || {
                "no waker of the stream that was dropped to be kept".to_owned()
            })?;
        }
        Ok(())
    }

    fn lazy(&self) -> Result<(), String> {
        // As it is made and as it is dropped there is no turn at all.
        let polled = |events: &[Event]| {
            let is_polled = |event: &&Event| matches!(event, Event::SourcePolled { .. });
            events.iter().filter(is_polled).count()
        };
        let inside: usize = self.turns.iter().map(|t| polled(self.inside(t))).sum();
        expect(inside == polled(&self.events), || {
            "the source to be polled only while the stream is".to_owned()
        })?;
        for (n, turn) in self.lively() {
            let items = self
                .inside(turn)
                .iter()
                .filter(|event| matches!(event, Event::SourceGave(Step::Item(_))))
                .count();
            expect(items <= 1, || {
                format!("poll {n} to take one item at most from the source, and not {items}")
            })?;
        }
        Ok(())
    }

    fn has_no_panic_of_its_own(&self) -> Result<(), String> {
        let Some(message) = self.not_made else {
            let is_of_the_source = |event: &Event| {
                matches!(
                    event,
                    Event::SourceGave(Step::Panic) | Event::SourcePanickedInDrop
                )
            };
            // What comes of a panic of the source is for the whole law.
            return match self.events.iter().any(is_of_the_source) {
                true => Ok(()),
                false => self.panics(),
            };
        };
        Err(format!("the stream to be made, and no panic: {message}"))
    }

    fn panics(&self) -> Result<(), String> {
        if self.not_made.is_some() {
            return self.has_no_panic_of_its_own();
        }
        let mut is_over = false;
        let mut has_ended = false;
        for (n, turn) in self.turns.iter().enumerate() {
            let is_thrown = self.source_panics(turn);
            let is_panic = matches!(turn.output, Output::Panic(_));
            expect(!is_thrown || is_panic, || {
                format!("the panic of the source to pass through poll {n}")
            })?;
            // After the end that is for the law of fused streams.
            expect(is_thrown || !is_panic || has_ended, || {
                let message = match &turn.output {
                    Output::Panic(message) => message,
                    _ => "",
                };
                format!("poll {n} not to panic, as the source did not: {message}")
            })?;
            let polled = |event: &Event| matches!(event, Event::SourcePolled { .. });
            expect(!is_over || !self.inside(turn).iter().any(polled), || {
                format!("poll {n} not to poll the source, as it had panicked")
            })?;
            expect(!is_over || is_panic || turn.output == Output::End, || {
                format!("poll {n} to give the end, as there was a panic before")
            })?;
            is_over |= is_panic;
            has_ended |= turn.output == Output::End;
        }
        // Between the polls it is dropped by the stop, if at all, and in the end with the stream.
        let mut is_thrown = false;
        for (at, event) in self.events() {
            let (place, panicked) = match event {
                Event::SourcePanickedInDrop => {
                    is_thrown |= !self.turns.iter().any(|turn| turn.inside.contains(&at));
                    continue;
                }
                Event::StopPanicked => ("the stop", true),
                Event::Dropped { panicked, .. } => ("the drop of the stream", *panicked),
                _ => continue,
            };
            expect(panicked || !is_thrown, || {
                format!("the panic of the source to pass through {place}")
            })?;
            expect(is_thrown || !panicked, || {
                format!("{place} not to panic, as the source did not")
            })?;
            is_thrown = false;
        }
        Ok(())
    }

    fn prefix(&self) -> Result<(), String> {
        let mut items = self
            .plan
            .script
            .steps()
            .iter()
            .filter_map(|step| match step {
                Step::Item(item) => Some(*item),
                _ => None,
            });
        for (n, turn) in self.lively() {
            if let Output::Item(item) = turn.output {
                let expected = items.next();
                expect(expected == Some(item), || match expected {
                    Some(expected) => {
                        format!("poll {n} to give '{expected}' if an item, and not '{item}'")
                    }
                    None => format!("poll {n} to give no item, as the source has no more"),
                })?;
            }
        }
        Ok(())
    }

    fn identity(&self) -> Result<(), String> {
        if self.plan.stop != StopPoint::Never {
            return Ok(());
        }
        for (n, turn) in self.lively().filter(|(_, turn)| !turn.is_yield) {
            self.handed_on(n, turn)?;
            let woken = |events: &[Event]| {
                let is_woken = |event: &&Event| matches!(event, Event::Woken { .. });
                events.iter().filter(is_woken).count()
            };
            let wakes = woken(self.inside(turn)) + woken(self.outside(turn));
            let of_the_source = self
                .outside(turn)
                .iter()
                .filter(|event| matches!(event, Event::SourceWoken))
                .count();
            expect(wakes <= of_the_source, || {
                format!("no wake-ups but those of the source after poll {n}, and not {wakes}")
            })?;
        }
        Ok(())
    }

    /// Whether a poll has polled the source.
    fn polled_once(&self, n: usize, turn: &Turn) -> Result<(), String> {
        // Polls after the end of the source are for `left_alone`.
        let polls = self
            .inside(turn)
            .iter()
            .take_while(|event| !matches!(event, Event::SourceGave(Step::End)))
            .filter(|event| matches!(event, Event::SourcePolled { .. }))
            .count();
        expect(polls == 1, || {
            format!("poll {n} to poll the source once, and not {polls} times")
        })
    }

    /// What the source gave in a poll.
    fn given(&self, turn: &Turn) -> Option<Step> {
        self.inside(turn).iter().find_map(|event| match event {
            Event::SourceGave(step) => Some(*step),
            _ => None,
        })
    }

    /// Whether a poll has polled the source, and given what that gave.
    fn handed_on(&self, n: usize, turn: &Turn) -> Result<(), String> {
        self.polled_once(n, turn)?;
        let Some(step) = self.given(turn) else {
            return Ok(());
        };
        let is_same = match (step, &turn.output) {
            // What else comes out is for the law of prefixes.
            (Step::Item(_), Output::Item(_))
            | (Step::Pending | Step::Never, Output::Pending)
            | (Step::End, Output::End)
            // That it comes through is for the law of panics.
            | (Step::Panic, _) => true,
            (_, Output::Panic(_)) => true,
            _ => false,
        };
        expect(is_same, || {
            format!("poll {n} to give what the source gave, '{}'", step.letter())
        })
    }

    fn nothing_early(&self) -> Result<(), String> {
        for (n, turn) in self.lively() {
            if matches!(turn.output, Output::End | Output::Stopped) {
                let then = turn.inside.end;
                let is_due = self.firsts.stopped.min(self.firsts.source_done) < then;
                expect(is_due, || {
                    format!(
                        "poll {n} not to end it, as neither had the source ended nor was it stopped"
                    )
                })?;
            }
        }
        Ok(())
    }

    fn nothing_late(&self) -> Result<(), String> {
        for (n, turn) in self.lively() {
            expect(
                !turn.is_stopped || !matches!(turn.output, Output::Item(_)),
                || format!("poll {n} to give no item, as it began after the stop"),
            )?;
        }
        Ok(())
    }

    fn nothing_lost(&self) -> Result<(), String> {
        let ends = self
            .lively()
            .find(|(_, turn)| matches!(turn.output, Output::End | Output::Stopped));
        let Some((n, end)) = ends else {
            return Ok(());
        };
        let count = |is_item: fn(&Event) -> bool| {
            let events = self.events[..end.outside.start].iter();
            events.filter(|event| is_item(event)).count()
        };
        let taken = count(|event| matches!(event, Event::SourceGave(Step::Item(_))));
        let given = count(|event| matches!(event, Event::Gave(Output::Item(_))));
        expect(given >= taken, || {
            format!(
                "{taken} items by poll {n}, which is what was taken from the source, and not {given}"
            )
        })
    }

    fn ends(&self) -> Result<(), String> {
        // Items that come late are for `nothing_late`.
        match self.lively().find(|(_, turn)| turn.is_stopped) {
            Some((n, turn)) => expect(turn.output != Output::Pending, || {
                format!("poll {n} to end it, as it began after the stop")
            }),
            None => Ok(()),
        }
    }

    fn left_alone(&self) -> Result<(), String> {
        for (n, turn) in self.turns.iter().enumerate() {
            for at in turn.inside.clone() {
                if !matches!(self.events[at], Event::SourcePolled { .. }) {
                    continue;
                }
                let was_stopped = !self.is_timed && self.firsts.stopped < at;
                expect(!turn.is_stopped && !was_stopped, || {
                    format!("poll {n} not to poll the source, as it was stopped before")
                })?;
                let was_over = self.firsts.source_ended.min(self.firsts.ended) < at;
                expect(!was_over, || {
                    format!("poll {n} not to poll the source, as it was over before")
                })?;
            }
        }
        Ok(())
    }

    fn dropped_first(&self) -> Result<(), String> {
        for (n, turn) in self.turns.iter().enumerate() {
            if matches!(turn.output, Output::End | Output::Stopped) {
                let is_dropped = self.firsts.source_dropped < turn.inside.end;
                let what = match turn.output {
                    Output::End => "the end",
                    _ => "the error of the stop",
                };
                expect(is_dropped, || {
                    format!("the source to be dropped before poll {n} gives {what}")
                })?;
            }
        }
        Ok(())
    }

    fn released(&self) -> Result<(), String> {
        for (at, view) in self.views() {
            expect(at < self.firsts.ended || view.held_wakers == 0, || {
                "no timer, token or signal to hold a waker of a stream that has ended".to_owned()
            })?;
        }
        Ok(())
    }

    fn fair(&self) -> Result<(), String> {
        let mut row = 0;
        for (n, turn) in self.lively() {
            row = match turn.output {
                Output::Item(_) => row + 1,
                _ => 0,
            };
            expect(row <= ITEMS_IN_A_ROW, || {
                format!(
                    "poll {n} to be pending and wake itself, after {ITEMS_IN_A_ROW} items in a row"
                )
            })?;
        }
        Ok(())
    }

    /// Whether it was stopped by the time that its source ended; `None` if that may be answered either way: to an adapter
    /// over another one its source ends only once that has dropped its own.
    fn is_stopped_at_end(&self) -> Option<bool> {
        let Firsts {
            stopped,
            source_ended,
            reported,
            over,
            ..
        } = self.firsts;
        // A panic of the source as it is dropped may come before the answer.
        let panicked = over < reported;
        match stopped < source_ended {
            true if !panicked => Some(true),
            false if over <= stopped => Some(false),
            _ => None,
        }
    }

    /// `stopped_at_end`: a stop that came before the end of the source, in the same poll as well, is one.
    fn one_outcome(&self, stopped_at_end: Option<bool>) -> Result<(), String> {
        let mut first: Option<String> = None;
        for (at, view) in self.views() {
            let Some((_, reason)) = &view.outcome else {
                continue;
            };
            let reason = reason.as_ref().map(ToString::to_string);
            let Firsts {
                source_ended,
                source_done,
                reported,
                over,
                ..
            } = self.firsts;
            // What a panic ended was not stopped.
            let was_stopped = match source_ended == source_done {
                true => stopped_at_end,
                false => Some(false),
            };
            expect(first.is_none() || first == reason, || {
                "stop_reason() to stay what it was".to_owned()
            })?;
            expect(over < at || reason.is_none(), || {
                "no stop_reason() while it runs".to_owned()
            })?;
            let may_have_ended = source_done < at && was_stopped != Some(true);
            let may_be_stopped = at < source_done || was_stopped != Some(false);
            expect(reason.is_none() || may_be_stopped, || {
                "no stop_reason() after an end of its own".to_owned()
            })?;
            expect(reason.is_some() || at < reported || may_have_ended, || {
                match source_done < at {
                    true => "a stop_reason() after an end of the source that came after the stop"
                        .to_owned(),
                    false => "a stop_reason() after an end that was not the source's".to_owned(),
                }
            })?;
            first = first.or(reason);
        }
        Ok(())
    }

    fn honest(&self) -> Result<(), String> {
        for (_, view) in self.views() {
            let Some((_, Some(reason))) = &view.outcome else {
                continue;
            };
            let (is_it, expected) = match self.is_timed {
                true => (
                    matches!(reason, StopReason::DeadlineExceeded),
                    "DeadlineExceeded",
                ),
                false => (matches!(reason, StopReason::Cancelled), "Cancelled"),
            };
            expect(is_it, || {
                format!("{expected} for a reason, and not {reason:?}")
            })?;
        }
        Ok(())
    }

    fn on_time(&self) -> Result<(), String> {
        if !self.is_timed {
            return Ok(());
        }
        let late = self
            .lively()
            .filter(|(_, turn)| {
                self.firsts.stopped < turn.inside.start && matches!(turn.output, Output::Item(_))
            })
            .count();
        expect(late <= LATE_ITEMS || self.is_steady(), || {
            format!("at most {LATE_ITEMS} items after the deadline, and not {late}")
        })?;
        if let (Some(pace), true) = (self.plan.pace, self.is_steady()) {
            let nanos = late as u64 * pace.then_nanos;
            expect(nanos <= LATE_NANOS, || {
                format!("at most {LATE_NANOS} ns of items after the deadline, and not {nanos}")
            })?;
        }
        Ok(())
    }

    fn stop_is_reported(&self) -> Result<(), String> {
        let is_last = |turn: &Turn| matches!(turn.output, Output::End | Output::Stopped);
        let Some((n, turn)) = self.lively().find(|(_, turn)| is_last(turn)) else {
            return Ok(());
        };
        let Firsts {
            stopped,
            source_ended,
            ..
        } = self.firsts;
        // By the drop of a source that has ended: the signal may have been asked by then.
        let comes_late = turn.inside.contains(&source_ended) && source_ended < stopped;
        let is_stopped = stopped < turn.inside.end && !comes_late;
        expect(!is_stopped || turn.output == Output::Stopped, || {
            format!(
                "poll {n} to give the error of the stop in place of the end, as it was stopped before"
            )
        })
    }

    fn drop_on_cancel(&self) -> Result<(), String> {
        let Firsts {
            stopped,
            source_dropped,
            ..
        } = self.firsts;
        // In the drop of the source there is nothing left to be dropped.
        if stopped == self.events.len() || self.plan.stop == StopPoint::InDrop {
            return Ok(());
        }
        let mut turns = self.turns.iter().enumerate();
        if let Some((n, turn)) = turns.find(|(_, turn)| turn.inside.contains(&stopped)) {
            // By a panic it does not return.
            let panics = matches!(turn.output, Output::Panic(_));
            return expect(panics || source_dropped < turn.inside.end, || {
                format!(
                    "the source to be dropped before poll {n} returns, in which the stop was fired"
                )
            });
        }
        if self.plan.stop == StopPoint::AtBirth {
            let is_dropped = |first: &Turn| source_dropped < first.inside.start;
            return expect(self.turns.first().is_none_or(is_dropped), || {
                "the source to be dropped before poll 0, as the stop was fired before it was made"
                    .to_owned()
            });
        }
        expect(source_dropped < stopped, || {
            "the source to be dropped before the firing of the stop returns".to_owned()
        })
    }

    /// Whether the pace is the same all the way.
    fn is_steady(&self) -> bool {
        self.plan.pace.is_some_and(|pace| pace.polls == 0)
    }
}

/// Whether the source waits for something after these events.
fn waits_after(waits: bool, events: &[Event]) -> bool {
    events.iter().fold(waits, |waits, event| match event {
        Event::SourceGave(step) => matches!(step, Step::Pending | Step::Never),
        Event::SourceWoken | Event::SourceDropped => false,
        _ => waits,
    })
}

fn expect(holds: bool, expected: impl FnOnce() -> String) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(expected()),
    }
}
