use super::Signal;
use crate::StopReason;
use pin_project::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The signal of [`any`](fn@super::any).
#[pin_project]
#[derive(Debug)]
pub struct Any<A, B> {
    #[pin]
    a: A,
    #[pin]
    b: B,
}

impl<A, B> Any<A, B> {
    pub(super) fn new(a: A, b: B) -> Self {
        Self { a, b }
    }
}

impl<A: Signal, B: Signal> Signal for Any<A, B> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        this.a.is_fired() || this.b.is_fired()
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired(cx) {
            Poll::Pending => this.b.poll_fired(cx),
            fired => fired,
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.a.will_wake(cx) && self.b.will_wake(cx)
    }

    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired_since(cx) {
            Poll::Pending => this.b.poll_fired_since(cx),
            fired => fired,
        }
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.a.needs_checks() || self.b.needs_checks()
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired_at_end(cx) {
            Poll::Pending => this.b.poll_fired_at_end(cx),
            fired => fired,
        }
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let this = self.project();
        let next_check = this.a.check_every(items);
        next_check.min(this.b.check_every(items))
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        let this = self.project();
        this.a.note_item();
        this.b.note_item();
    }
}
