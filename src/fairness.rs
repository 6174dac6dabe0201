//! How long a run of ready items may be, and what it takes of the budget that all streams of a tokio task share.

/// How many items in a row an adapter, or a sender, lets by before it yields to its siblings.
pub(crate) const ITEMS_IN_A_ROW: u16 = 1024;

#[cfg(feature = "tokio")]
mod in_a_task {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll},
    };
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    /// What so many items take: a whole run a sixteenth of a task's budget, which is 128.
    const ITEMS_PER_UNIT: u32 = 128;

    /// More than a task has.
    const MOST: u32 = 128;

    /// Takes the share of a run of `items` from the task's budget: a merge takes the `Pending` of one stream for a
    /// reason to poll the others, and only what they share makes all of them pending at last.
    pub(crate) fn spend(items: u32, cx: &mut Context<'_>) {
        // Counted, and not until nothing is left: outside of a task there is always some.
        for _ in 0..items.div_ceil(ITEMS_PER_UNIT).min(MOST) {
            if !has_budget_remaining() || pin!(consume_budget()).poll(cx).is_pending() {
                return;
            }
        }
    }

    /// Whether the task has budget left; always outside of one.
    pub(crate) fn has_budget() -> bool {
        has_budget_remaining()
    }

    /// Pending while the task has no budget left; then it is woken after the others have had their turn.
    pub(crate) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
        match has_budget() {
            true => Poll::Ready(()),
            false => pin!(consume_budget()).poll(cx),
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod elsewhere {
    use std::task::Context;

    pub(crate) fn spend(_: u32, _: &mut Context<'_>) {}

    pub(crate) fn has_budget() -> bool {
        true
    }
}

#[cfg(feature = "tokio")]
pub(crate) use in_a_task::{has_budget, poll_budget, spend};

#[cfg(not(feature = "tokio"))]
pub(crate) use elsewhere::{has_budget, spend};
