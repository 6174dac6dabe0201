//! The laws that are about a length of time.

use super::{Firsts, LATE_ITEMS, LATE_NANOS, Trace, Turn, expect};
use crate::testing::{Event, Output, Step};
use std::time::Duration;

/// A poll that is later than this, and later than a sixteenth of the time, starts the time again: the consumer was slow.
const MAX_LATENESS: Duration = Duration::from_millis(10);

/// The earliest and the latest end of a grace period. It begins with the first poll that noticed the stop, and the poll
/// during which the stop was fired may have noticed it.
struct GraceEnd {
    earliest: Duration,
    latest: Duration,
}

impl Trace<'_> {
    pub(super) fn drains(&self) -> Result<(), String> {
        let Some(waits) = &self.plan.waits else {
            return Ok(());
        };
        let stopped = self.firsts.stopped;
        let grace = self.grace(waits.time);
        // The time after each item in the grace period, whether the last poll returned an item, and how many were late.
        let mut pace = Vec::new();
        let mut after_item = false;
        let mut late = 0;
        for (n, turn) in self.until_reported() {
            let is_over = grace
                .as_ref()
                .is_some_and(|grace| stopped < turn.inside.start && grace.latest <= turn.at);
            let is_open = grace
                .as_ref()
                .is_none_or(|grace| turn.inside.end <= stopped || turn.at < grace.earliest);
            if let Some(grace) = grace.as_ref().filter(|_| is_over) {
                let is_item = matches!(turn.output, Output::Item(_));
                late += usize::from(is_item);
                // In a run of ready items the clock need not have been read.
                let is_lenient = after_item && !pace.is_empty() && may_be_late(late, &pace);
                expect(is_lenient || !is_item, || {
                    format!("poll {n} to return no item, as the grace period was over")
                })?;
                let is_close = turn.at < whole_milliseconds(grace.latest);
                // The poll after a yield has to notice the stop.
                let may_wait = (is_lenient && is_close) || (after_item && turn.is_yield);
                expect(may_wait || turn.output != Output::Pending, || {
                    format!("poll {n} to end the stream, as the grace period was over")
                })?;
                expect(is_lenient || self.given(turn).is_none(), || {
                    format!("poll {n} not to poll the source, as the grace period was over")
                })?;
            }
            if is_open && !turn.is_yield {
                self.passed_on(n, turn)?;
            }
            after_item = matches!(turn.output, Output::Item(_));
            if after_item && stopped < turn.inside.end {
                pace.push(turn.passed);
            }
            if turn.output == Output::Pending {
                self.woken_by_the_stop(n, turn)?;
                if let Some(grace) = grace.as_ref().filter(|_| stopped < turn.inside.end) {
                    let was_stopped = stopped < turn.inside.start;
                    let over_at = match was_stopped {
                        true => grace.latest,
                        false => grace.earliest,
                    };
                    self.woken_at(n, turn, over_at)?;
                }
            }
        }
        self.nothing_lost()?;
        self.dropped_first()?;
        self.one_outcome(self.is_drained_at_end(grace.as_ref()))
    }

    pub(super) fn ends_when_idle(&self) -> Result<(), String> {
        let Some(waits) = &self.plan.waits else {
            return Ok(());
        };
        let mut idle_since = None;
        // Whether a late poll has started the time again since the last item.
        let mut was_restarted = false;
        for (n, turn) in self.until_reported().filter(|(_, turn)| !turn.is_yield) {
            match self.given(turn) {
                Some(Step::Item(_)) => (idle_since, was_restarted) = (None, false),
                Some(Step::Pending | Step::Never) => {
                    idle_since.get_or_insert(turn.at);
                }
                _ => {}
            }
            let is_late = |since: Duration| {
                let late = turn.at.saturating_sub(since + waits.time);
                late > waits.time / 16 && late > MAX_LATENESS
            };
            if let Some(since) = idle_since
                .as_mut()
                .filter(|since| !was_restarted && is_late(**since))
            {
                *since = turn.at;
                was_restarted = true;
            }
            let over_at = idle_since.map(|since| since + waits.time);
            if over_at.is_some_and(|over_at| over_at <= turn.at) {
                // The source is polled once more, and an item is yielded.
                self.polled_once(n, turn)?;
                let ends = matches!(turn.output, Output::Stopped | Output::End);
                expect(ends, || {
                    format!(
                        "poll {n} to end the stream, as it was idle for {:?}",
                        waits.time
                    )
                })?;
                continue;
            }
            self.passed_on(n, turn)?;
            if let Some(over_at) = over_at {
                self.woken_at(n, turn, over_at)?;
            }
        }
        self.nothing_lost()?;
        self.dropped_first()?;
        // An end counts as an item.
        self.one_outcome(Some(false))
    }

    /// The polls until the stream ended or reported its stop.
    fn until_reported(&self) -> impl Iterator<Item = (usize, &Turn)> {
        let reported = self.firsts.reported;
        self.lively()
            .take_while(move |(_, turn)| turn.inside.end <= reported)
    }

    /// Whether the grace period was over when the source ended; `None` if it may be either.
    fn is_drained_at_end(&self, grace: Option<&GraceEnd>) -> Option<bool> {
        let Firsts {
            stopped,
            source_ended,
            ..
        } = self.firsts;
        let mut turns = self.turns.iter();
        let end = turns.find(|turn| turn.inside.contains(&source_ended));
        let (Some(grace), Some(end)) = (grace, end) else {
            return Some(false);
        };
        if source_ended < stopped || end.at < grace.earliest {
            Some(false)
        } else if grace.latest <= end.at {
            Some(true)
        } else {
            None
        }
    }

    fn grace(&self, time: Duration) -> Option<GraceEnd> {
        let stopped = self.firsts.stopped;
        let during = self
            .turns
            .iter()
            .find(|turn| turn.inside.contains(&stopped));
        let next = self.turns.iter().find(|turn| stopped < turn.inside.start);
        let (earliest, latest) = match (during, next) {
            // The stop has not woken the stream, so the stream must have noticed it.
            (Some(during), _) if during.output == Output::Pending && !self.is_notified(during) => {
                (during, during)
            }
            (Some(during), next) => (during, next.unwrap_or(during)),
            (None, next) => (next?, next?),
        };
        Some(GraceEnd {
            earliest: earliest.at + time,
            latest: latest.at + time,
        })
    }

    /// Whether the stream is woken after the start of a poll, before its source is woken.
    fn is_notified(&self, turn: &Turn) -> bool {
        self.is_woken_before_its_source_is(turn, turn.inside.start)
    }

    /// The same, ignoring wake-ups of the source before `from`.
    fn is_woken_before_its_source_is(&self, turn: &Turn, from: usize) -> bool {
        let is_it = |event: &Event| matches!(event, Event::Woken { waker } if *waker == turn.waker);
        let is_source = |at: usize| at >= from && matches!(self.events[at], Event::SourceWoken);
        (turn.inside.start..turn.outside.end)
            .take_while(|at| !is_source(*at))
            .any(|at| is_it(&self.events[at]))
    }

    fn woken_by_the_stop(&self, n: usize, turn: &Turn) -> Result<(), String> {
        let stopped = self.firsts.stopped;
        let is_stopped = turn.outside.contains(&stopped);
        // The stop may be fired inside a wake-up.
        let is_woken = self.is_woken_before_its_source_is(turn, stopped);
        expect(!is_stopped || is_woken, || {
            format!("the latest waker of poll {n}, which was pending, to be woken by the stop")
        })
    }

    /// Whether a pending stream is woken at `then`, or at the next whole millisecond, as timers have that precision.
    fn woken_at(&self, n: usize, turn: &Turn, then: Duration) -> Result<(), String> {
        let is_due = whole_milliseconds(then) <= turn.at + turn.passed;
        expect(!is_due || self.is_notified(turn), || {
            format!(
                "the latest waker of poll {n}, which was pending, to be woken at {then:?}, when the time is over"
            )
        })
    }
}

/// Whether `items` items may be late, if this much time passed after each item before: D6.
fn may_be_late(items: usize, pace: &[Duration]) -> bool {
    let is_steady = pace.windows(2).all(|pair| pair[0] == pair[1]);
    let nanos: u128 = pace.iter().rev().take(items).map(Duration::as_nanos).sum();
    items <= LATE_ITEMS && (!is_steady || nanos <= LATE_NANOS.into())
}

fn whole_milliseconds(time: Duration) -> Duration {
    let whole = time.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
}
