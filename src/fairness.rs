//! The longest run of ready items, and its share of the budget that all streams of a tokio task share.

/// How many ready items in a row an adapter or a sender passes on before it yields to other tasks.
pub(crate) const MAX_READY_RUN: u16 = 1024;

#[cfg(feature = "tokio")]
mod in_a_task {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll},
    };
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    /// How many items take one unit of the budget. A whole run takes a sixteenth of a task's budget, which is 128.
    const ITEMS_PER_UNIT: u32 = 128;

    /// No task has more budget than this.
    const MAX_UNITS: u32 = 128;

    /// Takes the share of a run of `items` from the task's budget: when one stream is pending, a merge polls the
    /// others, and only the budget that they share makes all of them pending in the end.
    pub(crate) fn spend(items: u32, cx: &mut Context<'_>) {
        // A fixed number, not until none is left: outside of a task there is always some.
        for _ in 0..items.div_ceil(ITEMS_PER_UNIT).min(MAX_UNITS) {
            if !has_budget_remaining() || pin!(consume_budget()).poll(cx).is_pending() {
                return;
            }
        }
    }

    /// Whether the task has budget left. Always `true` outside of a task.
    pub(crate) fn has_budget() -> bool {
        has_budget_remaining()
    }

    /// Pending while the task has no budget left. Then the task is woken after the other tasks have run.
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
