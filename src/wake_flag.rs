use futures_util::task::AtomicWaker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

/// The waker of a future that stops a stream: notes that the future wants to be polled, and wakes the stream.
///
/// So the future is polled when it has something to say, and an item costs no more than the question whether it has.
#[derive(Debug)]
pub(crate) struct WakeFlag {
    // ORDERING: `Release` when it is set, `Acquire` when it is read: the poll that follows sees what was done before
    // the wake-up.
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

    /// To be done before the future is polled, as it may be set again meanwhile.
    pub(crate) fn clear(&self) {
        // ORDERING: a swap, to see also what was done before a wake-up that comes between the check and this.
        self.is_set.swap(false, Ordering::Acquire);
    }

    /// Wakes this task when it is set. The caller checks once more afterwards whether it is.
    pub(crate) fn wake_when_set(&self, cx: &Context<'_>) {
        self.stream.register(cx.waker());
    }

    /// Wakes nothing any more, and keeps no task.
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
