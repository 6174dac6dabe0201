use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    io,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

/// Why a stream, a future or a token was stopped.
///
/// A [`CancellationToken`](crate::CancellationToken) passes it on to its whole subtree. An adapter returns it from
/// `stop_reason()`; a `with_*` or `try_*` adapter also yields it, as its last item. Behind an adapter of another crate, such as `map` of futures, reach
/// this crate's adapter by `get_ref()`: `stream.get_ref().stop_reason()`.
///
/// In Go it is the error of `context.Cause(ctx)`.
///
/// # Examples
///
/// ```
/// use stopcock::{CancellationToken, StopReason};
///
/// let token = CancellationToken::new();
/// token.cancel_with("the disk is full");
/// assert_eq!(token.stop_reason().unwrap().to_string(), "the disk is full");
///
/// let error = std::io::Error::from(StopReason::DeadlineExceeded);
/// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// It was cancelled, and no other reason was given: Go's `context.Canceled`.
    Cancelled,
    /// The deadline passed: Go's `context.DeadlineExceeded`.
    DeadlineExceeded,
    /// No item came for too long.
    IdleTimeout,
    /// The consumer dropped the stream.
    ConsumerDropped,
    /// An error of the caller's own. It displays as the error, and has the error's `source()`.
    Custom(Arc<dyn Error + Send + Sync>),
    /// A deadline with a reason of its own passed, such as that of a token's `child_with_timeout_cause`. It displays as
    /// the error, and has the error's `source()`.
    TimedOut(Arc<dyn Error + Send + Sync>),
}

impl StopReason {
    /// Makes a reason from an error or a text.
    ///
    /// An error that is a `StopReason` itself is returned as it is.
    pub fn custom(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match error.into().downcast() {
            Ok(reason) => *reason,
            Err(error) => Self::Custom(Arc::from(error)),
        }
    }

    /// The error that the reason was made from, if it is an `E`. Like `downcast_ref` of `dyn Error`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error()?.downcast_ref()
    }

    /// Whether time ran out: a deadline passed, with or without a reason of its own, or no item came for too long.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::DeadlineExceeded | Self::IdleTimeout | Self::TimedOut(_) => true,
            Self::Cancelled | Self::ConsumerDropped | Self::Custom(_) => false,
        }
    }

    /// Finds the `StopReason` that an error was made from: the error itself, or one in its chain of sources.
    ///
    /// Go calls this `errors.As`. An [`io::Error`] is searched through its `get_ref()` as well, because its `source()`
    /// skips the error that it was made from.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use stopcock::StopReason;
    ///
    /// let error = io::Error::from(StopReason::DeadlineExceeded);
    /// assert!(StopReason::find_in(&error).is_some_and(StopReason::is_timeout));
    /// assert!(StopReason::find_in(&io::Error::other("the disk is full")).is_none());
    /// ```
    pub fn find_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(reason) = error.downcast_ref() {
                return Some(reason);
            }
            let inner = error.downcast_ref().and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    /// The reason of a deadline with this cause.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_timeout(self) -> Self {
        match self {
            Self::Custom(error) => Self::TimedOut(error),
            Self::Cancelled | Self::ConsumerDropped => Self::TimedOut(Arc::new(self)),
            Self::DeadlineExceeded | Self::IdleTimeout | Self::TimedOut(_) => self,
        }
    }

    /// The error that it displays as.
    fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match self {
            Self::Custom(error) | Self::TimedOut(error) => Some(&**error),
            Self::Cancelled
            | Self::DeadlineExceeded
            | Self::IdleTimeout
            | Self::ConsumerDropped => None,
        }
    }
}

impl Display for StopReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.pad("cancelled"),
            Self::DeadlineExceeded => f.pad("deadline exceeded"),
            Self::IdleTimeout => f.pad("idle for too long"),
            Self::ConsumerDropped => f.pad("consumer dropped"),
            Self::Custom(error) | Self::TimedOut(error) => Display::fmt(error, f),
        }
    }
}

impl Error for StopReason {
    /// The source of the error that it displays as: a report that prints the whole chain prints each error once.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error()?.source()
    }
}

impl From<&'static str> for StopReason {
    fn from(text: &'static str) -> Self {
        Self::custom(text)
    }
}

impl From<String> for StopReason {
    fn from(text: String) -> Self {
        Self::custom(text)
    }
}

impl From<Box<dyn Error + Send + Sync>> for StopReason {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::custom(error)
    }
}

// A shared error is only read, so a panic cannot leave it in a broken state.
impl UnwindSafe for StopReason {}
impl RefUnwindSafe for StopReason {}

/// `TimedOut` for [timeouts](StopReason::is_timeout), else `Other`. Never `Interrupted`: std's readers retry on that,
/// and a truncated response would look complete.
impl From<StopReason> for io::Error {
    fn from(reason: StopReason) -> Self {
        let kind = match reason.is_timeout() {
            true => io::ErrorKind::TimedOut,
            false => io::ErrorKind::Other,
        };
        Self::new(kind, reason)
    }
}
