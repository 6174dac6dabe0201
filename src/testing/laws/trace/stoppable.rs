//! The laws of a stream that can be stopped.

use super::{Firsts, LATE_ITEMS, LATE_NANOS, Trace, Turn, expect};
use crate::{
    StopReason,
    testing::{Event, Output, Step, StopPoint},
};

/// The number of items that may come without a `Pending`: S11.
const MAX_READY_RUN: usize = 1024;

impl Trace<'_> {
    pub(super) fn prefix(&self) -> Result<(), String> {
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
                        format!("poll {n} to return '{expected}' if an item, and not '{item}'")
                    }
                    None => format!("poll {n} to return no item, as the source has no more"),
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn identity(&self) -> Result<(), String> {
        if self.plan.stop != StopPoint::Never {
            return Ok(());
        }
        for (n, turn) in self.lively().filter(|(_, turn)| !turn.is_yield) {
            self.passed_on(n, turn)?;
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

    /// Checks that a poll has polled the source once.
    pub(super) fn polled_once(&self, n: usize, turn: &Turn) -> Result<(), String> {
        // `left_alone` checks polls after the end of the source.
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

    /// What the source returned in a poll.
    pub(super) fn given(&self, turn: &Turn) -> Option<Step> {
        self.inside(turn).iter().find_map(|event| match event {
            Event::SourceGave(step) => Some(*step),
            _ => None,
        })
    }

    /// Checks that a poll has polled the source once, and returned the same.
    pub(super) fn passed_on(&self, n: usize, turn: &Turn) -> Result<(), String> {
        self.polled_once(n, turn)?;
        let Some(step) = self.given(turn) else {
            return Ok(());
        };
        let is_same = match (step, &turn.output) {
            // `prefix` checks which item it is.
            (Step::Item(_), Output::Item(_))
            | (Step::Pending | Step::Never, Output::Pending)
            | (Step::End, Output::End)
            // `panics` checks that it passes through.
            | (Step::Panic, _) => true,
            (_, Output::Panic(_)) => true,
            _ => false,
        };
        expect(is_same, || {
            format!(
                "poll {n} to return what the source returned, '{}'",
                step.letter()
            )
        })
    }

    pub(super) fn nothing_early(&self) -> Result<(), String> {
        for (n, turn) in self.lively() {
            if matches!(turn.output, Output::End | Output::Stopped) {
                let then = turn.inside.end;
                let is_due = self.firsts.stopped.min(self.firsts.source_done) < then;
                expect(is_due, || {
                    format!(
                        "poll {n} not to end the stream, as neither had the source ended nor had the stop been fired"
                    )
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn nothing_late(&self) -> Result<(), String> {
        for (n, turn) in self.lively() {
            expect(
                !turn.is_stopped || !matches!(turn.output, Output::Item(_)),
                || format!("poll {n} to return no item, as it began after the stop"),
            )?;
        }
        Ok(())
    }

    pub(super) fn nothing_lost(&self) -> Result<(), String> {
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
                "{taken} items by poll {n}, as many as were taken from the source, and not {given}"
            )
        })
    }

    pub(super) fn ends(&self) -> Result<(), String> {
        // `nothing_late` checks late items.
        match self.lively().find(|(_, turn)| turn.is_stopped) {
            Some((n, turn)) => expect(turn.output != Output::Pending, || {
                format!("poll {n} to end the stream, as it began after the stop")
            }),
            None => Ok(()),
        }
    }

    pub(super) fn left_alone(&self) -> Result<(), String> {
        for (n, turn) in self.turns.iter().enumerate() {
            for at in turn.inside.clone() {
                if !matches!(self.events[at], Event::SourcePolled { .. }) {
                    continue;
                }
                let was_stopped = !self.is_timed && self.firsts.stopped < at;
                expect(!turn.is_stopped && !was_stopped, || {
                    format!("poll {n} not to poll the source, as the stream was stopped before")
                })?;
                let was_over = self.firsts.source_ended.min(self.firsts.ended) < at;
                expect(!was_over, || {
                    format!("poll {n} not to poll the source, as that had ended before")
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn dropped_first(&self) -> Result<(), String> {
        for (n, turn) in self.turns.iter().enumerate() {
            if matches!(turn.output, Output::End | Output::Stopped) {
                let is_dropped = self.firsts.source_dropped < turn.inside.end;
                let what = match turn.output {
                    Output::End => "the end",
                    _ => "the error of the stop",
                };
                expect(is_dropped, || {
                    format!("the source to be dropped before poll {n} returns {what}")
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn released(&self) -> Result<(), String> {
        for (at, view) in self.views() {
            expect(at < self.firsts.ended || view.held_wakers == 0, || {
                "no timer, token or signal to hold a waker of a stream that has ended".to_owned()
            })?;
        }
        Ok(())
    }

    pub(super) fn fair(&self) -> Result<(), String> {
        let mut ready_run = 0;
        for (n, turn) in self.lively() {
            ready_run = match turn.output {
                Output::Item(_) => ready_run + 1,
                _ => 0,
            };
            expect(ready_run <= MAX_READY_RUN, || {
                format!("poll {n} to be pending and wake itself, after {MAX_READY_RUN} ready items")
            })?;
        }
        Ok(())
    }

    /// Whether the stream was stopped before its source ended. `None` if it may be either: for an adapter over another one,
    /// the source ends only after the inner adapter has dropped its own source.
    pub(super) fn is_stopped_at_end(&self) -> Option<bool> {
        let Firsts {
            stopped,
            source_ended,
            reported,
            over,
            ..
        } = self.firsts;
        // A panic in the drop of the source may come before the end is reported.
        let panicked = over < reported;
        match stopped < source_ended {
            true if !panicked => Some(true),
            false if over <= stopped => Some(false),
            _ => None,
        }
    }

    /// `stopped_at_end` is whether the stop came before the end of the source, which may be in the same poll.
    pub(super) fn one_outcome(&self, stopped_at_end: Option<bool>) -> Result<(), String> {
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
            // A stream that ended by a panic was not stopped.
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
                "no stop_reason() after a natural end".to_owned()
            })?;
            expect(
                reason.is_some() || at < reported || may_have_ended,
                || match source_done < at {
                    true => "a stop_reason() after an end of the source that came after the stop"
                        .to_owned(),
                    false => "a stop_reason() after an end that was not the source's".to_owned(),
                },
            )?;
            first = first.or(reason);
        }
        Ok(())
    }

    pub(super) fn honest(&self) -> Result<(), String> {
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
                format!("{expected} as the reason, and not {reason:?}")
            })?;
        }
        Ok(())
    }

    pub(super) fn on_time(&self) -> Result<(), String> {
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

    pub(super) fn stop_is_reported(&self) -> Result<(), String> {
        let is_last = |turn: &Turn| matches!(turn.output, Output::End | Output::Stopped);
        let Some((n, turn)) = self.lively().find(|(_, turn)| is_last(turn)) else {
            return Ok(());
        };
        let Firsts {
            stopped,
            source_ended,
            ..
        } = self.firsts;
        // Fired in the drop of a source that has ended: the signal may have been checked before.
        let comes_late = turn.inside.contains(&source_ended) && source_ended < stopped;
        let is_stopped = stopped < turn.inside.end && !comes_late;
        expect(!is_stopped || turn.output == Output::Stopped, || {
            format!(
                "poll {n} to return the error of the stop instead of the end, as the stream had been stopped"
            )
        })
    }

    pub(super) fn drop_on_cancel(&self) -> Result<(), String> {
        let Firsts {
            stopped,
            source_dropped,
            ..
        } = self.firsts;
        // In the drop of the source, that is being dropped already.
        if stopped == self.events.len() || self.plan.stop == StopPoint::InDrop {
            return Ok(());
        }
        let mut turns = self.turns.iter().enumerate();
        if let Some((n, turn)) = turns.find(|(_, turn)| turn.inside.contains(&stopped)) {
            // A poll that panics does not return.
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

    /// Whether the pace is always the same.
    pub(super) fn is_steady(&self) -> bool {
        self.plan.pace.is_some_and(|pace| pace.polls == 0)
    }
}
