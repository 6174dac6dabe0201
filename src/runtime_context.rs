//! The runtime in which something was made.

#[cfg(feature = "tokio")]
pub(crate) use runtime::RuntimeContext;

#[cfg(not(feature = "tokio"))]
pub(crate) use no_runtime::RuntimeContext;

#[cfg(feature = "tokio")]
mod runtime {
    use tokio::runtime::Handle;

    /// A runtime, or none if the thread was in none.
    pub(crate) struct RuntimeContext(Option<Handle>);

    impl RuntimeContext {
        pub(crate) fn current() -> Self {
            Self(Handle::try_current().ok())
        }

        /// Calls `f` in the context of the runtime.
        pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
            // A context cannot be entered while the thread's thread-locals are being destroyed.
            let can_enter = || match Handle::try_current() {
                Ok(_) => true,
                Err(error) => error.is_missing_context(),
            };
            let runtime = self.0.as_ref().filter(|_| can_enter());
            let _context = runtime.map(Handle::enter);
            f()
        }

        /// Drops `owned` on a task of the runtime, or at once if there is none or if it has shut down.
        pub(crate) fn drop_on_task(&self, owned: impl Send + 'static) {
            if let Self(Some(handle)) = self {
                handle.spawn(async move { drop(owned) });
            }
        }
    }
}

/// Without tokio there is no runtime.
#[cfg(not(feature = "tokio"))]
mod no_runtime {
    pub(crate) struct RuntimeContext;

    impl RuntimeContext {
        pub(crate) fn current() -> Self {
            Self
        }

        #[inline]
        pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
            f()
        }

        pub(crate) fn drop_on_task(&self, owned: impl Send + 'static) {
            drop(owned);
        }
    }
}
