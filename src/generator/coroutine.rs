//! A body, and the slot through which it hands its items over.
//!
//! The one place with `unsafe`. What it rests on:
//!
//! 1. The slot lies in the pinned [`Coroutine`], beside the future of the body, which is dropped before it. A pinned
//!    value is dropped before its memory is used for anything else, so where the body lives, its slot does.
//! 2. A [`Yielder`] does not outlive its body. `GeneratorBody` holds for every lifetime `'a`, so that a body knows
//!    none of its yielder's but that it is longer than the call; and the yielder is invariant in it, so that no two
//!    yielders can be made to have the same one. It cannot be stored outside, returned, swapped, or given to a task
//!    or a thread that outlives the poll.
//! 3. There is one `Yielder` for a slot, and it is reached by `&mut`; a [`YieldItem`] has a copy of it while it borrows
//!    it. What uses it runs inside of the body's poll or drop, or on a scoped thread which these wait for. The
//!    coroutine touches the slot only before and after the poll, and before the drop. So no two accesses overlap.
//! 4. `Slot` is `!Unpin`, and with it everything around it. The `&mut` that each poll makes of the whole does not
//!    claim to be the only way to a slot which the yielder points to as well.
//! 5. While the slot is borrowed nothing foreign runs: each borrow is over before what it took out is dropped, and
//!    before the stream's token is cancelled. What that runs, callbacks and wakers, is `'static`. So it has no yielder
//!    (2), and it has no stream either, which is lent to the poll or the drop that cancels.
#![allow(unsafe_code, reason = "the body borrows a slot that lies beside it")]

use super::stream_token::StreamToken;
use crate::{CancellationToken, StopReason};
use futures_core::Stream;
use pin_project::{pin_project, pinned_drop};
use std::{
    cell::UnsafeCell,
    fmt::{self, Debug, Formatter},
    future::Future,
    marker::{PhantomData, PhantomPinned},
    mem,
    pin::Pin,
    ptr::{self, NonNull},
    task::{Context, Poll, Waker},
};

/// What [`generator`](crate::generator()) takes: every async closure and async fn of a [`Yielder`] that returns `()`.
/// With another `R` what [`try_generator`](crate::try_generator()) takes: one that returns a `Result<(), E>`.
///
/// It is implemented for all of them. It is there to name their future.
pub trait GeneratorBody<'a, T, R = ()>: FnOnce(Yielder<'a, T>) -> Self::Future {
    /// The future of the body.
    type Future: Future<Output = R>;
}

