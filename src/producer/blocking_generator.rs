use super::{
    Consumer, Join, Outcome, Report, blocking_sender::BlockingSender, impl_stream, thread, token_of,
};
use crate::{
    IntoSignal, StopReason, channel::Channel, first_panic::FirstPanic, signal::EndCall, token::Hold,
};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Makes a stream from a body that blocks, on a thread of its own, at most `capacity` items ahead of its consumer, until
/// it returns or `signal` fires.
///
/// ```text
/// body     abc-----d--e--      capacity 2; the third send blocks
/// signal   ---------------X
/// output   ------a--b--c--|
/// ```
///
/// For code that is not `async`: iterators, files, callbacks, libraries. For a plain iterator there is [`blocking_iter`],
/// and for a single call [`run_blocking`](crate::run_blocking()). The thread is not from the runtime's blocking pool:
/// producers that wait for their consumers would exhaust it. Its name is `stopcock`.
///
/// # Termination
///
/// The stream ends when the body has returned and all sent items have been delivered. Once the body has returned, clones
/// of the sender fail. When the signal fires, the stream ends without an error: it yields no further item, even if one
/// is ready, and the items in the channel are dropped.
///
/// A token of this crate stops the body at once, and needs no runtime. Any other signal is watched by a task of the
/// current runtime, which stops the body when it runs; if that runtime shuts down, or the signal panics, the producer
/// is stopped with [`Cancelled`](StopReason::Cancelled). A signal that never fires, such as
/// [`never()`](fn@crate::signal::never), is not watched.
///
/// When the signal fires, and when the stream is dropped, the next [`send`](BlockingSender::send) or
/// [`check`](BlockingSender::check) of the body fails, and a blocked send fails at once. So a body that passes these
/// errors on with `?` returns, and its thread ends. A call in the body that does neither cannot be interrupted. The
/// stream does not wait for it; [`join`](BlockingGenerator::join) does. If the signal has fired before this call, the
/// body never starts.
///
/// If the body returns an `Err`, the stream yields the items sent before it and ends, with that error as its
/// [`stop_reason`](BlockingGenerator::stop_reason). If the body panics, the consumer's poll panics, once, after the
/// items sent before.
///
/// If the system cannot start a thread, the stream is stopped before it begins: its
/// [`stop_reason`](BlockingGenerator::stop_reason) is a [`Custom`](StopReason::Custom) with the
/// [`io::Error`](std::io::Error).
///
/// Once the token is cancelled, [`CancellationToken::settled`](crate::CancellationToken::settled) waits until the body
/// has returned. The stream does not have to be polled or dropped for that.
///
/// # Paused clock
///
/// While all tasks wait, tokio's paused clock advances to the next timer, although a thread may be running: in a test
/// with `start_paused` a timeout elapses before the body has sent anything. `spawn_blocking` stops the clock while its
/// closure runs. So a test can run such a closure for as long as the body:
///
/// ```
/// use futures::StreamExt;
/// use std::{sync::mpsc, time::Duration};
/// use stopcock::{CancellationToken, blocking_generator};
///
/// #[tokio::main(flavor = "current_thread", start_paused = true)]
/// async fn main() {
///     let (working, is_done) = mpsc::channel::<()>();
///     tokio::task::spawn_blocking(move || is_done.recv());
///     let mut lines = blocking_generator(CancellationToken::new(), 4, move |tx| {
///         // Dropped with the body. From then on the clock may advance.
///         let _working = working;
///         std::thread::sleep(Duration::from_millis(5));
///         tx.send("a slow line")
///     });
///     let line = tokio::time::timeout(Duration::from_millis(1), lines.next()).await;
///     assert_eq!(line, Ok(Some("a slow line")));
/// }
/// ```
///
/// Then the clock also stands still while the body waits for its consumer.
///
/// # Fairness
///
/// Like [`take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled).
///
/// # Cancel safety
///
/// Dropping a `next()` future loses no item.
///
/// # Panics
///
/// If the capacity is 0. If the signal has to be watched, and there is no tokio runtime, or the feature `tokio` is off.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use stopcock::{CancellationToken, blocking_generator};
///
/// /// Of some library: calls back for each of a million pages.
/// fn visit_pages(mut visit: impl FnMut(u32) -> bool) {
///     (0..1_000_000).all(|page| visit(page));
/// }
///
/// # futures::executor::block_on(async {
/// let token = CancellationToken::new();
/// let mut pages = blocking_generator(&token, 4, |tx| {
///     visit_pages(|page| tx.send(page).is_ok());
///     tx.check()
/// });
/// assert_eq!(pages.next().await, Some(0));
/// assert_eq!(pages.next().await, Some(1));
/// token.cancel();
/// assert_eq!(pages.next().await, None);
/// // Waits until the body has returned.
/// assert!(pages.join().await.is_err());
/// # });
/// ```
#[track_caller]
pub fn blocking_generator<T, G, B>(signal: G, capacity: usize, body: B) -> BlockingGenerator<T>
where
    T: Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(BlockingSender<T>) -> Result<(), StopReason> + Send + 'static,
{
    start(signal, capacity, |item| item, body, Outcome::of, None)
}

