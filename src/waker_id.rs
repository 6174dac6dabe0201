use std::{ptr, task::Waker};

/// Which waker it is, without keeping one.
///
/// Two wakers of the same id wake the same task as long as one of them lives: afterwards its addresses may be reused.
#[derive(Default, PartialEq)]
pub(crate) struct WakerId {
    data: usize,
    vtable: usize,
}

impl WakerId {
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Self {
        Self {
            data: waker.data().addr(),
            vtable: ptr::from_ref(waker.vtable()).addr(),
        }
    }
}
