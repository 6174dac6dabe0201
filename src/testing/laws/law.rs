use super::trace::Tier;
use std::fmt::{self, Display, Formatter};

/// A law of termination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// [`fused`](super::fused()).
    Fused,
    /// [`size_hint`](super::size_hint()).
    SizeHint,
    /// [`wakes`](super::wakes()).
    Wakes,
    /// [`dropping`](super::dropping()).
    Dropping,
    /// [`lazy`](super::lazy()).
    Lazy,
    /// [`panics`](super::panics()).
    Panics,
    /// [`prefix`](super::prefix()).
    Prefix,
    /// [`identity`](super::identity()).
    Identity,
    /// [`nothing_early`](super::nothing_early()).
    NothingEarly,
    /// [`nothing_late`](super::nothing_late()).
    NothingLate,
    /// [`nothing_lost`](super::nothing_lost()).
    NothingLost,
    /// [`ends`](super::ends()).
    Ends,
    /// [`left_alone`](super::left_alone()).
    LeftAlone,
    /// [`dropped_first`](super::dropped_first()).
    DroppedFirst,
    /// [`released`](super::released()).
    Released,
    /// [`fair`](super::fair()).
    Fair,
    /// [`on_time`](super::on_time()).
    OnTime,
    /// [`one_outcome`](super::one_outcome()).
    OneOutcome,
    /// [`honest`](super::honest()).
    Honest,
    /// [`stop_is_reported`](super::stop_is_reported()).
    StopIsReported,
    /// [`drop_on_cancel`](super::drop_on_cancel()).
    DropOnCancel,
    /// `drains`.
    Drains,
    /// `ends_when_idle`.
    EndsWhenIdle,
}

impl Law {
    /// All laws that [`check_all`](super::check_all) checks: first those of any stream, last those of a
    /// [`Stoppable`](crate::testing::Stoppable) one. The laws that only some streams promise are not among them:
    /// `StopIsReported`, `DropOnCancel`, `Drains` and `EndsWhenIdle`.
    pub const ALL: [Self; 19] = [
        Self::Fused,
        Self::SizeHint,
        Self::Wakes,
        Self::Dropping,
        Self::Lazy,
        Self::Panics,
        Self::Prefix,
        Self::Identity,
        Self::NothingEarly,
        Self::NothingLate,
        Self::NothingLost,
        Self::Ends,
        Self::LeftAlone,
        Self::DroppedFirst,
        Self::Released,
        Self::Fair,
        Self::OnTime,
        Self::OneOutcome,
        Self::Honest,
    ];

    /// The name of its function.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::SizeHint => "size_hint",
            Self::Wakes => "wakes",
            Self::Dropping => "dropping",
            Self::Lazy => "lazy",
            Self::Panics => "panics",
            Self::Prefix => "prefix",
            Self::Identity => "identity",
            Self::NothingEarly => "nothing_early",
            Self::NothingLate => "nothing_late",
            Self::NothingLost => "nothing_lost",
            Self::Ends => "ends",
            Self::LeftAlone => "left_alone",
            Self::DroppedFirst => "dropped_first",
            Self::Released => "released",
            Self::Fair => "fair",
            Self::OnTime => "on_time",
            Self::OneOutcome => "one_outcome",
            Self::Honest => "honest",
            Self::StopIsReported => "stop_is_reported",
            Self::DropOnCancel => "drop_on_cancel",
            Self::Drains => "drains",
            Self::EndsWhenIdle => "ends_when_idle",
        }
    }

    /// The law as a sentence.
    pub fn statement(self) -> &'static str {
        match self {
            Self::Fused => "after the end every poll returns the end",
            Self::SizeHint => "the size hint is correct at every moment, and exact after the end",
            Self::Wakes => "a pending stream is woken, through its latest waker",
            Self::Dropping => "dropping the stream drops the source, and leaves nothing behind",
            Self::Lazy => {
                "the source is polled only inside a poll of the stream, and for at most one item"
            }
            Self::Panics => "a panic of the source passes through once, then the stream has ended",
            Self::Prefix => "the items are a prefix of the source's, in order",
            Self::Identity => "a stop that is never fired changes nothing",
            Self::NothingEarly => "only its source and the stop end the stream",
            Self::NothingLate => "a poll that begins after the stop returns no item",
            Self::NothingLost => "an item that was taken from the source is yielded",
            Self::Ends => "a poll that begins after the stop ends the stream",
            Self::LeftAlone => "after the stop, and after its end, the source is never polled",
            Self::DroppedFirst => "the source is dropped before the stream ends",
            Self::Released => "after the end nothing holds a waker of the stream",
            Self::Fair => {
                "over a source that is always ready, the stream is pending after 1024 items"
            }
            Self::OnTime => "a run of ready items ends soon after the deadline",
            Self::OneOutcome => {
                "there is a reason if the stream was stopped, none if it ended, and it does not change"
            }
            Self::Honest => "the reason is that of the stop",
            Self::StopIsReported => "a stream that was stopped does not end without an error",
            Self::DropOnCancel => "the stop drops the source, without a poll",
            Self::Drains => "after the stop the stream continues until its grace period is over",
            Self::EndsWhenIdle => {
                "the stream ends once its source was idle for the timeout, and not before"
            }
        }
    }

    /// Whether it applies only to a stream that is stopped at a point in time.
    pub fn is_of_time(self) -> bool {
        self == Self::OnTime
    }

    /// Whether its function takes a length of time.
    pub(in crate::testing) fn takes_a_time(self) -> bool {
        matches!(self, Self::Drains | Self::EndsWhenIdle)
    }

    pub(super) fn tier(self) -> Tier {
        match self {
            Self::Fused
            | Self::SizeHint
            | Self::Wakes
            | Self::Dropping
            | Self::Lazy
            | Self::Panics
            | Self::EndsWhenIdle => Tier::Stream,
            Self::OneOutcome | Self::Honest => Tier::Stoppable,
            _ => Tier::Stopped,
        }
    }
}

impl Display for Law {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
