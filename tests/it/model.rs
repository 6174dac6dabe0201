//! Random sequences of operations on a few tokens, run on the crate and on a reference model that follows the
//! definitions only: T1 to T6, T12, D1 to D4, S5, S8, and `settled`.

mod reference;

use futures::{Stream, stream};
use proptest::{
    collection::vec,
    prelude::{BoxedStrategy, ProptestConfig, Strategy, any},
    prop_oneof, proptest,
    test_runner::RngAlgorithm,
};
use reference::{Model, Notified, Reason};
use std::{
    collections::BTreeSet,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};
use stopcock::{
    CancelStreamExt, CancellationToken, CancelledOwned, Registration, Settled, StopReason,
};

#[cfg(feature = "tokio")]
use std::{pin::pin, time::Duration};
#[cfg(feature = "tokio")]
use tokio::{
    task::yield_now,
    time::{Instant, advance},
};

/// One operation. A number picks one of the existing objects of the kind that the operation applies to.
#[derive(Clone, Debug)]
enum Step {
    New,
    Child(usize),
    Linked(Vec<usize>),
    Cancel(usize),
    CancelWith(usize),
    Look(usize),
    DropHandle(usize),
    /// Makes a waiter and polls it.
    Wait(usize),
    /// Polls it with the same waker,
    PollWaiter(usize),
    /// or with another one.
    MoveWaiter(usize),
    DropWaiter(usize),
    Register(usize),
    Unregister(usize),
    DropRegistration(usize),
    Detach(usize),
    /// Makes an adapter, and leaves it unpolled.
    Adapt(usize),
    PollAdapter(usize),
    DropAdapter(usize),
    Settle(usize),
    CancelAndSettle(usize),
    PollSettled(usize),
    DropSettled(usize),
    #[cfg(feature = "tokio")]
    Timed(Timed),
}

#[cfg(feature = "tokio")]
#[derive(Clone, Debug)]
enum Timed {
    WithTimeout(u8),
    ChildWithTimeout(usize, u8),
    /// This long ago.
    ChildWithPastDeadline(usize, u8),
    ChildWithoutEnd(usize),
    /// Advances the clock and fires timers.
    Advance(u8),
    /// Advances the clock without firing timers, as if the runtime were busy.
    Slip(u8),
    /// Checks everything 1 ns before the next deadline, then advances the clock to it.
    Brink,
}

fn step() -> BoxedStrategy<Step> {
    let number = any::<u8>().prop_map(usize::from);
    let of = |step: fn(usize) -> Step| number.clone().prop_map(step);
    let some = vec(number.clone(), 0..4);
    let trees = prop_oneof![
        1 => of(|_| Step::New),
        4 => of(Step::Child),
        3 => some.prop_map(Step::Linked),
        1 => of(Step::Cancel),
        2 => of(Step::CancelWith),
        2 => of(Step::Look),
        3 => of(Step::DropHandle),
    ];
    let waiters = prop_oneof![
        4 => of(Step::Wait),
        1 => of(Step::PollWaiter),
        1 => of(Step::MoveWaiter),
        1 => of(Step::DropWaiter),
        4 => of(Step::Register),
        1 => of(Step::Unregister),
        1 => of(Step::DropRegistration),
        2 => of(Step::Detach),
    ];
    let sources = prop_oneof![
        2 => of(Step::Adapt),
        3 => of(Step::PollAdapter),
        1 => of(Step::DropAdapter),
        2 => of(Step::Settle),
        1 => of(Step::CancelAndSettle),
        3 => of(Step::PollSettled),
        1 => of(Step::DropSettled),
    ];
    let timeless = prop_oneof![4 => trees, 3 => waiters, 3 => sources];
    #[cfg(not(feature = "tokio"))]
    return timeless.boxed();
    #[cfg(feature = "tokio")]
    {
        let time = 0..20_u8;
        let timed = prop_oneof![
            1 => time.clone().prop_map(Timed::WithTimeout),
            4 => (number.clone(), time.clone()).prop_map(|(of, t)| Timed::ChildWithTimeout(of, t)),
            1 => (number.clone(), time.clone())
                .prop_map(|(of, t)| Timed::ChildWithPastDeadline(of, t)),
            1 => number.prop_map(Timed::ChildWithoutEnd),
            2 => time.clone().prop_map(Timed::Advance),
            2 => time.prop_map(Timed::Slip),
            1 => any::<bool>().prop_map(|_| Timed::Brink),
        ];
        prop_oneof![4 => timeless, 1 => timed.prop_map(Step::Timed)].boxed()
    }
}

