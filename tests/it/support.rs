//! Polls by hand, and their results.

use futures::Stream;
use std::{
    env, hint,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker},
    thread,
};

/// Counts its wake-ups.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Polls a stream by hand.
    pub(crate) fn poll<S: Stream + ?Sized>(
        self: &Arc<Self>,
        stream: Pin<&mut S>,
    ) -> Poll<Option<S::Item>> {
        let waker = Waker::from(Arc::clone(self));
        stream.poll_next(&mut Context::from_waker(&waker))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A waker that runs foreign code, once for each hook that is set.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) on_clone: Hook,
    pub(crate) on_wake: Hook,
    pub(crate) on_drop: Hook,
}

#[derive(Default)]
pub(crate) struct Hook(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Hook {
    pub(crate) fn set(&self, hook: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(hook));
    }

    fn run(&self) {
        let hook = self.0.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

#[expect(unsafe_code, reason = "std's `Wake` has no hook for a clone or a drop")]
impl Hooks {
    const VTABLE: RawWakerVTable =
        RawWakerVTable::new(Self::cloned, Self::wake, Self::wake_by_ref, Self::dropped);

    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        let data = Arc::into_raw(Arc::clone(self)).cast();
        // SAFETY: the data is an `Arc<Hooks>` of its own, as all functions of the table take it.
        unsafe { Waker::new(data, &Self::VTABLE) }
    }

    unsafe fn cloned(data: *const ()) -> RawWaker {
        // SAFETY: the data is an `Arc<Hooks>`, which is only borrowed.
        let hooks = ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Self>()) });
        hooks.on_clone.run();
        RawWaker::new(Arc::into_raw(Arc::clone(&hooks)).cast(), &Self::VTABLE)
    }

    unsafe fn wake(data: *const ()) {
        // SAFETY: the data is an `Arc<Hooks>`, whose ownership passes to the callee.
        let hooks = unsafe { Arc::from_raw(data.cast::<Self>()) };
        hooks.on_wake.run();
    }

    unsafe fn wake_by_ref(data: *const ()) {
        // SAFETY: the data is an `Arc<Hooks>`, which is only borrowed.
        let hooks = ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Self>()) });
        hooks.on_wake.run();
    }

    unsafe fn dropped(data: *const ()) {
        // SAFETY: the data is an `Arc<Hooks>`, whose ownership passes to the callee.
        let hooks = unsafe { Arc::from_raw(data.cast::<Self>()) };
        hooks.on_drop.run();
    }
}

/// One poll by hand, without a check of the wake-ups.
pub(crate) fn poll<S: Stream + ?Sized>(stream: Pin<&mut S>) -> Poll<Option<S::Item>> {
    Wakes::new().poll(stream)
}

/// The message of the panic of `f`.
pub(crate) fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it should have panicked"),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().unwrap().to_string(),
    }
}

/// Whether this process cannot start threads, as each would need more stack than there is. If it can, runs the test of
/// this name again, in such a process.
pub(crate) fn is_without_threads(test: &str) -> bool {
    const STACK: &str = "RUST_MIN_STACK";
    let too_much = (usize::MAX / 4).to_string();
    if env::var(STACK).as_ref() == Ok(&too_much) {
        return true;
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(STACK, too_much)
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{reported}");
    assert!(reported.contains("1 passed"), "{reported}");
    false
}

/// Runs `round(thread, round)` on several threads, all of them in the same round.
pub(crate) fn in_step(threads: usize, rounds: usize, round: impl Fn(usize, usize) + Sync) {
    let arrived = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (arrived, round) = (&arrived, &round);
            scope.spawn(move || {
                for number in 0..rounds {
                    arrived.fetch_add(1, SeqCst);
                    let mut turns = 0;
                    while arrived.load(SeqCst) < (number + 1) * threads {
                        turns += 1;
                        if turns % 64 == 0 || cfg!(miri) {
                            thread::yield_now();
                        } else {
                            hint::spin_loop();
                        }
                    }
                    round(thread, number);
                }
            });
        }
    });
}

/// A waker that panics when it wakes.
pub(crate) fn panicking_waker(message: &'static str) -> Waker {
    struct Panics(&'static str);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("{}", self.0);
        }
    }

    Waker::from(Arc::new(Panics(message)))
}
