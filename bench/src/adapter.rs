//! Adapters that a token stops.

use crate::{
    case::{Case, Quantity, Row},
    polling::{Halting, Number, Ready, drain, poll_by_hand},
};
use futures::{Stream, StreamExt as _, stream};
use std::{hint::black_box, pin::pin};
use stopcock::{CancelStreamExt, CancelTryStreamExt, CancellationToken, StopReason, signal};
use stream_cancel::{StreamExt as _, Trigger, Tripwire};
use tokio::select;
use tokio_util::sync::CancellationToken as TokioToken;

/// Numbers, as the most demanding adapter wants them.
pub(crate) trait Source: Stream<Item = u64> + Send + 'static {}

impl<S: Stream<Item = u64> + Send + 'static> Source for S {}

/// What stops, and how a source is fitted with it.
pub(crate) trait Adapter: Default {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number>;
}

#[inline(never)]
pub(crate) fn each_item<A: Adapter, S: Source + Default>(n: u64) {
    drain(A::default().adapt(S::default()), n);
}

/// The first is made on a fresh token. It is in the counts of both sizes, so that it cancels out.
#[inline(never)]
pub(crate) fn made_used_and_dropped<A: Adapter>(n: u64) {
    let adapter = A::default();
    for _ in 0..n {
        drain(black_box(&adapter).adapt(Halting::default()), 1);
    }
}

pub(crate) fn size<A: Adapter>() -> usize {
    size_of_val(&A::default().adapt(Ready::default())) - size_of::<Ready>()
}

const READY: &[(Quantity, f64)] = &[(Quantity::Instructions, 8.0)];
const PENDING: &[(Quantity, f64)] = &[(Quantity::Instructions, 36.0)];
const MADE: &[(Quantity, f64)] = &[
    (Quantity::Instructions, 350.0),
    (Quantity::Allocations, 0.0),
    (Quantity::Size, 64.0),
];

pub(crate) fn rows() -> Vec<Row> {
    fn each<S: Source + Default + Unpin>(bars: &'static [(Quantity, f64)]) -> Vec<Case> {
        vec![
            Case::new("bare", each_item::<Bare, S>),
            Case::new("**ours**, root token", each_item::<Root, S>).bars(bars),
            Case::new("**ours**, child token", each_item::<Child, S>).bars(bars),
            Case::new("**ours**, `never()`", each_item::<Never, S>).bars(bars),
            Case::new("**ours**, tokio-util's token", each_item::<Theirs, S>).bars(bars),
            Case::new("**ours**, `with_cancellation`", each_item::<Loud, S>).bars(bars),
            Case::new("**ours**, `try_with_cancellation`", each_item::<Try, S>).bars(bars),
            Case::new("**ours**, `cancel_on_drop`", each_item::<OnDrop, S>).bars(bars),
            Case::new("**ours**, `drop_on_cancel`", each_item::<DropOnCancel, S>),
            Case::new("`abortable`", each_item::<Abortable, S>),
            Case::new("`take_until(token)`", each_item::<TakeUntil, S>),
            Case::new("stream-cancel", each_item::<StreamCancel, S>),
            Case::new("`select!`, pinned `cancelled()`", select_pinned::<S>),
            Case::new("`select!`, fresh `cancelled()`", select_fresh::<S>),
        ]
    }

    fn made<A: Adapter + 'static>(name: &'static str) -> Case {
        Case::new(name, made_used_and_dropped::<A>).size(size::<A>)
    }

    vec![
        Row {
            work: "adapter, always-ready source, per item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 1_000_000,
            cases: each::<Ready>(READY),
        },
        Row {
            work: "adapter, source pending before each item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 300_000,
            cases: each::<Halting>(PENDING),
        },
        Row {
            work: "adapter made, used once with one `Pending`, dropped".to_owned(),
            has_bare: true,
            counted: Some([5_000, 15_000]),
            timed: 50_000,
            cases: vec![
                made::<Bare>("bare"),
                made::<Root>("**ours**, root token").bars(MADE),
                made::<Child>("**ours**, child token").bars(MADE),
                made::<DropOnCancel>("**ours**, `drop_on_cancel`"),
                made::<Abortable>("`abortable`"),
                made::<TakeUntil>("`take_until(token)`"),
                made::<StreamCancel>("stream-cancel"),
            ],
        },
    ]
}

#[derive(Default)]
pub(crate) struct Bare;

impl Adapter for Bare {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source
    }
}

#[derive(Default)]
struct Root(CancellationToken);

impl Adapter for Root {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_cancelled(&self.0)
    }
}

struct Child(CancellationToken);

impl Default for Child {
    fn default() -> Self {
        Self(CancellationToken::new().child_token())
    }
}

impl Adapter for Child {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_cancelled(&self.0)
    }
}

#[derive(Default)]
struct Never;

impl Adapter for Never {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_cancelled(signal::never())
    }
}

#[derive(Default)]
struct Theirs(TokioToken);

impl Adapter for Theirs {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_cancelled(&self.0)
    }
}

#[derive(Default)]
struct Loud(CancellationToken);

impl Adapter for Loud {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.with_cancellation(&self.0)
    }
}

#[derive(Default)]
struct Try(CancellationToken);

impl Adapter for Try {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source
            .map(Ok::<_, StopReason>)
            .try_with_cancellation(&self.0)
    }
}

#[derive(Default)]
struct OnDrop(CancellationToken);

impl Adapter for OnDrop {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.cancel_on_drop(self.0.clone())
    }
}

#[derive(Default)]
struct DropOnCancel(CancellationToken);

impl Adapter for DropOnCancel {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_cancelled(&self.0).drop_on_cancel()
    }
}

#[derive(Default)]
struct Abortable;

impl Adapter for Abortable {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        stream::abortable(source).0
    }
}

#[derive(Default)]
struct TakeUntil(TokioToken);

impl Adapter for TakeUntil {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until(self.0.clone().cancelled_owned())
    }
}

struct StreamCancel {
    /// Held: a tripwire whose trigger is gone costs something else.
    _trigger: Trigger,
    tripwire: Tripwire,
}

impl Default for StreamCancel {
    fn default() -> Self {
        let (trigger, tripwire) = Tripwire::new();
        Self {
            _trigger: trigger,
            tripwire,
        }
    }
}

impl Adapter for StreamCancel {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_if(self.tripwire.clone())
    }
}

#[inline(never)]
fn select_pinned<S: Stream<Item = u64> + Default + Unpin>(n: u64) {
    poll_by_hand(async {
        let token = TokioToken::new();
        let mut cancelled = pin!(token.cancelled());
        let mut source = S::default();
        for _ in 0..n {
            select! {
                biased;
                () = &mut cancelled => break,
                item = black_box(&mut source).next() => {
                    black_box(item);
                }
            }
        }
    });
}

#[inline(never)]
fn select_fresh<S: Stream<Item = u64> + Default + Unpin>(n: u64) {
    poll_by_hand(async {
        let token = TokioToken::new();
        let mut source = S::default();
        for _ in 0..n {
            select! {
                biased;
                () = token.cancelled() => break,
                item = black_box(&mut source).next() => {
                    black_box(item);
                }
            }
        }
    });
}