/// A waker or a callback that writes to the log when it is woken or called.
struct Party {
    token: usize,
    id: usize,
    log: Arc<Mutex<Vec<Notified>>>,
}

impl Party {
    fn note(&self, reason: Option<&StopReason>) {
        let notified = (self.token, self.id, reason.map(Reason::of));
        self.log.lock().unwrap().push(notified);
    }
}

impl Wake for Party {
    fn wake(self: Arc<Self>) {
        self.note(None);
    }
}

/// The real tokens, what was made from them, and the model.
#[derive(Default)]
struct Scenario {
    model: Model,
    tokens: Vec<Option<CancellationToken>>,
    waiters: Vec<Waiter>,
    registrations: Vec<Registered>,
    adapters: Vec<Adapter>,
    settling: Vec<Settling>,
    /// By their ids.
    parties: Vec<Arc<Party>>,
    log: Arc<Mutex<Vec<Notified>>>,
    #[cfg(feature = "tokio")]
    start: Option<Instant>,
}

struct Waiter {
    token: usize,
    waker: usize,
    cancelled: CancelledOwned,
}

struct Registered {
    token: usize,
    callback: usize,
    registration: Registration,
}

struct Adapter {
    token: usize,
    waker: Option<usize>,
    stream: Pin<Box<dyn Stream<Item = ()>>>,
    /// How often its source was polled. The source owns one of the two handles.
    polls: Arc<AtomicUsize>,
}

struct Settling {
    token: usize,
    waker: Option<usize>,
    is_cancelled: bool,
    settled: Settled,
}

impl Scenario {
    /// The tokens that still have a handle.
    fn handles(&self) -> Vec<usize> {
        let tokens = 0..self.tokens.len();
        tokens
            .filter(|token| self.tokens[*token].is_some())
            .collect()
    }

    fn real(&self, token: usize) -> &CancellationToken {
        self.tokens[token].as_ref().unwrap()
    }

    fn add(&mut self, real: CancellationToken, parents: &[usize], deadline: Option<u64>) {
        self.tokens.push(Some(real));
        self.model.add(parents, deadline);
    }

    fn party(&mut self, token: usize) -> usize {
        let id = self.parties.len();
        self.parties.push(Arc::new(Party {
            token,
            id,
            log: Arc::clone(&self.log),
        }));
        id
    }

    fn waker(&self, id: usize) -> Waker {
        Waker::from(Arc::clone(&self.parties[id]))
    }

    async fn take(&mut self, step: &Step) {
        self.model.now.1 += 1;
        let handles = self.handles();
        match step {
            Step::New => self.add(CancellationToken::new(), &[], None),
            Step::Linked(of) => {
                let tokens: Vec<_> = of.iter().filter_map(|of| pick(&handles, *of)).collect();
                let linked =
                    CancellationToken::linked(tokens.iter().map(|token| self.real(*token)));
                self.add(linked, &tokens, None);
            }
            Step::Child(of)
            | Step::Cancel(of)
            | Step::CancelWith(of)
            | Step::Look(of)
            | Step::DropHandle(of)
            | Step::Wait(of)
            | Step::Register(of)
            | Step::Adapt(of)
            | Step::Settle(of)
            | Step::CancelAndSettle(of) => {
                if let Some(token) = pick(&handles, *of) {
                    self.use_handle(step, token);
                }
            }
            Step::PollWaiter(of) | Step::MoveWaiter(of) | Step::DropWaiter(of) => {
                if let Some(waiter) = take(&mut self.waiters, *of) {
                    self.use_waiter(step, waiter);
                }
            }
            Step::Unregister(of) | Step::DropRegistration(of) | Step::Detach(of) => {
                if let Some(registered) = take(&mut self.registrations, *of) {
                    self.use_registration(step, registered);
                }
            }
            Step::PollAdapter(of) => {
                if let Some(adapter) = take(&mut self.adapters, *of) {
                    self.poll_adapter(adapter);
                }
            }
            Step::DropAdapter(of) => {
                if let Some(adapter) = take(&mut self.adapters, *of) {
                    self.drop_adapter(adapter);
                }
            }
            Step::PollSettled(of) => {
                if let Some(settling) = take(&mut self.settling, *of) {
                    self.poll_settled(settling);
                }
            }
            Step::DropSettled(of) => {
                if let Some(settling) = take(&mut self.settling, *of) {
                    self.drop_settled(settling);
                }
            }
            #[cfg(feature = "tokio")]
            Step::Timed(timed) => self.take_timed(timed, &handles).await,
        }
    }

