use std::{
    ptr,
    task::{RawWakerVTable, Waker},
};

const _: () = assert!(align_of::<RawWakerVTable>() > 1);

/// Identifies a waker without owning it.
///
/// An id is unambiguous as long as its waker lives, or a clone of it with the same data.
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

    /// Another id for the same waker, which is not equal to the id [`of`](Self::of) any waker.
    #[inline]
    pub(crate) fn marked(self) -> Self {
        // No vtable lies at an odd address.
        Self {
            data: self.data,
            vtable: self.vtable | 1,
        }
    }

    /// Whether it is the id of this waker, marked or not.
    #[inline]
    pub(crate) fn is_of(self, waker: &Waker) -> bool {
        let id = Self::of(waker);
        self == id || self == id.marked()
    }

    /// The id of a waker whose clone `clone` is kept.
    ///
    /// This is the original's id, not the clone's: a vtable can have several addresses, as tokio's has under
    /// optimisation, so a clone may have another id. Only if the clone's data is different, it is the clone's id: then
    /// nothing prevents the address of the original's data from being used again.
    pub(crate) fn kept_by(clone: &Waker, original: &Waker) -> Self {
        if clone.data() == original.data() {
            Self::of(original)
        } else {
            Self::of(clone)
        }
    }
}
