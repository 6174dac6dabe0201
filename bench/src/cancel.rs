//! Builds, cancels and drops trees, with the same code for our token and tokio-util's.

use crate::case::{Case, Quantity, Row};

/// The number of waits that `join_all` keeps in one allocation, so that mainly the token's work counts.
const TOGETHER: usize = 30;

macro_rules! trees {
    ($of:ident, $token:ty) => {
        pub(crate) mod $of {
            use super::TOGETHER;
            use futures::future::join_all;
            use std::{
                future::Future,
                pin::Pin,
                task::{Context, Waker},
            };

            type Token = $token;

            fn wait(waits: impl Iterator<Item = impl Future>) -> impl Future {
                let mut all = join_all(waits);
                let mut cx = Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut all).poll(&mut cx).is_pending());
                all
            }

            #[inline(never)]
            pub(super) fn waiters(n: usize) {
                let root = Token::new();
                let waiters: Vec<_> = (0..n)
                    .step_by(TOGETHER)
                    .map(|first| wait((first..n).take(TOGETHER).map(|_| root.cancelled())))
                    .collect();
                root.cancel();
                drop(waiters);
            }

            #[inline(never)]
            pub(super) fn children(n: usize) {
                let root = Token::new();
                let children: Vec<_> = (0..n).map(|_| root.child_token()).collect();
                root.cancel();
                drop(children);
            }

            #[inline(never)]
            pub(super) fn waiting_children(n: usize) {
                with_waiting_children(n, |root, _| root.cancel());
            }

            #[inline]
            pub(crate) fn with_waiting_children<R>(
                n: usize,
                act: impl FnOnce(&Token, &[Token]) -> R,
            ) -> R {
                let root = Token::new();
                let children: Vec<_> = (0..n).map(|_| root.child_token()).collect();
                let waiters: Vec<_> = children
                    .chunks(TOGETHER)
                    .map(|some| wait(some.iter().map(Token::cancelled)))
                    .collect();
                let result = act(&root, &children);
                drop(waiters);
                result
            }

            /// A task waits at its end, so that each link is listed.
            #[inline(never)]
            pub(super) fn chain(n: usize) {
                let mut links = vec![Token::new()];
                for link in 0..n {
                    links.push(links[link].child_token());
                }
                let waiter = wait(links.last().into_iter().map(Token::cancelled));
                links[0].cancel();
                drop(waiter);
            }
        }
    };
}

trees!(ours, stopcock::CancellationToken);
trees!(tokio, tokio_util::sync::CancellationToken);

/// The sizes of a tree, with the numbers of operations of the two counted runs and of a timed one.
///
/// Callgrind is slow: of the largest trees it counts one, compared with none.
const SIZES: [(usize, &str, [u64; 2], u64); 3] = [
    (1, "1", [5_000, 15_000], 300_000),
    (1_000, "1,000", [10_000, 30_000], 300_000),
    (1_000_000, "1,000,000", [0, 1_000_000], 1_000_000),
];

pub(crate) fn rows() -> Vec<Row> {
    /// The targets are for the largest trees, where what each tree costs once does not matter.
    fn by_size(
        work: &str,
        tokio: fn(usize),
        ours: fn(usize),
        bars: &'static [(Quantity, f64)],
    ) -> impl Iterator<Item = Row> {
        SIZES
            .into_iter()
            .map(move |(size, reported, counted, timed)| {
                let trees = move |tree: fn(usize)| {
                    move |n| {
                        for _ in 0..n / size as u64 {
                            tree(size);
                        }
                    }
                };
                Row {
                    work: format!("{work} of {reported}"),
                    has_bare: false,
                    counted: Some(counted),
                    timed,
                    cases: vec![
                        Case::new("tokio-util", trees(tokio)),
                        Case::new("**ours**", trees(ours)).bars(if size < 1_000_000 {
                            &[]
                        } else {
                            bars
                        }),
                    ],
                }
            })
    }

    [
        by_size(
            "cancel, per waiter",
            tokio::waiters,
            ours::waiters,
            &[(Quantity::Instructions, 300.0)],
        ),
        by_size(
            "cancel, per child",
            tokio::children,
            ours::children,
            &[(Quantity::Instructions, 520.0)],
        ),
        by_size(
            "cancel, per child with a waiter,",
            tokio::waiting_children,
            ours::waiting_children,
            // The target is for children without a waiter.
            &[],
        ),
        by_size(
            "cancel, per link of a chain",
            tokio::chain,
            ours::chain,
            &[(Quantity::Instructions, 920.0)],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