    fn use_handle(&mut self, step: &Step, token: usize) {
        let real = self.real(token).clone();
        match step {
            Step::Child(_) => self.add(real.child_token(), &[token], None),
            Step::Cancel(_) => {
                real.cancel();
                self.model.cancel(token, Reason::Cancelled);
            }
            Step::CancelWith(_) => {
                let step = self.model.now.1;
                let won = real.cancel_with(step.to_string());
                assert_eq!(won, self.model.cancel(token, Reason::Step(step)));
            }
            Step::Look(_) => self.look(token),
            Step::DropHandle(_) => {
                drop(real);
                self.tokens[token] = None;
                self.model.drop_handle(token);
            }
            Step::Wait(_) => {
                let waker = self.party(token);
                self.model.tokens[token].handles += 1;
                self.poll_waiter(
                    Waiter {
                        token,
                        waker,
                        cancelled: real.cancelled_owned(),
                    },
                    None,
                );
            }
            Step::Register(_) => {
                let callback = self.party(token);
                let party = Arc::clone(&self.parties[callback]);
                let registration = real.on_cancel(move |reason| party.note(Some(reason)));
                self.model.register(token, callback);
                self.model.tokens[token].handles += 1;
                self.registrations.push(Registered {
                    token,
                    callback,
                    registration,
                });
            }
            Step::Adapt(_) => {
                let polls = Arc::new(AtomicUsize::new(0));
                let source = stream::poll_fn({
                    let polls = Arc::clone(&polls);
                    move |_| {
                        polls.fetch_add(1, SeqCst);
                        Poll::<Option<()>>::Pending
                    }
                });
                self.model.hold_source(token);
                self.model.tokens[token].handles += 1;
                self.adapters.push(Adapter {
                    token,
                    waker: None,
                    stream: Box::pin(source.take_until_cancelled(real)),
                    polls,
                });
            }
            _ => {
                let settled = match step {
                    Step::CancelAndSettle(_) => {
                        self.model.cancel(token, Reason::Cancelled);
                        real.cancel_and_settle()
                    }
                    _ => real.settled(),
                };
                self.model.tokens[token].handles += 1;
                self.settling.push(Settling {
                    token,
                    waker: None,
                    is_cancelled: false,
                    settled,
                });
            }
        }
    }

    fn use_waiter(&mut self, step: &Step, mut waiter: Waiter) {
        let earlier = waiter.waker;
        match step {
            Step::PollWaiter(_) => self.poll_waiter(waiter, Some(earlier)),
            Step::MoveWaiter(_) => {
                waiter.waker = self.party(waiter.token);
                self.poll_waiter(waiter, Some(earlier));
            }
            _ => self.drop_waiter(waiter),
        }
    }

    /// A ready future is dropped, like by a task that awaits it.
    fn poll_waiter(&mut self, mut waiter: Waiter, earlier: Option<usize>) {
        let waker = self.waker(waiter.waker);
        let polled = Pin::new(&mut waiter.cancelled).poll(&mut Context::from_waker(&waker));
        let is_pending = self.model.wait(waiter.token, earlier, waiter.waker);
        assert_eq!(polled.is_pending(), is_pending);
        if is_pending {
            self.waiters.push(waiter);
        } else {
            earlier.map(|earlier| self.model.leave(earlier));
            self.drop_waiter(waiter);
        }
    }

