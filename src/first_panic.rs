use std::{
    any::Any,
    mem,
    panic::{self, AssertUnwindSafe},
    thread,
};

/// Holds the first of several panics back, until all foreign code has run.
#[derive(Default)]
pub(crate) struct FirstPanic(Option<Box<dyn Any + Send>>);

impl FirstPanic {
    #[inline]
    pub(crate) fn catch(&mut self, foreign: impl FnOnce()) {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(foreign)) {
            match self.0 {
                None => self.0 = Some(payload),
                Some(_) => discard(payload),
            }
        }
    }

    pub(crate) fn into_payload(self) -> Option<Box<dyn Any + Send>> {
        self.0
    }

    pub(crate) fn resume(self) {
        match self.0 {
            // A second panic during unwinding would abort the process.
            Some(payload) if thread::panicking() => discard(payload),
            Some(payload) => panic::resume_unwind(payload),
            None => {}
        }
    }
}

/// Drops a panic payload. If its drop panics, that second payload is leaked.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
}
