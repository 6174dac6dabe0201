use super::{Event, Probe, Record};
use futures_core::Stream;
use std::{cell::RefCell, panic::Location};

/// Reports to its [`Record`] when it is dropped: to be captured by a closure, or by the body of a generator.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use stopcock::{CancellationToken, generator, testing::DropProbe};
///
/// let probe = DropProbe::new();
/// let record = probe.record();
/// let token = CancellationToken::new();
/// let mut numbers = Box::pin(generator(&token, async move |mut y| {
///     let _connection = probe;
///     for n in 0.. {
///         y.yield_item(n).await;
///     }
/// }));
/// futures::executor::block_on(async {
///     assert_eq!(numbers.next().await, Some(0));
///     assert!(!record.is_dropped());
///     token.cancel();
///     assert_eq!(numbers.next().await, None);
///     assert!(record.is_dropped());
/// });
/// ```
#[derive(Debug, Default)]
#[must_use = "it is dropped at once"]
pub struct DropProbe {
    record: Record,
}

impl DropProbe {
    /// A new one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to see whether it was dropped.
    pub fn record(&self) -> Record {
        self.record.clone()
    }
}

impl Drop for DropProbe {
    fn drop(&mut self) {
        self.record.add(Event::SourceDropped);
    }
}

/// Where [`assert_no_leak`] takes its probes from.
#[derive(Debug, Default)]
pub struct Probes {
    /// Each with the place in the code that took it.
    taken: RefCell<Vec<(&'static Location<'static>, Record)>>,
}

impl Probes {
    /// A probe to be owned by what must not leak.
    #[track_caller]
    pub fn drop_probe(&self) -> DropProbe {
        let probe = DropProbe::new();
        self.take(probe.record());
        probe
    }

    /// Wraps a stream that must not leak.
    #[track_caller]
    pub fn stream<S: Stream>(&self, stream: S) -> Probe<S> {
        let probe = Probe::new(stream);
        self.take(probe.record());
        probe
    }

    #[track_caller]
    fn take(&self, record: Record) {
        self.taken.borrow_mut().push((Location::caller(), record));
    }
}

/// Runs `f` and checks that every probe it took is dropped when it returns. What it returns is handed on.
///
/// The probes are its own: tests that run at the same time do not disturb each other.
///
/// # Panics
///
/// If a probe is alive, with the places in the code where those were taken.
///
/// # Examples
///
/// ```
/// use futures::{StreamExt, executor::block_on, stream};
/// use stopcock::{CancelStreamExt, CancellationToken, testing::assert_no_leak};
///
/// let token = CancellationToken::new();
/// let _items = assert_no_leak(|probes| {
///     let source = probes.stream(stream::repeat('a'));
///     let mut items = source.take_until_cancelled(&token);
///     block_on(items.next());
///     token.cancel();
///     block_on(items.next());
///     // The adapter is alive, its source is not.
///     items
/// });
/// ```
#[track_caller]
pub fn assert_no_leak<R>(f: impl FnOnce(&Probes) -> R) -> R {
    let probes = Probes::default();
    let result = f(&probes);
    let taken = probes.taken.into_inner();
    let leaks: Vec<_> = taken
        .iter()
        .filter(|(_, record)| !record.is_dropped())
        .map(|(location, _)| format!("\n  taken at {location}"))
        .collect();
    assert!(
        leaks.is_empty(),
        "{} of {} probes are still alive:{}",
        leaks.len(),
        taken.len(),
        leaks.concat()
    );
    result
}