/// Like [`blocking_generator`], for a body that may fail: its error is the last item.
///
/// ```text
/// body     a--b--E
/// output   -a--b--(E|)
///
/// body     a--b--c--d--
/// signal   -------X
/// output   -a--b--(X|)
/// ```
///
/// `send(x)` sends `Ok(x)`. `?` works for the errors of the sender as well as for those of the body.
///
/// # Errors
///
/// There is at most one `Err`, as the last item: the error of the body, or that of the stop, `E::from(reason)`, if the
/// signal fired first. What the body returns after a stop is dropped. So a truncated stream never looks complete.
///
/// # Panics
///
/// Like [`blocking_generator`].
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use std::io::{self, BufRead};
/// use stopcock::{CancellationToken, try_blocking_generator};
///
/// # futures::executor::block_on(async {
/// let file = io::Cursor::new("one\ntwo\n");
/// let lines = try_blocking_generator(CancellationToken::new(), 16, move |tx| {
///     for line in file.lines() {
///         tx.send(line?)?;
///     }
///     Ok::<_, io::Error>(())
/// });
/// # let lines = lines.map(Result::unwrap).collect::<Vec<_>>().await;
/// # assert_eq!(lines, ["one", "two"]);
/// # });
/// ```
#[track_caller]
pub fn try_blocking_generator<T, E, G, B>(
    signal: G,
    capacity: usize,
    body: B,
) -> BlockingGenerator<Result<T, E>>
where
    T: Send + 'static,
    E: From<StopReason> + Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(BlockingSender<T, Result<T, E>>) -> Result<(), E> + Send + 'static,
{
    let report = Some(Report::new());
    start(signal, capacity, Ok, body, Outcome::of_try, report)
}

/// Makes a stream from an iterator whose `next` blocks, on a thread of its own, at most `capacity` items ahead of its
/// consumer.
///
/// It is a [`blocking_generator`] that sends the items. When the signal fires, the stream ends at once, without an error,
/// and [`stop_reason`](BlockingGenerator::stop_reason) is the reason. A blocked `next` is not interrupted: the iterator is
/// dropped, on its thread, when `next` returns.
///
/// # Panics
///
/// Like [`blocking_generator`].
///
/// # Examples
///
/// The lines of a file, which are results:
///
/// ```
/// use futures::{TryStreamExt, executor::block_on};
/// use std::{fs::File, io::{self, BufRead, BufReader}};
/// use stopcock::{CancellationToken, blocking_iter};
///
/// # fn main() -> io::Result<()> {
/// let token = CancellationToken::new();
/// let file = BufReader::new(File::open("Cargo.toml")?);
/// let lines: Vec<String> = block_on(blocking_iter(&token, 16, file.lines()).try_collect())?;
/// assert!(lines.len() > 1);
/// # Ok(())
/// # }
/// ```
///
/// ```
/// use futures::StreamExt;
/// use stopcock::{CancellationToken, blocking_iter};
///
/// # futures::executor::block_on(async {
/// let token = CancellationToken::new();
/// let squares = blocking_iter(&token, 8, (1..=3).map(|n| n * n));
/// assert_eq!(squares.collect::<Vec<u32>>().await, [1, 4, 9]);
/// # });
/// ```
#[track_caller]
pub fn blocking_iter<I, G>(signal: G, capacity: usize, items: I) -> BlockingGenerator<I::Item>
where
    I: IntoIterator<Item: Send + 'static> + Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
{
    blocking_generator(signal, capacity, |tx| {
        items.into_iter().try_for_each(|item| tx.send(item))
    })
}

#[track_caller]
fn start<T, R, G, B, E>(
    signal: G,
    capacity: usize,
    wrap: fn(T) -> R,
    body: B,
    outcome: fn(Result<(), E>) -> Outcome<R>,
    report: Option<Report<R>>,
) -> BlockingGenerator<R>
where
    T: 'static,
    R: Send + 'static,
    E: From<StopReason> + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(BlockingSender<T, R>) -> Result<(), E> + Send + 'static,
{
    let what = match report {
        None => "blocking_generator",
        Some(_) => "try_blocking_generator",
    };
    let stop = token_of(signal.into_signal_of(what));
    let channel = Channel::new(capacity, stop);
    channel.close_at_stop();
    let consumer = Consumer::new(Arc::clone(&channel), report);
    // If it has been stopped already, the body never begins.
    match channel.stop_reason() {
        Some(reason) => channel.end(Err(reason), None),
        None => {
            let hold = Hold::new(channel.stop().clone(), what);
            let body_channel = Arc::clone(&channel);
            let work = move || {
                let channel = body_channel;
                let tx = BlockingSender::new(Arc::clone(&channel), wrap);
                let mut panic = FirstPanic::default();
                let mut ended = None;
                panic.catch(|| ended = Some(body(tx)));
                let outcome = match (ended, panic.into_payload()) {
                    (Some(ended), None) => outcome(ended),
                    (_, Some(payload)) => Outcome::panicked(payload),
                    (None, None) => unreachable!("a body returns something unless it panics"),
                };
                channel.end(outcome.ended, outcome.last);
                drop(hold);
            };
            if let Err(reason) = thread::spawn(work) {
                // As if the body had begun, and failed at once.
                let outcome = outcome(Err(E::from(reason)));
                channel.end(outcome.ended, outcome.last);
            }
        }
    }
    BlockingGenerator::new(consumer)
}

/// The stream of [`blocking_generator`], [`try_blocking_generator`] and [`blocking_iter`].
#[pin_project]
#[must_use = "dropping the stream stops its body"]
pub struct BlockingGenerator<T, F: FnOnce(Result<(), &StopReason>) = fn(Result<(), &StopReason>)> {
    // Dropped in this order.
    consumer: Consumer<T>,
    on_end: EndCall<F>,
}

impl_stream!(BlockingGenerator);
