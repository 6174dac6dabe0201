//! Adapters that a deadline stops.

use crate::{
    adapter::{Adapter, Bare, Source, each_item, made_used_and_dropped, size},
    case::{Case, Quantity, Row},
    polling::{Halting, Number, Ready, drain_in_task, poll_by_hand, runtime},
};
use futures::{Stream, StreamExt as _};
use std::{hint::black_box, pin::pin, time::Duration};
use stopcock::{CancelStreamExt, CancellationToken};
use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt as _;

const FAR: Duration = Duration::from_secs(3600);

const READY: &[(Quantity, f64)] = &[(Quantity::Instructions, 13.0)];
const PENDING: &[(Quantity, f64)] = &[(Quantity::Instructions, 330.0)];
const MADE: &[(Quantity, f64)] = &[
    (Quantity::Instructions, 1000.0),
    (Quantity::Allocations, 1.0),
    (Quantity::Size, 64.0),
];

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row {
            work: "deadline, always-ready source, per item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 1_000_000,
            cases: vec![
                Case::new("bare", ready::<Bare>),
                Case::new("**ours**", ready::<WithDeadline>).bars(READY),
                Case::new("**ours**, `with_idle_timeout`", ready::<Idle>).bars(READY),
                Case::new("**ours**, a token's with `.drain_for`", ready::<Drain>).bars(READY),
                Case::new("`take_until(sleep)`", ready::<TakeUntilSleep>),
                Case::new("tokio-stream `timeout`", ready::<Timeout>),
                Case::new("`select!`, pinned `sleep`", ready_select),
            ],
        },
        Row {
            work: "deadline, source pending before each item".to_owned(),
            has_bare: true,
            counted: Some([10_240, 30_720]),
            timed: 30_000,
            cases: vec![
                Case::new("bare", pending::<Bare>),
                Case::new("**ours**", pending::<WithDeadline>).bars(PENDING),
                Case::new("**ours**, `with_idle_timeout`", pending::<Idle>).bars(PENDING),
                Case::new("**ours**, a token's with `.drain_for`", pending::<Drain>).bars(PENDING),
                Case::new("`take_until(sleep)`", pending::<TakeUntilSleep>),
                Case::new("tokio-stream `timeout`", pending::<Timeout>),
                Case::new("`select!`, pinned `sleep`", pending_select),
            ],
        },
        Row {
            work: "deadline made, used once with one `Pending`, dropped".to_owned(),
            has_bare: true,
            counted: Some([5_000, 15_000]),
            timed: 30_000,
            cases: vec![
                Case::new("bare", made::<Bare>),
                Case::new("**ours**", made::<WithDeadline>)
                    .size(in_runtime_size::<WithDeadline>)
                    .bars(MADE),
                Case::new("`take_until(sleep)`", made::<TakeUntilSleep>)
                    .size(in_runtime_size::<TakeUntilSleep>),
                Case::new("tokio-stream `timeout`", made::<Timeout>)
                    .size(in_runtime_size::<Timeout>),
            ],
        },
    ]
}

/// The runtime is never polled: nothing waits for its timers.
fn ready<A: Adapter>(n: u64) {
    let runtime = runtime();
    let _entered = runtime.enter();
    each_item::<A, Ready>(n);
}

/// In the runtime, so that its timer is measured as well.
#[inline(never)]
fn pending<A: Adapter>(n: u64) {
    runtime().block_on(async {
        pending_elsewhere::<A>().await;
        drain_in_task(A::default().adapt(Halting::default()), n).await;
    });
}

/// The second caller of the same type.
#[inline(never)]
async fn pending_elsewhere<A: Adapter>() {
    drain_in_task(A::default().adapt(Halting::default()), black_box(2)).await;
}

fn made<A: Adapter>(n: u64) {
    let runtime = runtime();
    let _entered = runtime.enter();
    made_used_and_dropped::<A>(n);
}

fn in_runtime_size<A: Adapter>() -> usize {
    let runtime = runtime();
    let _entered = runtime.enter();
    size::<A>()
}

#[inline(never)]
fn ready_select(n: u64) {
    let runtime = runtime();
    let _entered = runtime.enter();
    poll_by_hand(select_loop::<Ready>(n));
}

#[inline(never)]
fn pending_select(n: u64) {
    runtime().block_on(select_loop::<Halting>(n));
}

async fn select_loop<S: Stream<Item = u64> + Default + Unpin>(n: u64) {
    let mut sleep = pin!(sleep(FAR));
    let mut source = S::default();
    for _ in 0..n {
        select! {
            biased;
            () = &mut sleep => break,
            item = futures::StreamExt::next(black_box(&mut source)) => {
                black_box(item);
            }
        }
    }
}

#[derive(Default)]
struct Idle;

impl Adapter for Idle {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.with_idle_timeout(FAR)
    }
}

#[derive(Default)]
struct Drain(CancellationToken);

impl Adapter for Drain {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until_cancelled(&self.0).drain_for(FAR)
    }
}

#[derive(Default)]
struct WithDeadline;

impl Adapter for WithDeadline {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.with_deadline(Instant::now() + FAR)
    }
}

#[derive(Default)]
struct TakeUntilSleep;

impl Adapter for TakeUntilSleep {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.take_until(sleep(FAR))
    }
}

#[derive(Default)]
struct Timeout;

impl Adapter for Timeout {
    fn adapt<S: Source>(&self, source: S) -> impl Stream<Item: Number> {
        source.timeout(FAR)
    }
}
