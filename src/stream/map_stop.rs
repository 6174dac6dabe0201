use crate::StopReason;
use std::fmt::{self, Debug, Formatter};

/// Makes the error of a stop from its reason.
///
/// For a stream of results that is `From<StopReason>`, or the function that was given to
/// [`map_stop`](crate::TryWithCancellation::map_stop).
#[diagnostic::on_unimplemented(
    message = "`{E}` cannot be made from a `StopReason`",
    label = "the stream does not know what error a stop is",
    note = "call `.map_stop(|reason| ..)` after the adapter",
    note = "or, if the error type is your own, implement `From<stopcock::StopReason>` for it"
)]
pub trait StopError<E> {
    /// Makes the error. Called once, at the stop.
    fn stop_error(&mut self, reason: StopReason) -> E;
}

/// Makes the error of a stop by `From<StopReason>`: the default, without [`MapStop`].
#[derive(Clone, Debug)]
pub struct FromReason(pub(crate) ());

#[diagnostic::do_not_recommend]
impl<E: From<StopReason>> StopError<E> for FromReason {
    #[inline]
    fn stop_error(&mut self, reason: StopReason) -> E {
        reason.into()
    }
}

/// Makes the error of a stop with the function that was given to `map_stop`.
#[derive(Clone)]
pub struct MapStop<F>(Option<F>);

impl<F> MapStop<F> {
    pub(crate) fn new(map: F) -> Self {
        Self(Some(map))
    }
}

#[diagnostic::do_not_recommend]
impl<F: FnOnce(StopReason) -> E, E> StopError<E> for MapStop<F> {
    fn stop_error(&mut self, reason: StopReason) -> E {
        match self.0.take() {
            Some(map) => map(reason),
            None => unreachable!("a stream is stopped once"),
        }
    }
}

impl<F> Debug for MapStop<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapStop").finish_non_exhaustive()
    }
}

/// What [`WithCancellation`](crate::WithCancellation) yields as the error of a stop: the reason, or what `map_stop`
/// makes.
pub trait StopOutput: StopError<Self::Error> {
    /// The error.
    type Error;
}

impl StopOutput for FromReason {
    type Error = StopReason;
}

impl<F: FnOnce(StopReason) -> E, E> StopOutput for MapStop<F> {
    type Error = E;
}
