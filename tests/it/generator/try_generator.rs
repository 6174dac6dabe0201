//! The laws G1 to G4 for bodies that may fail.

use super::{Dropped, collect, turn};
use crate::support::{panic_of, poll};
use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    future::{self, join, join_all},
    stream::{FusedStream, FuturesUnordered},
};
use std::{
    cell::{Cell, RefCell},
    io,
    num::ParseIntError,
    pin::{Pin, pin},
    task::Poll,
};
use stopcock::{CancellationToken, StopReason, TryGenerator, Yielder, signal, try_generator};

/// The error of a stream: that of its body, or a stop.
#[derive(Clone, Debug, PartialEq)]
enum Failure<E> {
    Body(E),
    Stop(String),
}

use Failure::Body;

impl<E> From<StopReason> for Failure<E> {
    fn from(reason: StopReason) -> Self {
        Self::Stop(reason.to_string())
    }
}

impl From<ParseIntError> for Failure<ParseIntError> {
    fn from(error: ParseIntError) -> Self {
        Body(error)
    }
}

fn stopped<T, E>(reason: &str) -> Poll<Option<Result<T, Failure<E>>>> {
    Poll::Ready(Some(Err(Failure::Stop(reason.to_owned()))))
}

#[test]
fn an_error_is_the_last_item() {
    let parsed = |text: &'static str| {
        collect(try_generator(signal::never(), async move |mut y| {
            for number in text.split(' ') {
                y.yield_item(number.parse::<u8>()?).await;
            }
            Ok::<_, Failure<ParseIntError>>(())
        }))
    };
    assert_eq!(parsed("1 2"), [Ok(1), Ok(2)]);
    assert_eq!(parsed("1 2 x 3")[..2], [Ok(1), Ok(2)]);
    assert!(parsed("1 2 x 3")[2].is_err());
    assert_eq!(parsed("1 2 x 3").len(), 3);
    assert_eq!(parsed("x").len(), 1);
}

#[test]
fn the_error_is_named_by_the_body_or_by_the_stream() {
    async fn of_a_function(mut y: Yielder<'_, u8>) -> io::Result<()> {
        y.yield_item(1).await;
        Err(io::ErrorKind::NotFound)?
    }
    assert_eq!(
        collect(try_generator(signal::never(), of_a_function)).len(),
        2
    );

    let annotated = try_generator(signal::never(), async |mut y| -> io::Result<()> {
        y.yield_item(1).await;
        Err(io::ErrorKind::NotFound)?
    });
    assert_eq!(collect(annotated).len(), 2);

    let of_the_let: TryGenerator<u8, io::Error, _, _> =
        try_generator(signal::never(), async |mut y| {
            y.yield_item(1).await;
            Ok(())
        });
    assert_eq!(collect(of_the_let).len(), 1);

    let turbofish = try_generator::<u8, io::Error, _, _>(signal::never(), async |mut y| {
        y.yield_item(1).await;
        Ok(())
    });
    assert_eq!(collect(turbofish).len(), 1);
}

#[test]
fn with_its_error_the_stream_is_over_and_its_body_dropped() {
    let dropped = RefCell::new(Vec::new());
    let token = CancellationToken::new();
    let mut settled = token.settled();
    let captured = Dropped(&dropped, "captured");
    let mut items = pin!(try_generator(&token, async |mut y: Yielder<'_, u8>| {
        let _captured = captured;
        let _first = Dropped(&dropped, "first");
        let _second = Dropped(&dropped, "second");
        y.yield_item(1).await;
        Err(Body("it broke"))
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Ok(1))));
    assert!(!items.is_terminated());
    assert_eq!(
        poll(items.as_mut()),
        Poll::Ready(Some(Err(Body("it broke"))))
    );
    assert_eq!(*dropped.borrow(), ["second", "first", "captured"]);
    assert!(items.is_terminated());
    assert_eq!(items.size_hint(), (0, Some(0)));
    // It holds nothing for which the token would have to wait, and no stop applies to it.
    token.cancel();
    assert!((&mut settled).now_or_never().is_some());
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert!(items.stop_reason().is_none());
}

#[test]
fn an_end_without_an_error_comes_at_once() {
    let mut items = pin!(try_generator::<u8, Failure<()>, _, _>(
        signal::never(),
        async |_| { Ok(()) }
    ));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert!(items.is_terminated());
}

#[test]
fn a_body_runs_only_up_to_the_yield_of_the_polled_item() {
    let steps = Cell::new(0);
    let mut items = pin!(try_generator(signal::never(), async |mut y| {
        for n in 1..=3 {
            steps.set(n);
            y.yield_item(n).await;
        }
        steps.set(4);
        Err(Body(()))
    }));
    assert_eq!(steps.get(), 0);
    for n in 1..=3 {
        assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Ok(n))));
        assert_eq!(steps.get(), n);
    }
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Err(Body(())))));
    assert_eq!(steps.get(), 4);
}

#[test]
fn dropping_or_stopping_drops_the_locals_in_reverse_order_and_the_body_never_resumes() {
    for stop in [true, false] {
        let dropped = RefCell::new(Vec::new());
        let resumed = Cell::new(false);
        let token = CancellationToken::new();
        let mut items = Box::pin(try_generator(&token, async |mut y: Yielder<'_, u8>| {
            let _first = Dropped(&dropped, "first");
            let _second = Dropped(&dropped, "second");
            y.yield_item(1).await;
            resumed.set(true);
            Err(Body(()))
        }));
        assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Ok(1))));
        if stop {
            token.cancel_with("enough");
            assert_eq!(items.size_hint(), (0, None));
            assert_eq!(poll(items.as_mut()), stopped("enough"));
            assert_eq!(items.stop_reason().unwrap().to_string(), "enough");
            assert_eq!(items.size_hint(), (0, Some(0)));
            assert_eq!(poll(items.as_mut()), Poll::Ready(None));
            assert_eq!(*dropped.borrow(), ["second", "first"]);
        }
        drop(items);
        assert_eq!(*dropped.borrow(), ["second", "first"]);
        assert!(!resumed.get());
    }
}