    fn drop_waiter(&mut self, waiter: Waiter) {
        drop(waiter.cancelled);
        self.model.leave(waiter.waker);
        self.model.drop_handle(waiter.token);
    }

    fn use_registration(&mut self, step: &Step, registered: Registered) {
        let Registered {
            token,
            callback,
            registration,
        } = registered;
        match step {
            Step::Unregister(_) => {
                let came_in_time = registration.unregister();
                assert_eq!(came_in_time, self.model.leave(callback));
            }
            Step::DropRegistration(_) => {
                drop(registration);
                self.model.leave(callback);
            }
            _ => registration.detach(),
        }
        self.model.drop_handle(token);
    }

    fn poll_adapter(&mut self, mut adapter: Adapter) {
        let polls = adapter.polls.load(SeqCst);
        let id = self.party(adapter.token);
        let waker = self.waker(id);
        let polled = adapter
            .stream
            .as_mut()
            .poll_next(&mut Context::from_waker(&waker));
        let is_pending = self.model.wait(adapter.token, adapter.waker, id);
        assert_eq!(polled.is_pending(), is_pending);
        let polls_of_this = adapter.polls.load(SeqCst) - polls;
        assert_eq!(polls_of_this, usize::from(is_pending), "left alone");
        if is_pending {
            adapter.waker = Some(id);
            self.adapters.push(adapter);
        } else {
            assert_eq!(Arc::strong_count(&adapter.polls), 1, "dropped first");
            self.drop_adapter(adapter);
        }
    }

    fn drop_adapter(&mut self, adapter: Adapter) {
        drop(adapter.stream);
        assert_eq!(Arc::strong_count(&adapter.polls), 1);
        adapter.waker.map(|waker| self.model.leave(waker));
        self.model.drop_source(adapter.token);
        self.model.drop_handle(adapter.token);
    }

    fn poll_settled(&mut self, mut settling: Settling) {
        let id = self.party(settling.token);
        let waker = self.waker(id);
        let polled = Pin::new(&mut settling.settled).poll(&mut Context::from_waker(&waker));

        let token = settling.token;
        if !settling.is_cancelled && self.model.outcome(token).is_some() {
            settling.is_cancelled = true;
            if let Some(earlier) = settling.waker.take() {
                // Waking it is useless, but allowed.
                if self.model.leave(earlier) {
                    self.model.unsure.insert(earlier);
                }
            }
        }
        let is_pending = match settling.is_cancelled {
            true => self.model.wait_for_sources(token, settling.waker, id),
            false => self.model.wait(token, settling.waker, id),
        };
        assert_eq!(polled.is_pending(), is_pending);
        if is_pending {
            settling.waker = Some(id);
            self.settling.push(settling);
        } else {
            self.drop_settled(settling);
        }
    }

    fn drop_settled(&mut self, settling: Settling) {
        drop(settling.settled);
        settling.waker.map(|waker| self.model.leave(waker));
        self.model.drop_handle(settling.token);
    }

    fn look(&self, token: usize) {
        let real = self.real(token);
        let expected = self.model.outcome(token);
        assert_eq!(real.is_cancelled(), expected.is_some(), "{token}");
        let reason = real.stop_reason().as_ref().map(Reason::of);
        assert_eq!(reason, expected, "{token}");
        let checked = real.check().as_ref().map_err(Reason::of).err();
        assert_eq!(checked, expected, "{token}");
    }

    fn check_all(&self) {
        for token in self.handles() {
            self.look(token);
        }
    }

