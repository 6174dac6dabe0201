//! Trees that are built, cancelled and dropped, written once for ours and tokio-util's.

use crate::case::{Case, Quantity, Row};

/// So many waits `join_all` keeps in one allocation, so that it is the token's work that counts.
const TOGETHER: u64 = 30;

macro_rules! trees {
    ($of:ident, $token:ty) => {
        mod $of {
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
            pub(super) fn waiters(n: u64) {
                let root = Token::new();
                let waiters: Vec<_> = (0..n.div_ceil(TOGETHER))
                    .map(|_| wait((0..TOGETHER).map(|_| root.cancelled())))
                    .collect();
                root.cancel();
                drop(waiters);
            }

            #[inline(never)]
            pub(super) fn children(n: u64) {
                let root = Token::new();
                let children: Vec<_> = (0..n).map(|_| root.child_token()).collect();
                root.cancel();
                drop(children);
            }

            #[inline(never)]
            pub(super) fn waiting_children(n: u64) {
                let root = Token::new();
                let children: Vec<_> = (0..n).map(|_| root.child_token()).collect();
                let waiters: Vec<_> = children
                    .chunks(TOGETHER as usize)
                    .map(|some| wait(some.iter().map(Token::cancelled)))
                    .collect();
                root.cancel();
                drop(waiters);
            }

            /// Someone waits at its end, so that each link is listed.
            #[inline(never)]
            pub(super) fn chain(n: u64) {
                let mut links = vec![Token::new()];
                for link in 0..n as usize {
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

pub(crate) fn rows() -> Vec<Row> {
    let row = |work, tokio, ours, bars| Row {
        work,
        has_bare: false,
        counted: 50_000,
        timed: 1_000_000,
        cases: vec![
            Case::new("tokio-util", tokio),
            Case::new("**ours**", ours).bars(bars),
        ],
    };
    vec![
        row(
            "cancel, per waiter",
            tokio::waiters,
            ours::waiters,
            &[(Quantity::Instructions, 300.0)],
        ),
        row(
            "cancel, per child",
            tokio::children,
            ours::children,
            &[(Quantity::Instructions, 800.0)],
        ),
        row(
            "cancel, per child with a waiter",
            tokio::waiting_children,
            ours::waiting_children,
            // The bar is for children alone.
            &[],
        ),
        row(
            "cancel, per link of a chain",
            tokio::chain,
            ours::chain,
            &[(Quantity::Instructions, 1100.0)],
        ),
    ]
}