#[test]
fn the_item_of_the_last_poll_comes_out_before_the_error() {
    let dropped = RefCell::new(Vec::new());
    let mut items = pin!(try_generator(signal::never(), async |mut y| {
        let _local = Dropped(&dropped, "local");
        assert!(y.yield_item(1).now_or_never().is_none());
        Err(Body("it broke"))
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Ok(1))));
    assert_eq!(*dropped.borrow(), ["local"]);
    assert!(!items.is_terminated());
    assert_eq!(
        poll(items.as_mut()),
        Poll::Ready(Some(Err(Body("it broke"))))
    );
    assert!(items.is_terminated());
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
}

#[test]
fn a_stop_between_the_last_item_and_the_error_wins() {
    let dropped = RefCell::new(Vec::new());
    let token = CancellationToken::new();
    let mut items = pin!(try_generator(&token, async |mut y| {
        assert!(y.yield_item(1).now_or_never().is_none());
        Err(Body(Dropped(&dropped, "error")))
    }));
    assert!(matches!(poll(items.as_mut()), Poll::Ready(Some(Ok(1)))));
    token.cancel();
    let reported = poll(items.as_mut());
    assert!(matches!(reported, Poll::Ready(Some(Err(Failure::Stop(_))))));
    assert!(matches!(poll(items.as_mut()), Poll::Ready(None)));
    assert!(items.stop_reason().is_some());
    assert_eq!(*dropped.borrow(), ["error"]);
}

#[test]
fn a_panic_passes_through_once() {
    let mut items = pin!(try_generator(signal::never(), async |mut y| {
        y.yield_item(1).await;
        let number: u8 = "x".parse().unwrap();
        y.yield_item(number).await;
        Ok::<_, Failure<()>>(())
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Ok(1))));
    assert!(panic_of(|| poll(items.as_mut())).contains("ParseIntError"));
    assert_eq!(poll(items.as_mut()), Poll::Ready(None));
    assert!(items.stop_reason().is_none());
}

#[test]
fn a_yield_may_be_raced_joined_and_borrowed_without_losing_an_item() {
    async fn helper(y: &mut Yielder<'_, u32>, n: u32) -> Result<(), Failure<u32>> {
        y.yield_item(n).await;
        if n == 8 { Err(Body(9)) } else { Ok(()) }
    }
    let items = try_generator(signal::never(), async |mut y| {
        futures::select_biased! {
            () = y.yield_item(0).fuse() => {}
            () = future::ready(()).fuse() => {}
        }
        y.yield_item(1).await;
        join(y.yield_item(2), async {
            turn().await;
            turn().await;
        })
        .await;
        let mut all: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + '_>>> =
            FuturesUnordered::new();
        all.push(Box::pin(turn()));
        all.push(Box::pin(async {
            for n in 3..5 {
                y.yield_item(n).await;
            }
        }));
        while all.next().await.is_some() {}
        drop(all);
        let mut waits: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for _ in 0..40 {
            waits.push(Box::pin(turn()));
        }
        waits.push(Box::pin(y.yield_item(5)));
        join_all(waits).await;
        drop(y.yield_item(100));
        for n in 6..9 {
            helper(&mut y, n).await?;
        }
        y.yield_item(200).await;
        Ok::<_, Failure<u32>>(())
    });
    assert_eq!(
        collect(items),
        Vec::from_iter((0..9).map(Ok).chain([Err(Body(9_u32))]))
    );
}

#[test]
fn generators_nest_and_pass_their_errors_on() {
    let items = try_generator(signal::never(), async |mut outer: Yielder<'_, u32>| {
        let inner = try_generator(signal::never(), async |mut inner: Yielder<'_, u32>| {
            outer.yield_item(1).await;
            inner.yield_item(2).await;
            outer.yield_item(3).await;
            Err(Body("within"))
        });
        let mut inner = pin!(inner);
        while let Some(n) = inner.try_next().await? {
            assert_eq!(n, 2);
        }
        Ok(())
    });
    assert_eq!(collect(items), [Ok(1), Ok(3), Err(Body("within"))]);
}

#[test]
fn it_moves_to_another_thread_between_two_polls() {
    let mut items = Box::pin(try_generator(signal::never(), async |mut y| {
        let local = [1, 2];
        for n in &local {
            y.yield_item(*n).await;
        }
        Err(Body(String::from("it broke")))
    }));
    assert_eq!(poll(items.as_mut()), Poll::Ready(Some(Ok(1))));
    let rest = std::thread::spawn(move || collect(items)).join().unwrap();
    assert_eq!(rest, [Ok(2), Err(Body(String::from("it broke")))]);
}

#[test]
fn results_of_no_size_and_huge_errors_come_out() {
    let nothing = try_generator(signal::never(), async |mut y| {
        y.yield_item(()).await;
        Err(Body(()))
    });
    assert_eq!(collect(nothing), [Ok(()), Err(Body(()))]);
    let huge = try_generator(signal::never(), async |mut y| {
        y.yield_item(1_u8).await;
        Err(Body([7; 4096]))
    });
    assert_eq!(collect(huge), [Ok(1), Err(Body([7; 4096]))]);
}
