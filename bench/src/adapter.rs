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

/// A stream of numbers, with all bounds that any of the adapters needs.
pub(crate) trait Source: Stream<Item = u64> + Send + 'static {}

impl<S: Stream<Item = u64> + Send + 'static> Source for S {}

/// A way to stop a stream, and how to wrap a source with it.
pub(crate) trait Adapter: Default {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number>;
}

/// Besides the measured loop there is another one that polls the same type: most programs have several, and then
/// nothing is inlined only because it has a single caller.
#[inline(never)]
pub(crate) fn each_item<A: Adapter, S: Source + Default>(n: u64) {
    elsewhere::<A, S>();
    only_caller::<A, S>(n);
}

#[inline(never)]
fn only_caller<A: Adapter, S: Source + Default>(n: u64) {
    drain(A::default().adapt(S::default()), n);
}

/// The second caller of the same type. Both counted runs have it, so that it cancels out.
#[inline(never)]
fn elsewhere<A: Adapter, S: Source + Default>() {
    drain(A::default().adapt(S::default()), black_box(2));
}

/// Like a program: two handlers with an `await` for each item, over the same type of stream.
#[inline(never)]
fn in_handlers<A: Adapter, S: Source + Default>(n: u64) {
    poll_by_hand(async {
        count::<A, S>(black_box(2)).await;
        sum::<A, S>(n).await;
    });
}

async fn count<A: Adapter, S: Source + Default>(n: u64) {
    let adapter = A::default();
    let mut numbers = pin!(adapter.adapt(S::default()));
    let mut count = 0;
    while let Some(number) = numbers.next().await {
        black_box(number.number());
        count += 1;
        if count >= n {
            break;
        }
    }
}

async fn sum<A: Adapter, S: Source + Default>(n: u64) {
    let adapter = A::default();
    let mut numbers = pin!(adapter.adapt(S::default()));
    let mut sum = 0_u64;
    for _ in 0..n {
        let Some(number) = numbers.next().await else {
            break;
        };
        sum = sum.wrapping_add(black_box(number.number()));
    }
    black_box(sum);
}

/// The first adapter is made with a fresh token. Both counted runs have it, so that it cancels out.
#[inline(never)]
pub(crate) fn made_used_and_dropped<A: Adapter>(n: u64) {
    elsewhere::<A, Halting>();
    let adapter = A::default();
    for _ in 0..n {
        drain(black_box(&adapter).adapt(Halting::default()), 1);
    }
}

pub(crate) fn size<A: Adapter>() -> usize {
    size_of_val(&A::default().adapt(Ready::default())) - size_of::<Ready>()
}

/// The targets of a row.
type Bars = &'static [(Quantity, f64)];

/// For a root, for a token at any depth below it, and for `drop_on_cancel`.
struct Targets {
    root: Bars,
    below: Bars,
    drop_on_cancel: Bars,
}

const READY: Targets = Targets {
    root: &[(Quantity::Instructions, 8.0)],
    below: &[(Quantity::Instructions, 13.0)],
    drop_on_cancel: &[(Quantity::Instructions, 80.0)],
};
const PENDING: Targets = Targets {
    root: &[(Quantity::Instructions, 33.0)],
    below: &[(Quantity::Instructions, 43.0)],
    drop_on_cancel: &[(Quantity::Instructions, 180.0)],
};
const MADE: Targets = Targets {
    root: &[
        (Quantity::Instructions, 300.0),
        (Quantity::Allocations, 0.0),
        (Quantity::Size, 64.0),
    ],
    below: &[
        (Quantity::Instructions, 330.0),
        (Quantity::Allocations, 0.0),
        (Quantity::Size, 64.0),
    ],
    drop_on_cancel: &[(Quantity::Instructions, 1100.0)],
};

