use super::{
    Event, Letter, Output, Record, Source, Stop, StopPoint, Stoppable, View,
    clock::Clock,
    probe::nth_letter,
    quiet::take_location,
    subject::{Outcome, outcome_of},
};
use futures_core::Stream;
use futures_util::task::AtomicWaker;
use std::{
    any::Any,
    fmt::{self, Debug, Formatter},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

#[cfg(feature = "tokio")]
use tokio::time::Instant;

/// Drives a stream by hand, without an executor, a sleep or a wall clock.
///
/// The test decides when the stream is polled and woken, when the stop is fired, and when time passes. If the stream
/// hangs, the harness panics with a diagram of the run.
///
/// With the feature `tokio` the stream runs in the context of a current-thread runtime with a paused clock, so timers
/// and spawned tasks work. Tasks run, and timers fire, in [`run`](Self::run), [`stop`](Self::stop),
/// [`advance`](Self::advance), [`run_for`](Self::run_for) and [`drop_stream`](Self::drop_stream). Dropping the harness
/// drops the tasks. Use it in a plain `#[test]`.
///
/// # Examples
///
/// ```
/// use std::task::Poll;
/// use stopcock::{CancelStreamExt, testing::Harness};
///
/// let mut harness = Harness::scripted("a-b|", |source, stop| {
///     source.take_until_cancelled(stop.token())
/// });
/// assert_eq!(harness.poll(), Poll::Ready(Some('a')));
/// assert_eq!(harness.poll(), Poll::Pending);
/// assert_eq!(harness.wakes(), 0);
/// harness.stop();
/// assert_eq!(harness.wakes(), 1);
/// assert_eq!(harness.poll(), Poll::Ready(None));
/// assert_eq!(harness.record().to_string(), "\
/// source   a-..
/// stop     ..X.
/// woken    ..w.
/// output   a-.|
/// dropped  ...D");
/// ```
pub struct Harness<S: Stream + ?Sized> {
    /// `None` once it has been dropped.
    stream: Option<Pin<Box<S>>>,
    record: Record,
    stop: Stop,
    letter: fn(&S::Item, usize) -> Option<char>,
    outcome: fn(&S) -> Outcome,
    /// All wakers so far. The last one is used for the next poll.
    wakers: Vec<CountingWaker>,
    /// How often the current waker had been woken when the last poll began.
    wakes_before: usize,
    polls: usize,
    items: usize,
    /// The number of ready items since the last `Pending`.
    ready_run: usize,
    budget: usize,
    last: Option<Output>,
    clock: Clock,
}

/// The payload of a panic.
pub(super) type Panic = Box<dyn Any + Send>;

/// The default of [`Harness::with_budget`].
const BUDGET: usize = 10_000;

impl<S: Stream> Harness<S> {
    /// Drives the stream that `make` returns. In diagrams its items are `a`, `b`, `c` and so on.
    ///
    /// # Panics
    ///
    /// Inside a tokio runtime, as the harness has its own.
    #[track_caller]
    pub fn new(make: impl FnOnce(Stop) -> S) -> Self {
        Self::build(
            Clock::new(),
            StopPoint::ByHand,
            |stop, _| Box::pin(make(stop)),
            |_, n| Some(nth_letter(n)),
            |_| None,
        )
    }

    /// Drives the stream that `wrap` makes from a source with this script. At a `-` the source is pending until
    /// [`wake_source`](Self::wake_source) or [`run`](Self::run) wakes it.
    ///
    /// # Panics
    ///
    /// If `script` does not parse, or inside a tokio runtime.
    #[track_caller]
    pub fn scripted(script: &str, wrap: impl FnOnce(Source, Stop) -> S) -> Self
    where
        S::Item: Letter,
    {
        let source = Source::new(script).by_hand();
        Self::build(
            Clock::new(),
            StopPoint::ByHand,
            |stop, record| {
                let hook = stop.clone();
                let source = source.with_hook(move |moment| hook.reached(moment.into()));
                Box::pin(wrap(source.recorded_in(record), stop))
            },
            |item, _| item.letter(),
            |_| None,
        )
    }

    /// Also records `is_terminated()` and `stop_reason()` of the stream.
    #[must_use]
    pub fn with_outcome(mut self) -> Self
    where
        S: Stoppable,
    {
        self.outcome = outcome_of;
        self
    }
}

impl<S: Stream + ?Sized> Harness<S> {
    pub(super) fn build(
        clock: Clock,
        at: StopPoint,
        make: impl FnOnce(Stop, &Record) -> Pin<Box<S>>,
        letter: fn(&S::Item, usize) -> Option<char>,
        outcome: fn(&S) -> Outcome,
    ) -> Self {
        let record = Record::default();
        let stop = Stop::new(at, &record);
        let stream = {
            let _context = clock.enter();
            stop.reached(StopPoint::AtBirth);
            make(stop.clone(), &record)
        };
        let mut harness = Self {
            stream: Some(stream),
            record,
            stop,
            letter,
            outcome,
            wakers: Vec::new(),
            wakes_before: 0,
            polls: 0,
            items: 0,
            ready_run: 0,
            budget: BUDGET,
            last: None,
            clock,
        };
        harness.change_waker();
        harness.record_view();
        harness
    }

    /// Sets the maximum number of polls in one call of [`run`](Self::run). The default is 10,000.
    #[must_use]
    pub fn with_budget(mut self, polls: usize) -> Self {
        self.budget = polls;
        self
    }

    /// Polls the stream once.
    ///
    /// # Panics
    ///
    /// If the poll panics, or if the stream has been dropped.
    #[track_caller]
    pub fn poll(&mut self) -> Poll<Option<S::Item>> {
        self.try_poll().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Polls the stream like an executor, as long as it is ready or has been woken. Returns the items. After that the
    /// stream has ended or is pending.
    ///
    /// A source that is pending at a `-` is woken. Timers whose time has come fire, but no time passes: for that there
    /// is [`run_for`](Self::run_for).
    ///
    /// # Panics
    ///
    /// If a poll panics. If the stream has neither ended nor stayed pending after 10,000 polls, or the number set by
    /// [`with_budget`](Self::with_budget): then the message has a diagram of the last polls.
    #[track_caller]
    pub fn run(&mut self) -> Vec<S::Item> {
        let mut items = Vec::new();
        for _ in 0..self.budget {
            match self.poll() {
                Poll::Ready(Some(item)) => items.push(item),
                Poll::Ready(None) => return items,
                Poll::Pending => {
                    let happened = self.wait().unwrap_or_else(|panic| resume_unwind(panic));
                    if happened && self.is_woken() {
                        continue;
                    }
                    self.settle();
                    if !self.is_woken() {
                        return items;
                    }
                }
            }
        }
        panic!(
            "the stream has spent its budget of {} polls, and is neither over nor does it wait\n\n{}\n",
            self.budget, self.record
        );
    }

    /// Fires the stop at a later point: before a certain poll of the stream, or inside a poll of the source, a wake-up,
    /// or the drop of the source.
    ///
    /// Points inside the source need the source of [`scripted`](Self::scripted). A source that the test makes itself
    /// has a [hook](Source::with_hook) for them.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::{CancelStreamExt, testing::{Harness, StopPoint}};
    ///
    /// let mut harness = Harness::scripted("abc|", |source, stop| {
    ///     source.take_until_cancelled(stop.token())
    /// });
    /// harness.stop_at(StopPoint::During(1));
    /// // An item that was taken is yielded.
    /// assert_eq!(harness.run(), ['a', 'b']);
    /// ```
    pub fn stop_at(&mut self, at: StopPoint) {
        self.stop.set(at);
    }

    /// Fires the stop.
    ///
    /// # Panics
    ///
    /// Like [`Stop::fire`].
    pub fn stop(&mut self) {
        self.try_stop().unwrap_or_else(|panic| resume_unwind(panic));
    }

    pub(super) fn try_stop(&mut self) -> Result<(), Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        let fired = catch_unwind(AssertUnwindSafe(|| self.stop.fire()));
        clock.settle();
        self.record_view();
        fired
    }

    /// Lets time pass without a poll, like a consumer that is busy with something else.
    ///
    /// Timers fire and tasks run in order, each at its time.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn advance(&mut self, by: Duration) {
        let clock = self.clock.clone();
        let _context = clock.enter();
        clock.settle();
        self.pass(Instant::now() + by, false);
        self.stop.check_clock();
        self.record_view();
    }

    /// Polls the stream like [`run`](Self::run), and then each time it is woken while `time` passes. Returns the items.
    ///
    /// # Panics
    ///
    /// Like [`run`](Self::run).
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    #[track_caller]
    pub fn run_for(&mut self, time: Duration) -> Vec<S::Item> {
        let clock = self.clock.clone();
        let until = {
            let _context = clock.enter();
            Instant::now() + time
        };
        let mut items = self.run();
        while !self.is_over() {
            let is_past = {
                let _context = clock.enter();
                self.pass(until, true)
            };
            items.extend(self.run());
            if is_past {
                break;
            }
        }
        let _context = clock.enter();
        self.stop.check_clock();
        items
    }

    /// Wakes a source that is pending at a `-`. Returns whether it was.
    pub fn wake_source(&mut self) -> bool {
        let _context = self.clock.enter();
        self.record.wake()
    }

    /// Polls the stream with another waker from now on, as if it had moved to another task.
    pub fn change_waker(&mut self) {
        let inner = Arc::new(WakeCounter {
            number: AtomicUsize::new(0),
            wakes: AtomicUsize::new(0),
            waiting: AtomicWaker::new(),
            stop: self.stop.clone(),
            record: self.record.clone(),
        });
        let waker = Waker::from(Arc::clone(&inner));
        let number = self.record.number(&waker);
        inner.number.store(number, SeqCst);
        self.wakers.push(CountingWaker { inner, waker });
    }

    /// How often the current waker has been woken.
    pub fn wakes(&self) -> usize {
        self.current_waker().inner.wakes.load(SeqCst)
    }

    /// How often the stream has been polled.
    pub fn polls(&self) -> usize {
        self.polls
    }

    /// Whether the last poll returned `None`.
    pub fn is_over(&self) -> bool {
        self.last == Some(Output::End)
    }

    /// Drops the stream, and then runs the tasks that this has woken.
    ///
    /// # Panics
    ///
    /// If the drop panics.
    pub fn drop_stream(&mut self) {
        let dropped = self.try_drop_stream(false);
        self.settle();
        if let Err(panic) = dropped {
            resume_unwind(panic);
        }
    }

    /// Everything that has happened. It displays as a diagram.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The stop, for code that fires it from elsewhere.
    pub fn stop_handle(&self) -> &Stop {
        &self.stop
    }

    /// Polls the stream. If the stop is due, it is fired before that.
    #[track_caller]
    pub(super) fn try_poll(&mut self) -> Result<Poll<Option<S::Item>>, Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        self.stop_if_due()?;
        let Some(stream) = &mut self.stream else {
            panic!("the stream has been dropped, and cannot be polled");
        };
        let Some(CountingWaker { waker, inner }) = self.wakers.last() else {
            unreachable!("a harness is built with a waker");
        };
        self.wakes_before = inner.wakes.load(SeqCst);
        let number = inner.number.load(SeqCst);
        self.record.add(Event::Polled { waker: number });
        let mut cx = Context::from_waker(waker);
        // Discards the location of a panic that the stream has caught itself.
        take_location();
        let polled = catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_next(&mut cx)));
        let output = match &polled {
            Ok(Poll::Pending) => Output::Pending,
            Ok(Poll::Ready(None)) => Output::End,
            Ok(Poll::Ready(Some(item))) => match (self.letter)(item, self.items) {
                Some(letter) => Output::Item(letter),
                None => Output::Stopped,
            },
            Err(panic) => Output::Panic(message(&**panic)),
        };
        self.polls += 1;
        match output {
            Output::Item(_) => {
                self.items += 1;
                self.ready_run += 1;
            }
            _ => self.ready_run = 0,
        }
        self.record.add(Event::Gave(output.clone()));
        self.last = Some(output);
        self.record_view();
        polled
    }

    /// Fires the stop or wakes the source of a pending stream, if either is due. Returns whether the stream is woken or
    /// anything else happened.
    pub(super) fn wait(&mut self) -> Result<bool, Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        clock.turn();
        let happened = self.stop_if_due()? || (!self.is_woken() && self.record.wake());
        clock.turn();
        Ok(happened || self.is_woken())
    }

    /// Like [`wait`](Self::wait). Then tasks run and time passes until the stream is woken.
    #[cfg(feature = "tokio")]
    pub(super) fn wait_until_woken(&mut self) -> Result<bool, Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        // Tasks that are ready run before the source is woken.
        clock.settle();
        self.wait()?;
        clock.settle();
        if !self.is_woken() {
            self.pass(Instant::now() + IDLE_TIME, true);
        }
        Ok(self.is_woken())
    }

    #[cfg(not(feature = "tokio"))]
    pub(super) fn wait_until_woken(&mut self) -> Result<bool, Panic> {
        self.wait()
    }

    /// Like [`wait`](Self::wait), with `time` passing: after an item this is a slow consumer, after a `Pending` a slow
    /// source. In the latter case it ends once the stream is woken, unless the executor is slow.
    #[cfg(feature = "tokio")]
    pub(super) fn wait_for(&mut self, time: Duration, is_slow: bool) -> Result<(), Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        self.stop_if_due()?;
        clock.turn();
        let is_pending = self.last == Some(Output::Pending);
        let ends_at_wake = is_pending && !is_slow;
        let is_over = time.is_zero() || (ends_at_wake && self.is_woken());
        if !is_over {
            self.pass(Instant::now() + time, ends_at_wake);
        }
        if is_pending && !self.is_woken() {
            self.record.wake();
        }
        clock.turn();
        Ok(())
    }

    #[cfg(not(feature = "tokio"))]
    pub(super) fn wait_for(&mut self, _: Duration, _: bool) -> Result<(), Panic> {
        self.wait().map(drop)
    }

    /// Lets time pass until `until`, or until the stream is woken if `ends_at_wake`. Returns whether `until` was reached.
    #[cfg(feature = "tokio")]
    fn pass(&self, until: Instant, ends_at_wake: bool) -> bool {
        let inner = Arc::clone(&self.current_waker().inner);
        let wakes = self.wakes_before;
        let start = Instant::now();
        let is_past = self.clock.pass(until, |cx| match ends_at_wake {
            true => inner.poll_woken(wakes, cx),
            false => Poll::Pending,
        });
        self.record.add(Event::Passed(start.elapsed()));
        is_past
    }

    fn settle(&self) {
        let _context = self.clock.enter();
        self.clock.settle();
    }

    /// Whether the waker of the last poll has been woken since that poll began.
    pub(super) fn is_woken(&self) -> bool {
        self.wakes() > self.wakes_before
    }

    /// Drops the stream. With `run_tasks`, the tasks run before the outcome is recorded.
    pub(super) fn try_drop_stream(&mut self, run_tasks: bool) -> Result<(), Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        self.record.add(Event::Dropping);
        let stream = self.stream.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream)));
        if run_tasks {
            clock.settle();
        }
        self.record.add(Event::Dropped {
            held_wakers: self.held_wakers(),
            fired_the_stop: self.stop.is_cancelled() && !self.stop.is_fired(),
            panicked: dropped.is_err(),
        });
        dropped
    }

    /// Fires the stop if it is due before the next poll.
    fn stop_if_due(&mut self) -> Result<bool, Panic> {
        let is_due = self.stop.is_due(StopPoint::Before(self.polls));
        if is_due {
            let fired = catch_unwind(AssertUnwindSafe(|| self.stop.fire()));
            // An executor fires timers when the stream is pending. In a run of ready items only a consumer that awaits
            // something lets it do so. Here the consumer does so in long runs.
            if self.ready_run == 0 || self.ready_run >= LONG_RUN {
                self.clock.turn();
            }
            self.record_view();
            fired?;
        }
        Ok(is_due)
    }

    fn record_view(&self) {
        if let Some(stream) = &self.stream {
            self.record.add(Event::Seen(View {
                size_hint: stream.size_hint(),
                outcome: (self.outcome)(stream),
                held_wakers: self.held_wakers(),
            }));
        }
    }

    fn held_wakers(&self) -> usize {
        let kept = self.record.kept();
        let is_held = |waker: &&CountingWaker| {
            let number = waker.inner.number.load(SeqCst);
            let known = 2 + usize::from(kept == Some(number));
            Arc::strong_count(&waker.inner) > known
        };
        self.wakers.iter().filter(is_held).count()
    }

    fn current_waker(&self) -> &CountingWaker {
        match self.wakers.last() {
            Some(brought) => brought,
            None => unreachable!("a harness is built with a waker"),
        }
    }
}

