use super::{Event, Probe, Record};
use futures_core::Stream;
use std::{cell::RefCell, panic::Location};

/// Records its drop in a [`Record`]. Move it into a closure, or into the body of a generator.
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
#[must_use = "a probe that is not moved anywhere is dropped at once"]
pub struct DropProbe {
    record: Record,
}

impl DropProbe {
    /// Makes a probe.
    pub fn new() -> Self {
        Self::default()
    }

    /// The record that shows whether it has been dropped.
    pub fn record(&self) -> Record {
        self.record.clone()
    }
}

impl Drop for DropProbe {
    fn drop(&mut self) {
        self.record.add(Event::SourceDropped);
    }
}

/// Makes the probes for [`assert_no_leak`].
#[derive(Debug, Default)]
pub struct Probes {
    /// Each with the source line that made it.
    taken: RefCell<Vec<(&'static Location<'static>, Record)>>,
}

impl Probes {
    /// Makes a probe, to be owned by something that must not leak.
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

/// Runs `f`, and checks that every probe that it has made has been dropped when it returns. Returns the result of `f`.
///
/// Tests that run at the same time do not affect each other.
///
/// # Panics
///
/// If a probe is still alive. The message lists the source lines that made these probes.
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
