//! The laws of any stream.

use super::{Tier, Trace, expect};
use crate::testing::{Event, Output, Step};

impl Trace<'_> {
    pub(super) fn fused(&self) -> Result<(), String> {
        let mut stopped = false;
        for (n, turn) in self.lively() {
            let is_fused = turn.output == Output::End || self.source_panics(turn);
            expect(!stopped || is_fused, || {
                format!("poll {n} to return the end, as the one before it gave the error of a stop")
            })?;
            stopped = turn.output == Output::Stopped;
        }
        let ended = self.turns[..self.lively]
            .last()
            .is_some_and(|last| last.output == Output::End);
        for (n, turn) in self.over() {
            // Other laws check a source that is dropped late and panics.
            let is_fused = turn.output == Output::End || self.source_panics(turn);
            expect(!ended || is_fused, || {
                format!("poll {n} to return the end once more")
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

    pub(super) fn size_hint(&self) -> Result<(), String> {
        let last = self.turns[..self.lively].last().map(|last| &last.output);
        let ended = matches!(last, Some(Output::End));
        let panicked = matches!(last, Some(Output::Panic(_)));
        // Backwards, so that the number of items to come is known.
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

    pub(super) fn wakes(&self) -> Result<(), String> {
        let begin = self.turns.first().map_or(0, |first| first.inside.start);
        let mut source_waits = waits_after(false, &self.events[..begin]);
        for (n, turn) in self.lively() {
            source_waits = waits_after(source_waits, self.inside(turn));
            let time_passes = self.plan.time_passes;
            if time_passes {
                // A task may have polled it.
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
            } else if !time_passes && happened.any(|event| matches!(event, Event::SourceWoken)) {
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

    pub(super) fn dropping(&self) -> Result<(), String> {
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
                "the drop of the stream not to cancel the token".to_owned()
            })?;
            expect(*held_wakers == 0, || {
                "nothing to hold a waker of the dropped stream".to_owned()
            })?;
        }
        Ok(())
    }

    pub(super) fn lazy(&self) -> Result<(), String> {
        // There is no turn while the stream is made or dropped.
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

    pub(super) fn has_no_panic_of_its_own(&self) -> Result<(), String> {
        let Some(message) = self.not_made else {
            let is_of_the_source = |event: &Event| {
                matches!(
                    event,
                    Event::SourceGave(Step::Panic) | Event::SourcePanickedInDrop
                )
            };
            // The whole law checks what follows from a panic of the source.
            return match self.events.iter().any(is_of_the_source) {
                true => Ok(()),
                false => self.panics(),
            };
        };
        Err(format!("the stream to be made without a panic: {message}"))
    }

    pub(super) fn panics(&self) -> Result<(), String> {
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
            // After the end, the law `fused` checks it.
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
                format!("poll {n} to return the end, as there was a panic before")
            })?;
            is_over |= is_panic;
            has_ended |= turn.output == Output::End;
        }
        // Between polls, the source can be dropped by the stop, and by the drop of the stream.
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
}

/// Whether the source waits for something after these events.
fn waits_after(waits: bool, events: &[Event]) -> bool {
    events.iter().fold(waits, |waits, event| match event {
        Event::SourceGave(step) => matches!(step, Step::Pending | Step::Never),
        Event::SourceWoken | Event::SourceDropped => false,
        _ => waits,
    })
}