/// In a run of at least this number of ready items the consumer awaits something before the stop: by D6 the stream is
/// stopped at the next poll then.
pub(super) const LONG_RUN: usize = 65;

/// How much time passes for a pending stream that is not woken.
#[cfg(feature = "tokio")]
const IDLE_TIME: Duration = Duration::from_secs(3600);

/// The message of a panic that has just been caught, with its location if the panic hook has not printed it.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => *message,
        (None, Some(message)) => message.as_str(),
        (None, None) => "(no text)",
    };
    match take_location() {
        Some(location) => format!("{message}, at {location}"),
        None => message.to_owned(),
    }
}

/// A waker of the harness. Further handles of `inner` belong to the stream, or to what it waits for.
struct CountingWaker {
    waker: Waker,
    inner: Arc<WakeCounter>,
}

struct WakeCounter {
    number: AtomicUsize,
    wakes: AtomicUsize,
    /// Woken as well: the code that lets time pass until the stream is woken.
    waiting: AtomicWaker,
    stop: Stop,
    record: Record,
}

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        let waker = self.number.load(SeqCst);
        self.record.add(Event::Woken { waker });
        self.waiting.wake();
        self.stop.woken();
    }
}

impl WakeCounter {
    /// Ready once it has been woken more than `wakes` times.
    #[cfg(feature = "tokio")]
    fn poll_woken(&self, wakes: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        match self.wakes.load(SeqCst) > wakes {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<S: Stream + ?Sized> Debug for Harness<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("polls", &self.polls)
            .field("last", &self.last)
            .field("is_stopped", &self.stop.is_fired())
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl<S: Stream + ?Sized> Drop for Harness<S> {
    fn drop(&mut self) {
        // A drop in the stream may need the runtime.
        let _context = self.clock.enter();
        self.stream = None;
    }
}