pub(crate) fn rows() -> Vec<Row> {
    fn each<S: Source + Default + Unpin>(targets: &Targets) -> Vec<Case> {
        let ours = |name, run: fn(u64), bars| Case::new(name, run).bars(bars);
        vec![
            Case::new("bare", each_item::<Bare, S>),
            ours("**ours**, root token", each_item::<Root, S>, targets.root),
            ours(
                "**ours**, root token, the only caller",
                only_caller::<Alone, S>,
                targets.root,
            ),
            ours(
                "**ours**, child token",
                each_item::<Depth<1>, S>,
                targets.below,
            ),
            ours(
                "**ours**, token at depth 2",
                each_item::<Depth<2>, S>,
                targets.below,
            ),
            ours(
                "**ours**, token at depth 10",
                each_item::<Depth<10>, S>,
                targets.below,
            ),
            ours(
                "**ours**, token at depth 100",
                each_item::<Depth<100>, S>,
                targets.below,
            ),
            ours("**ours**, `never()`", each_item::<Never, S>, targets.root),
            ours(
                "**ours**, tokio-util's token",
                each_item::<Theirs, S>,
                targets.root,
            ),
            ours(
                "**ours**, `with_cancellation`",
                each_item::<Loud, S>,
                targets.root,
            ),
            ours(
                "**ours**, `try_with_cancellation`",
                each_item::<Try, S>,
                targets.root,
            ),
            ours(
                "**ours**, `cancel_on_drop`",
                each_item::<OnDrop, S>,
                targets.root,
            ),
            ours(
                "**ours**, `drop_on_cancel`",
                each_item::<DropOnCancel, S>,
                targets.drop_on_cancel,
            ),
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

    fn handled<S: Source + Default>(targets: &Targets) -> Vec<Case> {
        vec![
            Case::new("bare", in_handlers::<Bare, S>),
            Case::new("**ours**, root token", in_handlers::<Root, S>).bars(targets.root),
            Case::new("**ours**, child token", in_handlers::<Depth<1>, S>).bars(targets.below),
            Case::new("`abortable`", in_handlers::<Abortable, S>),
            Case::new("`take_until(token)`", in_handlers::<TakeUntil, S>),
        ]
    }

    vec![
        Row {
            work: "adapter, always-ready source, per item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 1_000_000,
            cases: each::<Ready>(&READY),
        },
        Row {
            work: "adapter, source pending before each item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 300_000,
            cases: each::<Halting>(&PENDING),
        },
        Row {
            work: "adapter in two handlers, always-ready source, per item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 1_000_000,
            cases: handled::<Ready>(&READY),
        },
        Row {
            work: "adapter in two handlers, source pending before each item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 300_000,
            cases: handled::<Halting>(&PENDING),
        },
        Row {
            work: "adapter made, used once with one `Pending`, dropped".to_owned(),
            has_bare: true,
            counted: Some([5_000, 15_000]),
            timed: 50_000,
            cases: vec![
                made::<Bare>("bare"),
                made::<Root>("**ours**, root token").bars(MADE.root),
                made::<Depth<1>>("**ours**, child token").bars(MADE.below),
                made::<Depth<2>>("**ours**, token at depth 2").bars(MADE.below),
                made::<Depth<10>>("**ours**, token at depth 10").bars(MADE.below),
                made::<Depth<100>>("**ours**, token at depth 100").bars(MADE.below),
                made::<DropOnCancel>("**ours**, `drop_on_cancel`").bars(MADE.drop_on_cancel),
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

/// Like `Root`, over a source of its own: a type that only one loop polls.
#[derive(Default)]
struct Alone(CancellationToken);

impl Adapter for Alone {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.map(|number| number).take_until_cancelled(&self.0)
    }
}

/// Under a token at this depth below a root.
struct Depth<const LEVELS: usize>(CancellationToken);

impl<const LEVELS: usize> Default for Depth<LEVELS> {
    fn default() -> Self {
        let root = CancellationToken::new();
        Self((0..LEVELS).fold(root, |token, _| token.child_token()))
    }
}

impl<const LEVELS: usize> Adapter for Depth<LEVELS> {
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
    /// Kept: a tripwire whose trigger has been dropped costs something else.
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
