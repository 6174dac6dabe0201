//! Suppresses the output of panics that the laws catch: one report may catch dozens of them.

use std::{
    cell::{Cell, RefCell},
    panic::{self, PanicHookInfo},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

thread_local! {
    /// Whether this thread is in [`Quiet::run`].
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// The location of the last suppressed panic.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

/// While one exists, a panic hook ignores panics in [`run`](Self::run), and passes all others on to the previous hook.
/// Dropping the last one restores the previous hook.
pub(super) struct Quiet(());

struct Installed {
    users: usize,
    /// The previous hook, and the address of ours.
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

    /// Runs `f`. Nothing is printed about panics of this thread meanwhile.
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

/// The location of a panic that has just been caught, if it was suppressed.
pub(super) fn take_location() -> Option<String> {
    LOCATION.take()
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let mut installed = installed();
        installed.users -= 1;
        // A thread that panics cannot set a hook. The next user restores it.
        if installed.users > 0 || thread::panicking() {
            return;
        }
        if let Some((before, ours)) = installed.hooks.take() {
            let hook = panic::take_hook();
            // A hook that was set meanwhile stays. It may call ours, which still calls the previous one.
            let is_ours = address(&*hook) == ours;
            panic::set_hook(match is_ours {
                true => Box::new(move |info| before(info)),
                false => hook,
            });
        }
    }
}
