use std::{
    ptr,
    task::{RawWakerVTable, Waker},
};

const _: () = assert!(align_of::<RawWakerVTable>() > 1);

/// Which waker it is, without keeping one.
///
/// An id means one waker as long as that one lives, or a clone of it with the same data.
#[derive(Clone, Copy, Default, PartialEq)]
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

    /// Another id for the same waker, which no waker is found by.
    #[inline]
    pub(crate) fn marked(self) -> Self {
        // No vtable lies at an odd address.
        Self {
            data: self.data,
            vtable: self.vtable | 1,
        }
    }

    /// Whether it is an id of this waker, marked or not.
    #[inline]
    pub(crate) fn is_of(self, waker: &Waker) -> bool {
        let id = Self::of(waker);
        self == id || self == id.marked()
    }

    /// The id of a waker of which `clone` is kept.
    ///
    /// Not the clone's own: a vtable can have one address here and another there, as tokio's has under optimisation,
    /// so that a waker is not always recognised by its clone. The clone's only if its data is different: then nothing
    /// keeps the original's address from being used again.
    pub(crate) fn kept_by(clone: &Waker, original: &Waker) -> Self {
        if clone.data() == original.data() {
            Self::of(original)
        } else {
            Self::of(clone)
        }
    }
}
