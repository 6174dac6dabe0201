use futures_util::task::AtomicWaker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

/// The waker of a future that stops a stream: sets a flag that the future has to be polled, and wakes the stream.
///
/// So the future is polled only after it has called its waker, and an item costs only the check of a flag.
#[derive(Debug)]
pub(crate) struct WakeFlag {
    // ORDERING: `Release` when it is set, `Acquire` when it is read: the poll that follows sees the writes before the
    // wake-up.
    is_set: AtomicBool,
    stream: AtomicWaker,
}

impl WakeFlag {
    /// A flag that is set: the future has not been polled yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_set: AtomicBool::new(true),
            stream: AtomicWaker::new(),
        })
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
    }

    /// Must be called before the future is polled, as the poll may set the flag again.
    pub(crate) fn clear(&self) {
        // ORDERING: a swap, to see also the writes before a wake-up between the check and this call.
        self.is_set.swap(false, Ordering::Acquire);
    }

    /// Registers this task to be woken when the flag is set. The caller has to check the flag again after this.
    pub(crate) fn wake_when_set(&self, cx: &Context<'_>) {
        self.stream.register(cx.waker());
    }

    /// Drops the registered waker, so that the flag does not keep its task alive.
    pub(crate) fn forget_stream(&self) {
        drop(self.stream.take());
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
        self.stream.wake();
    }
}
