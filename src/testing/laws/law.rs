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
    /// All that [`check_all`](super::check_all) asks for: those of any stream first, those of one that can say why it was stopped last.
    /// Those of one that reports its stop, is dropped on cancel, drains or ends when idle are not among them.
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

    /// The law in a sentence.
    pub fn statement(self) -> &'static str {
        match self {
            Self::Fused => "after the end there is nothing but the end",
            Self::SizeHint => "the size hint is true at every moment, and exact after the end",
            Self::Wakes => "a pending stream is woken, at its latest waker",
            Self::Dropping => "dropping the stream drops the source, and leaves nothing behind",
            Self::Lazy => "the source is polled only while the stream is, and for one item at most",
            Self::Panics => "a panic passes through once, then the stream is over",
            Self::Prefix => "what comes out is a prefix of the source, in order",
            Self::Identity => "a stop that is never fired changes nothing",
            Self::NothingEarly => "nothing ends it but its source and the stop",
            Self::NothingLate => "a poll that begins after the stop gives no item",
            Self::NothingLost => "an item that was taken from the source is handed on",
            Self::Ends => "a poll that begins after the stop ends it",
            Self::LeftAlone => "after the stop or its end the source is never polled",
            Self::DroppedFirst => "the source is dropped before the stream ends",
            Self::Released => "after the end no waker of the stream is kept",
            Self::Fair => "a source that is always ready is pending after 1024 items in a row",
            Self::OnTime => "a run of ready items ends soon after its deadline",
            Self::OneOutcome => {
                "there is a reason if it was stopped, none if it ended, and it stays"
            }
            Self::Honest => "the reason is the one it was stopped for",
            Self::StopIsReported => "a stream that was stopped does not end without an error",
            Self::DropOnCancel => "the stop drops the source, without a poll",
            Self::Drains => "after the stop it continues until its grace is over",
            Self::EndsWhenIdle => "it ends once its source was pending for so long, and no sooner",
        }
    }

    /// Whether it is about points in time only.
    pub fn is_of_time(self) -> bool {
        self == Self::OnTime
    }

    /// Whether it is about a length of time, which its function takes.
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