    /// Compares what can be observed without a check of a token.
    fn check(&mut self) {
        let mut notified = mem::take(&mut *self.log.lock().unwrap());
        notified.retain(|(_, id, _)| !self.model.unsure.contains(id));
        let mut expected = mem::take(&mut self.model.notified);
        // The entries of one token in order, the tokens in any order.
        notified.sort_by_key(|(token, ..)| *token);
        expected.sort_by_key(|(token, ..)| *token);
        assert_eq!(notified, expected);

        let parties = self.parties.iter();
        let kept = parties.filter(|party| Arc::strong_count(party) > 1);
        let kept: BTreeSet<_> = kept.map(|party| party.id).collect();
        assert_eq!(&kept - &self.model.unsure, self.model.kept());
        #[cfg(feature = "tokio")]
        self.check_deadlines();
    }

    /// Drops everything that is left, in single steps.
    fn end(&mut self) {
        while let Some(token) = self.handles().pop() {
            self.use_handle(&Step::DropHandle(0), token);
            self.check();
        }
        while let Some(registered) = self.registrations.pop() {
            self.use_registration(&Step::DropRegistration(0), registered);
            self.check();
        }
        while let Some(waiter) = self.waiters.pop() {
            self.drop_waiter(waiter);
            self.check();
        }
        while let Some(settling) = self.settling.pop() {
            self.drop_settled(settling);
            self.check();
        }
        while let Some(adapter) = self.adapters.pop() {
            self.drop_adapter(adapter);
            self.check();
        }
        for party in &self.parties {
            assert_eq!(Arc::strong_count(party), 1, "{}", party.id);
        }
    }
}

#[cfg(feature = "tokio")]
const MILLISECOND: u64 = 1_000_000;

#[cfg(feature = "tokio")]
impl Scenario {
    async fn take_timed(&mut self, timed: &Timed, handles: &[usize]) {
        let now = self.model.now.0;
        match *timed {
            Timed::WithTimeout(timeout) => {
                let timeout = u64::from(timeout) * MILLISECOND;
                let real = CancellationToken::with_timeout(Duration::from_nanos(timeout));
                self.add(real, &[], Some(now + timeout));
            }
            Timed::ChildWithTimeout(of, timeout) => {
                if let Some(parent) = pick(handles, of) {
                    let timeout = u64::from(timeout) * MILLISECOND;
                    let real = self.real(parent);
                    let real = real.child_with_timeout(Duration::from_nanos(timeout));
                    self.add(real, &[parent], Some(now + timeout));
                }
            }
            Timed::ChildWithPastDeadline(of, ago) => {
                if let Some(parent) = pick(handles, of) {
                    let at = now.saturating_sub(u64::from(ago) * MILLISECOND);
                    let real = self.real(parent).child_with_deadline(self.instant(at));
                    self.add(real, &[parent], Some(at));
                }
            }
            Timed::ChildWithoutEnd(of) => {
                if let Some(parent) = pick(handles, of) {
                    let real = self.real(parent).child_with_timeout(Duration::MAX);
                    self.add(real, &[parent], None);
                }
            }
            Timed::Advance(time) => {
                advance(Duration::from_millis(time.into())).await;
                // Callbacks run on a task of their own.
                yield_now().await;
                self.model.now.0 += u64::from(time) * MILLISECOND;
                self.model.run_timers();
            }
            Timed::Slip(time) => self.slip(u64::from(time) * MILLISECOND),
            Timed::Brink => {
                let deadlines = self.model.tokens.iter().filter_map(|token| token.deadline);
                if let Some(next) = deadlines.filter(|at| *at > now).min() {
                    self.slip(next - now - 1);
                    self.check_all();
                    self.check();
                    self.slip(1);
                }
            }
        }
        assert_eq!(Instant::now(), self.instant(self.model.now.0));
    }

    /// The first poll advances the clock. Only the rest of the future fires timers.
    fn slip(&mut self, time: u64) {
        let slipped = pin!(advance(Duration::from_nanos(time)));
        let _ = slipped.poll(&mut Context::from_waker(Waker::noop()));
        self.model.now.0 += time;
    }

    fn instant(&self, at: u64) -> Instant {
        self.start.unwrap() + Duration::from_nanos(at)
    }

