//! Without a word of the panics that the kit catches: a report may come to dozens of them.

use std::{
    cell::{Cell, RefCell},
    panic::{self, PanicHookInfo},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

thread_local! {
    /// Whether this thread is in [`Quiet::run`].
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// Where its last quiet panic was.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

/// While one exists there is a panic hook that passes over the threads in [`run`](Self::run), and hands all other panics
/// to the hook before it. With the last one, the hook before it is back.
pub(super) struct Quiet(());

struct Installed {
    users: usize,
    /// The hook before ours, and the address of ours.
    hooks: Option<(Arc<Hook>, usize)>,
}

static INSTALLED: Mutex<Installed> = Mutex::new(Installed {
    users: 0,
    hooks: None,
});

fn installed() -> MutexGuard<'static, Installed> {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(hook: &Hook) -> usize {
    (&raw const *hook).addr()
}

impl Quiet {
    pub(super) fn new() -> Self {
        let mut installed = installed();
        installed.users += 1;
        // A hook cannot be set by a thread that panics.
        if installed.hooks.is_none() && !thread::panicking() {
            let before: Arc<Hook> = panic::take_hook().into();
            let next = Arc::clone(&before);
            let hook: Box<Hook> = Box::new(move |info| match IS_QUIET.get() {
                true => {
                    let location = info.location().map(ToString::to_string);
                    LOCATION.set(location);
                }
                false => next(info),
            });
            installed.hooks = Some((before, address(&*hook)));
            panic::set_hook(hook);
        }
        Self(())
    }

    /// Runs `f`, of whose panics on this thread nothing is printed.
    pub(super) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Reset(bool);

        impl Drop for Reset {
            fn drop(&mut self) {
                IS_QUIET.set(self.0);
            }
        }

        let _reset = Reset(IS_QUIET.replace(true));
        f()
    }
}

/// Where the panic was that has just been caught, if that is known.
pub(super) fn take_location() -> Option<String> {
    LOCATION.take()
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let mut installed = installed();
        installed.users -= 1;
        // A thread that panics leaves it to the next one.
        if installed.users > 0 || thread::panicking() {
            return;
        }
        if let Some((before, ours)) = installed.hooks.take() {
            let hook = panic::take_hook();
            // One that was set meanwhile stays. It may call ours, which continues to hand panics to the one before it.
            let is_ours = address(&*hook) == ours;
            panic::set_hook(match is_ours {
                true => Box::new(move |info| before(info)),
                false => hook,
            });
        }
    }
}