impl<'a, T, R, B, Fut> GeneratorBody<'a, T, R> for B
where
    B: FnOnce(Yielder<'a, T>) -> Fut,
    Fut: Future<Output = R>,
{
    type Future = Fut;
}

/// The stream that a body is, with no signal to stop it. What the body returns is left for [`end`](Self::end).
#[pin_project(PinnedDrop)]
pub(super) struct Coroutine<T, B, R>
where
    B: for<'a> GeneratorBody<'a, T, R>,
{
    // Dropped in this order.
    #[pin]
    stage: Stage<B, <B as GeneratorBody<'static, T, R>>::Future, R>,
    #[pin]
    slot: Slot<T>,
}

#[pin_project(project = StageProjection, project_replace = StageReplaced)]
enum Stage<B, Fut, R> {
    Made(B),
    Running(#[pin] Body<Fut>),
    Over(Option<R>),
}

/// The future of a body. It points into itself, and the stream around it is looked at through a `&`, by `size_hint`
/// say: behind an `UnsafeCell`, that `&` claims nothing of the future.
struct Body<Fut>(UnsafeCell<Fut>);

// SAFETY: a shared `Body` can do nothing: `poll` wants it `Pin<&mut>`.
unsafe impl<Fut> Sync for Body<Fut> {}

impl<Fut: Future> Body<Fut> {
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fut::Output> {
        // SAFETY: the future is pinned with the `Body`: nothing moves it out, and there is no `Drop`.
        let future = unsafe { self.map_unchecked_mut(|body| body.0.get_mut()) };
        future.poll(cx)
    }
}

impl<T, B, R> Coroutine<T, B, R>
where
    B: for<'a> GeneratorBody<'a, T, R>,
{
    /// Of `parent` the stream's token is made a child.
    pub(super) fn new(body: B, parent: Option<CancellationToken>) -> Self {
        Self {
            stage: Stage::Made(body),
            slot: Slot::new(parent),
        }
    }

    /// Makes the future of a body that has none. Never inlined: what is known of a future that has just been made
    /// would be carried along beside each of its polls.
    #[cold]
    #[inline(never)]
    fn begin(self: Pin<&mut Self>) {
        let mut this = self.project();
        if !matches!(*this.stage, Stage::Made(_)) {
            return;
        }
        let made = this.stage.as_mut().project_replace(Stage::Over(None));
        if let StageReplaced::Made(body) = made {
            // SAFETY: the yielder is passed to the body of this very coroutine, whose future is dropped before the
            // slot. `'static` is a stand-in for that lifetime: a body is written for every lifetime (2).
            let yielder = unsafe { this.slot.as_mut().yielder() };
            let future = UnsafeCell::new(body(yielder));
            this.stage.set(Stage::Running(Body(future)));
        }
    }

    /// Keeps what the body has returned, and gives an item that is left: of a `yield_item` that the body dropped.
    #[cold]
    fn finish(mut self: Pin<&mut Self>, output: R) -> Option<T> {
        self.as_mut().end_of_body();
        let mut this = self.project();
        this.stage.set(Stage::Over(Some(output)));
        this.slot.take()
    }

    #[cold]
    #[inline(never)]
    fn end_of_body(self: Pin<&mut Self>) {
        self.project().slot.end(StopReason::Cancelled);
    }

    /// To be called before it is dropped, with the reason if it was stopped. Returns what the body has returned.
    #[cold]
    pub(super) fn end(self: Pin<&mut Self>, stop_reason: Option<&StopReason>) -> Option<R> {
        let this = self.project();
        if let Some(reason) = stop_reason {
            this.slot.end(reason.clone());
        }
        match this.stage.project() {
            StageProjection::Over(output) => output.take(),
            StageProjection::Made(_) | StageProjection::Running(_) => None,
        }
    }
}

impl<T, B, R> Stream for Coroutine<T, B, R>
where
    B: for<'a> GeneratorBody<'a, T, R>,
{
    type Item = T;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut guard = EndOnPanic(self);
        if !matches!(guard.0.stage, Stage::Running(_)) {
            guard.0.as_mut().begin();
        }
        let mut this = guard.0.as_mut().project();
        let StageProjection::Running(body) = this.stage.project() else {
            return Poll::Ready(None);
        };
        this.slot.as_mut().open(address(cx.waker()));
        if let Poll::Ready(output) = body.poll(cx) {
            let item = guard.0.as_mut().finish(output);
            mem::forget(guard);
            return Poll::Ready(item);
        }
        let item = this.slot.take();
        mem::forget(guard);
        match item {
            Some(item) => Poll::Ready(Some(item)),
            None => Poll::Pending,
        }
    }
}

/// Cancels the stream's token where the body panics.
struct EndOnPanic<'a, T, B, R>(Pin<&'a mut Coroutine<T, B, R>>)
where
    B: for<'b> GeneratorBody<'b, T, R>;

impl<T, B, R> Drop for EndOnPanic<'_, T, B, R>
where
    B: for<'b> GeneratorBody<'b, T, R>,
{
    #[inline]
    fn drop(&mut self) {
        self.0.as_mut().end_of_body();
    }
}

#[pinned_drop]
impl<T, B, R> PinnedDrop for Coroutine<T, B, R>
where
    B: for<'a> GeneratorBody<'a, T, R>,
{
    fn drop(self: Pin<&mut Self>) {
        let mut slot = self.project().slot;
        // Now the body's locals go. None of what they might poll a yield with is the stream's waker.
        slot.as_mut().open(NO_WAKER);
        // All other cases have been reported.
        slot.end(StopReason::ConsumerDropped);
    }
}

/// A waker is compared by the address at which the poll has it: a future that passes its context on passes that address
/// on.
fn address(waker: &Waker) -> usize {
    ptr::from_ref(waker).addr()
}

const NO_WAKER: usize = 0;

/// Where an item lies between a yield and the end of the poll.
struct Slot<T> {
    inner: UnsafeCell<Inner<T>>,
    _pinned: PhantomPinned,
}

struct Inner<T> {
    item: Option<T>,
    /// The address of the waker that the body is polled with; with the bit `HAS_WAITED` once a yield has been polled in
    /// vain in this poll of the body.
    waker: usize,
    /// What the yields that were polled in vain in this poll count for.
    waits: u32,
    token: StreamToken,
}