    fn check_deadlines(&self) {
        for token in self.handles() {
            let deadline = self.model.deadline(token);
            assert_eq!(
                self.real(token).deadline(),
                deadline.map(|at| self.instant(at))
            );
            let remaining = deadline.map(|at| at.saturating_sub(self.model.now.0));
            assert_eq!(
                self.real(token).remaining(),
                remaining.map(Duration::from_nanos)
            );
        }
    }
}

fn pick(from: &[usize], number: usize) -> Option<usize> {
    let place = number.checked_rem(from.len())?;
    Some(from[place])
}

fn take<T>(from: &mut Vec<T>, number: usize) -> Option<T> {
    let place = number.checked_rem(from.len())?;
    Some(from.remove(place))
}

/// If it `is_watched`, all tokens are checked after every step: a check makes outcomes final, and must change nothing.
async fn run_steps(steps: &[Step], is_watched: bool) {
    let mut scenario = Scenario::default();
    #[cfg(feature = "tokio")]
    {
        scenario.start = Some(Instant::now());
    }
    scenario.add(CancellationToken::new(), &[], None);
    for step in steps {
        scenario.take(step).await;
        if is_watched {
            scenario.check_all();
        }
        scenario.check();
    }
    scenario.check_all();
    scenario.check();
    scenario.end();
}

#[cfg(feature = "tokio")]
fn block_on(scenario: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.unwrap().block_on(scenario);
}

#[cfg(not(feature = "tokio"))]
fn block_on(scenario: impl Future<Output = ()>) {
    futures::executor::block_on(scenario);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 2000 },
        failure_persistence: None,
        // In a debug build the default takes longer than the sequences.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_story_of_a_few_tokens_agrees_with_the_laws(
        steps in vec(step(), 1..if cfg!(miri) { 30 } else { 100 }),
        is_watched in any::<bool>(),
    ) {
        block_on(run_steps(&steps, is_watched));
    }
}

#[cfg(feature = "tokio")]
mod deadlines {
    use super::*;

    fn slip(time: u64) {
        let slipped = pin!(advance(Duration::from_millis(time)));
        let _ = slipped.poll(&mut Context::from_waker(Waker::noop()));
    }

    fn reason(token: &CancellationToken) -> String {
        token.stop_reason().unwrap().to_string()
    }

    /// T3, T4 and D4: it is cancelled before its deadline, and a check sees that.
    #[test]
    fn a_deadline_that_passes_while_a_cancel_notifies_others_is_too_late() {
        block_on(async {
            let root = CancellationToken::new();
            // The first one in the list.
            let slow = root.on_cancel(|_| slip(20));
            let child = root.child_with_timeout(Duration::from_millis(10));
            let linked = CancellationToken::linked([&child, &CancellationToken::new()]);
            let looks = root.on_cancel({
                let (child, linked) = (child.clone(), linked.clone());
                move |_| assert!(child.is_cancelled() && linked.is_cancelled())
            });
            root.cancel_with("root");
            for token in [&root, &child, &linked] {
                assert_eq!(reason(token), "root");
            }
            drop((slow, looks));
        });
    }

    /// As documented at `linked`: of tokens that are cancelled already the earliest one counts.
    #[test]
    fn a_deadline_that_no_check_has_seen_counts_before_a_later_cancel() {
        block_on(async {
            let timed = CancellationToken::with_timeout(Duration::from_millis(10));
            let root = CancellationToken::new();
            slip(10);
            root.cancel_with("root");
            let linked = CancellationToken::linked([&root, &timed]);
            assert_eq!(reason(&linked), StopReason::DeadlineExceeded.to_string());
        });
    }

    /// T6: not all handles were dropped before a cancel.
    #[test]
    fn a_callback_runs_though_the_last_handle_is_dropped_before_the_timer_runs() {
        block_on(async {
            let (log, logged) = std::sync::mpsc::channel();
            let timed = CancellationToken::with_timeout(Duration::from_millis(10));
            timed.on_cancel(move |_| log.send(()).unwrap()).detach();
            slip(10);
            drop(timed);
            assert!(logged.try_recv().is_ok());
        });
    }
}
