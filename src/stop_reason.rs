use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    io,
    sync::Arc,
};

/// Why a stream, a future or a token was stopped.
///
/// A [`CancellationToken`](crate::CancellationToken) passes it on to its whole subtree. An adapter returns it from
/// `stop_reason()`, or yields it as its last item.
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
    /// It was cancelled without another reason.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
    /// No item came for too long.
    IdleTimeout,
    /// The consumer dropped the stream.
    ConsumerDropped,
    /// An error of the caller's own. It displays as that error, which is also its `source()`.
    Custom(Arc<dyn Error + Send + Sync>),
}

impl StopReason {
    /// Makes a reason from an error or a text.
    pub fn custom(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Custom(Arc::from(error.into()))
    }

    /// The error that the reason was made from, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Custom(error) => error.downcast_ref(),
            _ => None,
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
            Self::Custom(error) => Display::fmt(error, f),
        }
    }
}

impl Error for StopReason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Custom(error) => Some(&**error),
            _ => None,
        }
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

/// `TimedOut` for the two timeouts, else `Other`. Never `Interrupted`: std's readers retry on that, and a truncated
/// response would look complete.
impl From<StopReason> for io::Error {
    fn from(reason: StopReason) -> Self {
        let kind = match reason {
            StopReason::DeadlineExceeded | StopReason::IdleTimeout => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, reason)
    }
}
