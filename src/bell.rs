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
pub(crate) struct Bell {
    // ORDERING: `Release` when it rings, `Acquire` when it is heard: the poll that follows sees what was done before
    // the wake-up.
    is_rung: AtomicBool,
    stream: AtomicWaker,
}

impl Bell {
    /// A bell that has rung: nobody has polled the future yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_rung: AtomicBool::new(true),
            stream: AtomicWaker::new(),
        })
    }

    #[inline]
    pub(crate) fn is_rung(&self) -> bool {
        self.is_rung.load(Ordering::Acquire)
    }

    pub(crate) fn ring(&self) {
        self.is_rung.store(true, Ordering::Release);
    }

    /// To be done before the future is polled, as it may ring again meanwhile.
    pub(crate) fn silence(&self) {
        // ORDERING: a swap, to hear also a ring that comes between the question and the silence.
        self.is_rung.swap(false, Ordering::Acquire);
    }

    /// Wakes this task when it rings. Whoever calls asks once more afterwards whether it has rung.
    pub(crate) fn wake_at_ring(&self, cx: &Context<'_>) {
        self.stream.register(cx.waker());
    }

    /// Wakes nobody any more, and keeps no task.
    pub(crate) fn forget_stream(&self) {
        drop(self.stream.take());
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        self.stream.wake();
    }
}