impl<T> Slot<T> {
    fn new(parent: Option<CancellationToken>) -> Self {
        Self {
            inner: UnsafeCell::new(Inner {
                item: None,
                waker: NO_WAKER,
                waits: 0,
                token: StreamToken::new(parent),
            }),
            _pinned: PhantomPinned,
        }
    }

    /// # Safety
    ///
    /// Called once for a slot, and the yielder is not used any more once the slot is dropped, nor while the
    /// coroutine calls `open`, `take` or `end`.
    unsafe fn yielder<'a>(self: Pin<&mut Self>) -> Yielder<'a, T> {
        Yielder {
            slot: NonNull::from(&*self),
            brand: PhantomData,
        }
    }

    #[inline]
    fn open(self: Pin<&mut Self>, waker: usize) {
        // SAFETY: the body is not being polled, so that nothing else uses the slot (3).
        unsafe { (*self.inner.get()).waker = waker }
    }

    #[inline]
    fn take(self: Pin<&mut Self>) -> Option<T> {
        // SAFETY: as in `open`.
        unsafe { (*self.inner.get()).item.take() }
    }

    /// Cancels the stream's token, unless it has had an end before.
    #[inline(always)]
    fn end(self: Pin<&mut Self>, reason: StopReason) {
        // SAFETY: as in `open`.
        let token = unsafe { &mut (*self.inner.get()).token };
        if let Err(reason) = token.end_unasked(reason) {
            self.cancel_asked(reason);
        }
    }

    #[cold]
    #[inline(never)]
    fn cancel_asked(self: Pin<&mut Self>, reason: StopReason) {
        // SAFETY: as in `open`.
        let asked = unsafe { (*self.inner.get()).token.asked() };
        // The slot is not borrowed any more (5).
        if let Some(token) = asked {
            token.cancel_with(reason);
        }
    }
}

// SAFETY: a shared slot can do nothing: `open`, `take` and `end` want it `Pin<&mut>`.
unsafe impl<T: Send> Sync for Slot<T> {}

/// A bit that no address of a waker has. Opening the slot takes it away, at no cost per item.
const HAS_WAITED: usize = 1;

const _: () = assert!(align_of::<Waker>() > HAS_WAITED);

/// What yields may count for that are polled in vain in one poll of the body, before the body is taken for stuck.
///
/// There is no certain sign: a `select!` whose other branch is ready polls the yield again and again, as an executor
/// inside of the body does. But a `select!` is done after some time, and an executor goes on forever, woken by the
/// yield itself. So the limit is where a poll of the body has taken so long that its task is stuck in any case.
const STUCK_AFTER: u32 = 1 << 26;

/// What a poll with a waker that is not the stream's counts for: an executor has its own, and takes longer for a poll.
/// With the stream's it is a loop in the body itself, and counts for 1.
const FOREIGN: u32 = 1 << 6;

const STUCK: &str = "`yield_item` is polled on and on, but its item cannot be taken before the body's poll returns: \
                     something inside of the body waits for it, such as a `block_on`, or a loop around it never awaits \
                     anything that is pending. Await it in the body instead";

