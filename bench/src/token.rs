//! Operations of a token, with the same code for ours and tokio-util's, whose methods have the same names.

use crate::case::{Case, Quantity, Row};

macro_rules! operations {
    ($of:ident, $token:ty) => {
        pub(crate) mod $of {
            use std::{
                future::Future,
                hint::black_box,
                pin::pin,
                task::{Context, Waker},
            };

            pub(crate) type Token = $token;

            #[inline(never)]
            pub(crate) fn look(token: &Token, n: u64) {
                let mut left = n;
                // With a branch, like a caller that decides whether to continue.
                while left > 0 && !black_box(token).is_cancelled() {
                    left -= 1;
                }
            }

            fn at_depth(root: &Token, depth: usize) -> Token {
                (0..depth).fold(root.clone(), |token, _| token.child_token())
            }

            pub(crate) fn look_at_depth<const DEPTH: usize>(root: &Token, n: u64) {
                look(&at_depth(root, DEPTH), n);
            }

            pub(crate) fn child_at_depth<const DEPTH: usize>(root: &Token, n: u64) {
                child(&at_depth(root, DEPTH), n);
            }

            #[inline(never)]
            pub(crate) fn clone(token: &Token, n: u64) {
                for _ in 0..n {
                    drop(black_box(black_box(token).clone()));
                }
            }

            #[inline(never)]
            pub(crate) fn child(token: &Token, n: u64) {
                for _ in 0..n {
                    drop(black_box(black_box(token).child_token()));
                }
            }

            #[inline(never)]
            pub(crate) fn wait(token: &Token, n: u64) {
                let mut cx = Context::from_waker(black_box(Waker::noop()));
                for _ in 0..n {
                    let mut cancelled = pin!(black_box(token).cancelled());
                    _ = black_box(black_box(cancelled.as_mut()).poll(&mut cx));
                }
            }

            #[inline(never)]
            pub(crate) fn wait_again(token: &Token, n: u64) {
                let mut cx = Context::from_waker(black_box(Waker::noop()));
                let mut cancelled = pin!(token.cancelled());
                for _ in 0..n {
                    _ = black_box(black_box(cancelled.as_mut()).poll(&mut cx));
                }
            }
        }
    };
}

operations!(ours, stopcock::CancellationToken);
operations!(tokio, tokio_util::sync::CancellationToken);

/// A check below a root, at any depth.
const CHECK: &[(Quantity, f64)] = &[(Quantity::Instructions, 18.0)];

const CHILD: &[(Quantity, f64)] = &[
    (Quantity::Instructions, 335.0),
    (Quantity::Allocations, 1.0),
    (Quantity::Bytes, 128.0),
];

pub(crate) fn rows() -> Vec<Row> {
    fn row(
        work: &str,
        tokio: fn(&tokio::Token, u64),
        ours: fn(&ours::Token, u64),
        bars: &'static [(Quantity, f64)],
    ) -> Row {
        Row {
            work: work.to_owned(),
            has_bare: false,
            counted: Some([5_000, 15_000]),
            timed: 300_000,
            cases: vec![
                Case::new("tokio-util", move |n| tokio(&tokio::Token::new(), n)),
                Case::new("**ours**", move |n| ours(&ours::Token::new(), n)).bars(bars),
            ],
        }
    }

    vec![
        row(
            "`is_cancelled` of a root",
            tokio::look_at_depth::<0>,
            ours::look_at_depth::<0>,
            &[(Quantity::Instructions, 9.0), (Quantity::Nanoseconds, 1.5)],
        ),
        row(
            "`is_cancelled` of a child of a root",
            tokio::look_at_depth::<1>,
            ours::look_at_depth::<1>,
            CHECK,
        ),
        row(
            "`is_cancelled` of a grandchild",
            tokio::look_at_depth::<2>,
            ours::look_at_depth::<2>,
            CHECK,
        ),
        row(
            "`is_cancelled` at depth 10",
            tokio::look_at_depth::<10>,
            ours::look_at_depth::<10>,
            CHECK,
        ),
        row(
            "`is_cancelled` at depth 100",
            tokio::look_at_depth::<100>,
            ours::look_at_depth::<100>,
            CHECK,
        ),
        row(
            "clone + drop",
            tokio::clone,
            ours::clone,
            &[(Quantity::Instructions, 12.0)],
        ),
        row(
            "`child_token` + drop",
            tokio::child_at_depth::<0>,
            ours::child_at_depth::<0>,
            CHILD,
        ),
        row(
            "`child_token` + drop, of a child of a root",
            tokio::child_at_depth::<1>,
            ours::child_at_depth::<1>,
            CHILD,
        ),
        row(
            "`child_token` + drop, of a grandchild",
            tokio::child_at_depth::<2>,
            ours::child_at_depth::<2>,
            CHILD,
        ),
        row(
            "`child_token` + drop, at depth 10",
            tokio::child_at_depth::<10>,
            ours::child_at_depth::<10>,
            CHILD,
        ),
        row(
            "`child_token` + drop, at depth 100",
            tokio::child_at_depth::<100>,
            ours::child_at_depth::<100>,
            CHILD,
        ),
        row(
            "`cancelled()` made, polled, dropped",
            tokio::wait,
            ours::wait,
            &[(Quantity::Instructions, 200.0)],
        ),
        row(
            "`cancelled()` polled again",
            tokio::wait_again,
            ours::wait_again,
            &[(Quantity::Instructions, 20.0)],
        ),
    ]
}
