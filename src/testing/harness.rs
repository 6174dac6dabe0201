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

/// Drives a stream by hand: no executor, no sleep, no wall clock.
///
/// Polls, wake-ups, the stop and the clock come one at a time, when the test says so. A stream that hangs is a panic
/// with a diagram of the run, not a test that never ends.
///
/// With the feature `tokio` the stream finds itself in a runtime of one thread whose clock is paused, so that its timers
/// and tasks work. They get their turn in [`run`](Self::run), [`stop`](Self::stop), [`advance`](Self::advance),
/// [`run_for`](Self::run_for) and [`drop_stream`](Self::drop_stream), and are dropped with the harness. It is called from a
/// plain `#[test]`.
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
    /// Gone once it is dropped.
    stream: Option<Pin<Box<S>>>,
    record: Record,
    stop: Stop,
    letter: fn(&S::Item, usize) -> Option<char>,
    outcome: fn(&S) -> Outcome,
    /// All that it brought: the last one is the one in use.
    wakers: Vec<Brought>,
    /// How often the waker in use had been woken when the last poll began.
    wakes_before: usize,
    polls: usize,
    items: usize,
    /// How many items came since the last `Pending`.
    row: usize,
    budget: usize,
    last: Option<Output>,
    clock: Clock,
}

/// What a poll panicked with.
pub(super) type Panic = Box<dyn Any + Send>;

/// How many polls a stream has got for each call of [`Harness::run`], unless it is set otherwise.
const BUDGET: usize = 10_000;

impl<S: Stream> Harness<S> {
    /// Drives the stream that `make` makes. In diagrams its items are `a`, `b`, `c` and so on.
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: it has one of its own.
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

    /// Drives the stream that `wrap` makes of a source with this script, whose `-` lasts until
    /// [`wake_source`](Self::wake_source) or [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// If that is no script, or inside of a tokio runtime.
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