/// Hands items from the body of a [`generator`](crate::generator()) or a
/// [`try_generator`](crate::try_generator()) to the stream.
///
/// # What does not compile
///
/// The lifetime ties it to its body. This compiles:
///
/// ```
/// # use stopcock::{Yielder, generator, signal};
/// let mut yielded = 0;
/// let items = generator(signal::never(), async |mut y: Yielder<'_, u32>| {
///     y.yield_item(1).await;
///     yielded += 1;
/// });
/// # drop(items);
/// ```
///
/// Letting it escape does not:
///
/// ```compile_fail
/// # use stopcock::{Yielder, generator, signal};
/// let mut escaped = None;
/// let items = generator(signal::never(), async |mut y: Yielder<'_, u32>| {
///     y.yield_item(1).await;
///     escaped = Some(y);
/// });
/// # drop(items);
/// ```
///
/// A body may put it into a local:
///
/// ```
/// # use stopcock::{Yielder, generator, signal};
/// struct Progress<'a> {
///     yielder: Yielder<'a, u32>,
/// }
///
/// let items = generator(signal::never(), async |y: Yielder<'_, u32>| {
///     let mut progress = Progress { yielder: y };
///     progress.yielder.yield_item(1).await;
/// });
/// # drop(items);
/// ```
///
/// Storing it where it outlives the body does not compile:
///
/// ```compile_fail
/// # use stopcock::{Yielder, generator, signal};
/// struct Progress {
///     yielder: Yielder<'static, u32>,
/// }
///
/// let items = generator(signal::never(), async |y: Yielder<'_, u32>| {
///     let mut progress = Progress { yielder: y };
///     progress.yielder.yield_item(1).await;
/// });
/// # drop(items);
/// ```
///
/// A body may spawn what does not yield:
///
/// ```
/// # use stopcock::{Yielder, generator, signal};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let items = generator(signal::never(), async |mut y: Yielder<'_, u32>| {
///     let one = tokio::spawn(async { 1 }).await.unwrap();
///     y.yield_item(one).await;
/// });
/// # drop(items);
/// # }
/// ```
///
/// Spawning the yielder, or sending it to another thread, does not compile:
///
/// ```compile_fail
/// # use stopcock::{Yielder, generator, signal};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let items = generator(signal::never(), async |mut y: Yielder<'_, u32>| {
///     tokio::spawn(async move { y.yield_item(1).await }).await.unwrap();
/// });
/// # drop(items);
/// # }
/// ```
///
/// Bodies may nest, and the inner one may yield to the outer stream:
///
/// ```
/// # use std::pin::pin;
/// # use futures::StreamExt;
/// # use stopcock::{Yielder, generator, signal};
/// let items = generator(signal::never(), async |outer: Yielder<'_, u32>| {
///     let inner = generator(signal::never(), async move |inner: Yielder<'_, u32>| {
///         let (mut outer, mut inner) = (outer, inner);
///         outer.yield_item(1).await;
///         inner.yield_item(2).await;
///     });
///     pin!(inner).next().await;
/// });
/// # drop(items);
/// ```
///
/// Swapping two yielders does not compile:
///
/// ```compile_fail
/// # use std::pin::pin;
/// # use futures::StreamExt;
/// # use stopcock::{Yielder, generator, signal};
/// let items = generator(signal::never(), async |outer: Yielder<'_, u32>| {
///     let inner = generator(signal::never(), async move |inner: Yielder<'_, u32>| {
///         let (mut outer, mut inner) = (outer, inner);
///         std::mem::swap(&mut outer, &mut inner);
///         outer.yield_item(1).await;
///         inner.yield_item(2).await;
///     });
///     pin!(inner).next().await;
/// });
/// # drop(items);
/// ```
pub struct Yielder<'a, T> {
    slot: NonNull<Slot<T>>,
    /// Invariant in `'a`, and no promise that a `T` lives as long.
    brand: PhantomData<fn(&'a ()) -> &'a ()>,
}

// SAFETY: what it gives access to is a `T` to be sent, and the slot is never used from two sides at once (3).
unsafe impl<T: Send> Send for Yielder<'_, T> {}

// SAFETY: a shared yielder can do nothing: everything wants it `&mut`.
unsafe impl<T: Send> Sync for Yielder<'_, T> {}

impl<'a, T> Yielder<'a, T> {
    /// Hands `item` over; ready when the stream is polled for the next one.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first poll, the future takes the item with it. Dropped later, as by a `select!`, the item
    /// comes out of the stream all the same; one exception is a yield whose way is still blocked by the item of
    /// another that was dropped: it has not handed over yet.
    ///
    /// # Panics
    ///
    /// If it is waited for by something that does not return to the stream meanwhile, such as a `block_on` inside
    /// of the body: no poll could take the item. That is noticed by how often the future is polled within one poll of
    /// the stream: a million times by another waker than the stream's, or 67 million by that. A `select!` whose other
    /// branch is ready some thousand times meanwhile is far from it.
    pub fn yield_item(&mut self, item: T) -> YieldItem<'_, 'a, T> {
        YieldItem {
            yielder: Yielder {
                slot: self.slot,
                brand: PhantomData,
            },
            borrowed: PhantomData,
            item: Some(item),
        }
    }

