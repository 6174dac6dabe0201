//! The body of a generator, and the slot through which it hands over its items.
//!
//! The one place with `unsafe`. It relies on these invariants:
//!
//! 1. The slot is in the pinned [`Coroutine`], beside the future of the body, which is dropped before it. A pinned
//!    value is dropped before its memory is reused, so the slot exists as long as the body does.
//! 2. A [`Yielder`] does not outlive its body. `GeneratorBody` holds for every lifetime `'a`, so all that a body knows
//!    of its yielder's lifetime is that it is longer than the call. The yielder is invariant in it, so the lifetimes of
//!    two yielders are never the same. So a yielder cannot be stored outside of its body, returned, swapped with
//!    another one, or given to a task or a thread that outlives the poll.
//! 3. A slot has one `Yielder`, which is used by `&mut`; a [`YieldItem`] has a copy of it while it borrows it. Code
//!    that uses it runs inside the body's poll or drop, or on a scoped thread for which these wait. The coroutine
//!    accesses the slot only before and after the poll, and before the drop. So no two accesses overlap.
//! 4. `Slot` is `!Unpin`, and so is everything around it. So the `&mut` to the whole that each poll makes does not
//!    claim to be the only pointer to the slot: the yielder has another one.
//! 5. No foreign code runs while the slot is borrowed: each borrow ends before what was taken out is dropped, and
//!    before the stream's token is cancelled. The callbacks and wakers that this cancel runs are `'static`. So they
//!    have no yielder (2), and cannot access the stream, which is borrowed by the poll or the drop that cancels.
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
/// With another `R`, what [`try_generator`](crate::try_generator()) takes: one that returns a `Result<(), E>`.
///
/// It is implemented for all of them, and exists to name their future.
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

/// The stream of the items of a body, without a signal. [`end`](Self::end) returns what the body has returned.
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

/// The future of a body. It may have pointers into itself, while a method such as `size_hint` has a `&` to the stream
/// around it: with the `UnsafeCell`, that `&` does not claim that the future stays unchanged.
struct Body<Fut>(UnsafeCell<Fut>);

// SAFETY: nothing can be done with a shared `Body`: `poll` takes `Pin<&mut Self>`.
unsafe impl<Fut> Sync for Body<Fut> {}

impl<Fut: Future> Body<Fut> {
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fut::Output> {
        // SAFETY: the future is pinned with the `Body`: nothing moves it out, and `Body` has no `Drop`.
        let future = unsafe { self.map_unchecked_mut(|body| body.0.get_mut()) };
        future.poll(cx)
    }
}

impl<T, B, R> Coroutine<T, B, R>
where
    B: for<'a> GeneratorBody<'a, T, R>,
{
    /// The stream's token will be a child of `parent`.
    pub(super) fn new(body: B, parent: Option<CancellationToken>) -> Self {
        Self {
            stage: Stage::Made(body),
            slot: Slot::new(parent),
        }
    }

    /// Calls the body, which makes its future, unless that has been done.
    // Not inlined, which keeps the code of the first poll out of all later ones.
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

    /// Stores what the body has returned. Returns an item that is still in the slot, if the body has dropped a
    /// `yield_item` that had handed it over.
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

    /// To be called before the coroutine is dropped, with the reason if it was stopped. Returns what the body has
    /// returned.
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

/// Cancels the stream's token if the body panics.
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
        // The body's locals are dropped next. No waker with which these may poll a yield is the stream's.
        slot.as_mut().open(NO_WAKER);
        // In all other cases it has an end already.
        slot.end(StopReason::ConsumerDropped);
    }
}

/// Wakers are compared by their address: a future that passes its context on passes on this address.
fn address(waker: &Waker) -> usize {
    ptr::from_ref(waker).addr()
}

const NO_WAKER: usize = 0;

/// Holds an item from a yield to the end of the poll.
struct Slot<T> {
    inner: UnsafeCell<Inner<T>>,
    _pinned: PhantomPinned,
}

struct Inner<T> {
    item: Option<T>,
    /// The address of the waker with which the body is polled; with the bit `HAS_WAITED` once a yield was still pending
    /// when it was polled again in this poll of the body.
    waker: usize,
    /// The number of these polls, weighted, see `STUCK_AFTER`.
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
    /// It must be called once per slot. The yielder must not be used after the slot is dropped, nor while the
    /// coroutine calls `open`, `take` or `end`.
    unsafe fn yielder<'a>(self: Pin<&mut Self>) -> Yielder<'a, T> {
        Yielder {
            slot: NonNull::from(&*self),
            brand: PhantomData,
        }
    }

    #[inline]
    fn open(self: Pin<&mut Self>, waker: usize) {
        // SAFETY: the body is not being polled, so nothing else accesses the slot (3).
        unsafe { (*self.inner.get()).waker = waker }
    }

    #[inline]
    fn take(self: Pin<&mut Self>) -> Option<T> {
        // SAFETY: as in `open`.
        unsafe { (*self.inner.get()).item.take() }
    }

