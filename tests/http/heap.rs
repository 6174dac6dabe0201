//! What a thread has allocated and not freed.
#![allow(
    unsafe_code,
    reason = "an allocator cannot be written without, and only hands on to the system's"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

pub(crate) fn bytes() -> isize {
    BYTES.get()
}

fn add(bytes: isize) {
    BYTES.set(BYTES.get() + bytes);
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: all methods call those of the system's allocator. The counter neither allocates nor has a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}