    /// A token that is cancelled when the stream ends, in whatever way: what the body starts can end with it.
    ///
    /// It is made at the first call, and the same at each: a stream whose body does not ask has none. Where the
    /// stream's signal is a token it is a child of that: cancelled with it, at once, and it has its deadline. To
    /// cancel it does not stop the stream.
    ///
    /// | the stream's end | the token's reason |
    /// |---|---|
    /// | the signal fires | that of the stop |
    /// | the stream is dropped | [`ConsumerDropped`](StopReason::ConsumerDropped) |
    /// | the body returns, an `Err` included | [`Cancelled`](StopReason::Cancelled) |
    /// | the body panics | [`Cancelled`](StopReason::Cancelled) |
    ///
    /// At a stop, and when the stream is dropped, it is cancelled before the body is dropped, so that locals whose
    /// `Drop` asks it get the right answer. A body that returns or panics has dropped its locals itself by then. A
    /// panic of what the cancel runs comes out of the poll or the drop that ends the stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::StreamExt;
    /// use std::pin::pin;
    /// use stopcock::{CancelStreamExt, generator, signal};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (sender, mut heartbeats) = tokio::sync::mpsc::channel(1);
    /// let mut answers = Box::pin(generator(signal::never(), async |mut y| {
    ///     // A task of its own, which ends with the stream all the same.
    ///     let ticks = futures::stream::repeat("tick").take_until_cancelled(y.token());
    ///     tokio::spawn(async move {
    ///         let mut ticks = pin!(ticks);
    ///         while let Some(tick) = ticks.next().await {
    ///             if sender.send(tick).await.is_err() {
    ///                 break;
    ///             }
    ///         }
    ///     });
    ///     loop {
    ///         y.yield_item(42).await;
    ///     }
    /// }));
    /// assert_eq!(answers.next().await, Some(42));
    /// assert_eq!(heartbeats.recv().await, Some("tick"));
    ///
    /// // The client hangs up.
    /// drop(answers);
    /// while heartbeats.recv().await.is_some() {}
    /// # }
    /// ```
    pub fn token(&mut self) -> CancellationToken {
        // SAFETY: as in `hand_over`.
        let (token, ended) = unsafe { (*(*self.slot.as_ptr()).inner.get()).token.get() };
        // The slot is not borrowed any more (5).
        if let Some(reason) = ended {
            token.cancel_with(reason);
        }
        token
    }

    /// Puts an item that is not yet there into the slot, if that is free; whether there is nothing more to wait for.
    #[inline]
    fn hand_over(&mut self, item: &mut Option<T>, waker: &Waker) -> Poll<()> {
        // SAFETY: the slot outlives the body, and nothing else is at it while this yielder is used (1, 2, 3).
        let inner = unsafe { &mut *(*self.slot.as_ptr()).inner.get() };
        if inner.item.is_none() {
            if item.is_none() {
                return Poll::Ready(());
            }
            inner.item = item.take();
            if inner.waker == address(waker) {
                return Poll::Pending;
            }
        } else if inner.wait(address(waker)) {
            return Poll::Pending;
        }
        // The next poll of the stream polls the body. What polls the yield on the body's behalf with a waker of its
        // own, as `FuturesUnordered` does, passes that poll on only if that waker was woken.
        waker.wake_by_ref();
        Poll::Pending
    }
}

impl<T> Inner<T> {
    /// Counts a yield that is polled in vain, and says whether that was with the stream's waker.
    #[cold]
    fn wait(&mut self, waker: usize) -> bool {
        if self.waker & HAS_WAITED == 0 {
            self.waker |= HAS_WAITED;
            self.waits = 0;
        }
        let is_streams = self.waker == waker | HAS_WAITED;
        self.waits += if is_streams { 1 } else { FOREIGN };
        assert!(self.waits < STUCK_AFTER, "{STUCK}");
        is_streams
    }
}

impl<T> Debug for Yielder<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").finish_non_exhaustive()
    }
}

/// The future of [`Yielder::yield_item`].
#[must_use = "an item is handed over when the future is awaited"]
pub struct YieldItem<'y, 'a, T> {
    /// The one that is borrowed, by value: a pointer less to follow.
    yielder: Yielder<'a, T>,
    borrowed: PhantomData<&'y mut Yielder<'a, T>>,
    /// `None` once it is in the slot.
    item: Option<T>,
}

impl<T> Unpin for YieldItem<'_, '_, T> {}

impl<T> Future for YieldItem<'_, '_, T> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.yielder.hand_over(&mut this.item, cx.waker())
    }
}

impl<T> Debug for YieldItem<'_, '_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("YieldItem")
            .field("is_handed_over", &self.item.is_none())
            .finish()
    }
}