    /// Writes down as well whether the stream says that it is terminated, and why.
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
            row: 0,
            budget: BUDGET,
            last: None,
            clock,
        };
        harness.change_waker();
        harness.see();
        harness
    }

    /// Gives the stream `polls` polls for each call of [`run`](Self::run), in place of 10,000.
    #[must_use]
    pub fn with_budget(mut self, polls: usize) -> Self {
        self.budget = polls;
        self
    }

    /// Polls the stream once.
    ///
    /// # Panics
    ///
    /// If the poll does, or if the stream has been dropped.
    #[track_caller]
    pub fn poll(&mut self) -> Poll<Option<S::Item>> {
        self.try_poll().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Polls the stream as an executor does, for as long as it is ready or has been woken, and answers what it gave.
    /// Then it is over, or waits.
    ///
    /// A source that waits in a `-` is woken; timers that are over fire, but time does not go on: for that there is
    /// [`run_for`](Self::run_for).
    ///
    /// # Panics
    ///
    /// If a poll does, or if it neither is over nor waits after 10,000 polls, or
    /// [as many as it was given](Self::with_budget): with a diagram of the last ones.
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

    /// Fires the stop later: before a poll to come, or from inside of a poll of the source, of a wake-up, or of the drop of
    /// the source.
    ///
    /// A poll or a drop of the source is one of [`scripted`](Self::scripted); one that a test brings with it has a
    /// [hook](Source::with_hook) for that.
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
    /// // An item that was taken is handed on.
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
        self.see();
        fired
    }

    /// Lets so much time go by without a poll: as with a consumer that is busy elsewhere.
    ///
    /// Timers fire and tasks run in their order, each at its time.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn advance(&mut self, by: Duration) {
        let clock = self.clock.clone();
        let _context = clock.enter();
        clock.settle();
        self.pass(Instant::now() + by, false);
        self.stop.check_clock();
        self.see();
    }

    /// Polls the stream as [`run`](Self::run) does, and whenever it is woken in so much time, and answers what it gave.
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

    /// Ends the `-` in which the source waits, and says whether it did wait.
    pub fn wake_source(&mut self) -> bool {
        let _context = self.clock.enter();
        self.record.wake()
    }

    /// Moves the stream to another waker, as to another task: from the next poll on.
    pub fn change_waker(&mut self) {
        let hand = Arc::new(HandWaker {
            number: AtomicUsize::new(0),
            wakes: AtomicUsize::new(0),
            waiting: AtomicWaker::new(),
            stop: self.stop.clone(),
            record: self.record.clone(),
        });
        let waker = Waker::from(Arc::clone(&hand));
        let number = self.record.number(&waker);
        hand.number.store(number, SeqCst);
        self.wakers.push(Brought { hand, waker });
    }

    /// How often the waker in use was woken.
    pub fn wakes(&self) -> usize {
        self.in_use().hand.wakes.load(SeqCst)
    }

    /// How often the stream was polled.
    pub fn polls(&self) -> usize {
        self.polls
    }

    /// Whether the last poll gave `None`.
    pub fn is_over(&self) -> bool {
        self.last == Some(Output::End)
    }

    /// Drops the stream, and lets the tasks run that take notice.
    ///
    /// # Panics
    ///
    /// If its drop does.
    pub fn drop_stream(&mut self) {
        let dropped = self.try_drop_stream(false);
        self.settle();
        if let Err(panic) = dropped {
            resume_unwind(panic);
        }
    }

    /// All that happened: it displays as a diagram.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The stop, to be fired from elsewhere.
    pub fn stop_handle(&self) -> &Stop {
        &self.stop
    }

    /// Polls the stream; if the stop is due, then after it.
    #[track_caller]
    pub(super) fn try_poll(&mut self) -> Result<Poll<Option<S::Item>>, Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        self.stop_if_due()?;
        let Some(stream) = &mut self.stream else {
            panic!("the stream has been dropped, and cannot be polled");
        };
        let Some(Brought { waker, hand }) = self.wakers.last() else {
            unreachable!("it is built with a waker");
        };
        self.wakes_before = hand.wakes.load(SeqCst);
        let number = hand.number.load(SeqCst);
        self.record.add(Event::Polled { waker: number });
        let mut cx = Context::from_waker(waker);
        // Of a panic that the stream has caught itself.
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
                self.row += 1;
            }
            _ => self.row = 0,
        }
        self.record.add(Event::Gave(output.clone()));
        self.last = Some(output);
        self.see();
        polled
    }

    /// Lets happen what a pending stream may wait for, and says whether anything did.
    pub(super) fn wait(&mut self) -> Result<bool, Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        clock.turn();
        let happened = self.stop_if_due()? || (!self.is_woken() && self.record.wake());
        clock.turn();
        Ok(happened || self.is_woken())
    }

    /// Like [`wait`](Self::wait), and tasks run and time passes until the stream is woken.
    #[cfg(feature = "tokio")]
    pub(super) fn go_on(&mut self) -> Result<bool, Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        // What its tasks do by themselves comes before what the source does.
        clock.settle();
        self.wait()?;
        clock.settle();
        if !self.is_woken() {
            self.pass(Instant::now() + GOES_ON, true);
        }
        Ok(self.is_woken())
    }

    #[cfg(not(feature = "tokio"))]
    pub(super) fn go_on(&mut self) -> Result<bool, Panic> {
        self.wait()
    }

    /// Like [`wait`](Self::wait), for so long: after an item the consumer takes its time, else the source does. Unless the
    /// executor is slow, that is over as soon as the stream is woken.
    #[cfg(feature = "tokio")]
    pub(super) fn wait_for(&mut self, time: Duration, is_slow: bool) -> Result<(), Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        self.stop_if_due()?;
        clock.turn();
        let is_pending = self.last == Some(Output::Pending);
        let heeds_wakes = is_pending && !is_slow;
        let is_over = time.is_zero() || (heeds_wakes && self.is_woken());
        if !is_over {
            self.pass(Instant::now() + time, heeds_wakes);
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

    /// Lets time go on until then, or until the stream is woken, if that is heeded. Whether it has come to then.
    #[cfg(feature = "tokio")]
    fn pass(&self, until: Instant, heeds_wakes: bool) -> bool {
        let hand = Arc::clone(&self.in_use().hand);
        let wakes = self.wakes_before;
        let start = Instant::now();
        let is_past = self.clock.pass(until, |cx| match heeds_wakes {
            true => hand.poll_woken(wakes, cx),
            false => Poll::Pending,
        });
        self.record.add(Event::Passed(start.elapsed()));
        is_past
    }

    fn settle(&self) {
        let _context = self.clock.enter();
        self.clock.settle();
    }

    /// Whether the last poll's waker was woken since that poll began.
    pub(super) fn is_woken(&self) -> bool {
        self.wakes() > self.wakes_before
    }

    /// Drops the stream; if tasks have a turn, then before it is written down what became of that.
    pub(super) fn try_drop_stream(&mut self, tasks_have_a_turn: bool) -> Result<(), Panic> {
        let clock = self.clock.clone();
        let _context = clock.enter();
        self.record.add(Event::Dropping);
        let stream = self.stream.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream)));
        if tasks_have_a_turn {
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
            // An executor comes to its timers when the stream is pending. In a row of items the consumer is what
            // waits, and short rows are those where it does not.
            if self.row == 0 || self.row >= LONG_ROW {
                self.clock.turn();
            }
            self.see();
            fired?;
        }
        Ok(is_due)
    }

    fn see(&self) {
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
        let is_held = |brought: &&Brought| {
            let number = brought.hand.number.load(SeqCst);
            let known = 2 + usize::from(kept == Some(number));
            Arc::strong_count(&brought.hand) > known
        };
        self.wakers.iter().filter(is_held).count()
    }

    fn in_use(&self) -> &Brought {
        match self.wakers.last() {
            Some(brought) => brought,
            None => unreachable!("it is built with a waker"),
        }
    }
}

/// From this number of items in a row on, the consumer waits before the stop: D6 promises a stop at the next poll then.
pub(super) const LONG_ROW: usize = 65;

/// How much time passes for a pending stream that is not woken.
#[cfg(feature = "tokio")]
const GOES_ON: Duration = Duration::from_secs(3600);

/// The message of a panic that has just been caught, and where it was if nothing was printed of it.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => *message,
        (None, Some(message)) => message.as_str(),
        (None, None) => "(something else than a text)",
    };
    match take_location() {
        Some(location) => format!("{message}, at {location}"),
        None => message.to_owned(),
    }
}

/// A waker that the harness brought. What is held beyond these two is held by the stream, or by what it waits for.
struct Brought {
    waker: Waker,
    hand: Arc<HandWaker>,
}

struct HandWaker {
    number: AtomicUsize,
    wakes: AtomicUsize,
    /// What waits for a wake-up while time passes.
    waiting: AtomicWaker,
    stop: Stop,
    record: Record,
}

impl Wake for HandWaker {
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

impl HandWaker {
    /// Ready once it was woken more than so often.
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
        // What the stream drops may ask for the clock.
        let _context = self.clock.enter();
        self.stream = None;
    }
}