    /// Cancels the stream's token, unless it has an end already.
    #[inline(always)]
    fn end(self: Pin<&mut Self>, reason: StopReason) {
        // SAFETY: as in `open`.
        let token = unsafe { &mut (*self.inner.get()).token };
        if let Err(reason) = token.end_unless_requested(reason) {
            self.cancel_requested(reason);
        }
    }

    #[cold]
    #[inline(never)]
    fn cancel_requested(self: Pin<&mut Self>, reason: StopReason) {
        // SAFETY: as in `open`.
        let requested = unsafe { (*self.inner.get()).token.requested() };
        // The slot is not borrowed any more (5).
        if let Some(token) = requested {
            token.cancel_with(reason);
        }
    }
}

// SAFETY: nothing can be done with a shared slot: `open`, `take` and `end` take `Pin<&mut Self>`.
unsafe impl<T: Send> Sync for Slot<T> {}

/// A bit that is never set in the address of a waker. `open` clears it, at no cost per item.
const HAS_WAITED: usize = 1;

const _: () = assert!(align_of::<Waker>() > HAS_WAITED);

/// How often, weighted, a pending yield may be polled again in one poll of the body. Beyond that, the body is stuck.
///
/// There is no certain sign of it: a `select!` whose other branch is ready polls the yield again and again, and so does
/// an executor inside the body. But a `select!` ends after some time, whereas an executor never does, as the yield
/// itself wakes it. At this limit, a single poll of the body has taken so long that its task is stuck in any case.
const STUCK_AFTER: u32 = 1 << 26;

/// The weight of a poll with a waker that is not the stream's: an executor has a waker of its own, and takes longer for
/// a poll. A poll with the stream's waker comes from a loop in the body itself, and has weight 1.
const FOREIGN: u32 = 1 << 6;

const STUCK: &str = "`yield_item` is polled again and again, but its item cannot be taken before the body's poll \
                     returns: something inside the body waits for it, such as a `block_on`, or a loop around it never \
                     awaits anything that is pending. Await it in the body instead";

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
/// Letting it escape does not compile:
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
/// A body may store it in a local variable:
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
/// A body may spawn tasks that do not yield:
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
    /// Invariant in `'a`, and does not require that `T` outlives it.
    brand: PhantomData<fn(&'a ()) -> &'a ()>,
}

// SAFETY: it gives access to a `T`, which is `Send`, and no two accesses to the slot overlap (3).
unsafe impl<T: Send> Send for Yielder<'_, T> {}

// SAFETY: nothing can be done with a shared yielder: all methods take `&mut self`.
unsafe impl<T: Send> Sync for Yielder<'_, T> {}

impl<'a, T> Yielder<'a, T> {
    /// Hands `item` to the stream. The future is ready when the stream is polled for its next item.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its first poll, the item is dropped with it. If it is dropped later, as by a
    /// `select!`, the stream yields the item all the same. There is one exception: while the slot still has the item
    /// of an earlier yield that was dropped, a poll has not handed over its own item yet.
    ///
    /// # Panics
    ///
    /// If something inside the body waits for the future without returning to the stream, such as a `block_on`: the
    /// item could never be taken. This is detected by the number of polls of the future within one poll of the stream:
    /// a million with another waker than the stream's, or 67 million with the stream's. A `select!` whose other branch
    /// is ready some thousand times meanwhile is far below that.
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

    /// A token that is cancelled when the stream ends, for whatever reason. Work that the body starts can end with it.
    ///
    /// The first call makes it, and each call returns the same one. If the stream's signal is a token, it is a child of
    /// that token: it is cancelled with it at once, and has its deadline. Cancelling it does not stop the stream.
    ///
    /// | how the stream ends | the token's reason |
    /// |---|---|
    /// | the signal fires | that of the stop |
    /// | the stream is dropped | [`ConsumerDropped`](StopReason::ConsumerDropped) |
    /// | the body returns, an `Err` included | [`Cancelled`](StopReason::Cancelled) |
    /// | the body panics | [`Cancelled`](StopReason::Cancelled) |
    ///
    /// At a stop, and when the stream is dropped, it is cancelled before the body is dropped, so a `Drop` of the body's
    /// locals finds it cancelled. A body that returns or panics has dropped its locals by then. If a callback or waker
    /// that the cancel runs panics, the panic passes through the poll or the drop that ends the stream.
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

    /// Puts `item` into the slot if that is free. Ready once the stream has taken the item.
    #[inline]
    fn hand_over(&mut self, item: &mut Option<T>, waker: &Waker) -> Poll<()> {
        // SAFETY: the slot outlives the body, and nothing else accesses it while this yielder is used (1, 2, 3).
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
        // The next poll of the stream polls the body. Between the two there may be a future with a waker of its own,
        // such as a `FuturesUnordered`. It polls the yield again only if that waker has been woken.
        waker.wake_by_ref();
        Poll::Pending
    }
}

impl<T> Inner<T> {
    /// Counts a poll of a pending yield. Returns whether `waker` is the stream's.
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
    /// A copy of the borrowed one, which saves an indirection.
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
