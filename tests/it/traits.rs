//! Auto traits pass through, types have names, and adapters stay small.

use futures::{
    StreamExt,
    future::LocalBoxFuture,
    stream::{BoxStream, Empty, Iter, LocalBoxStream},
};
use std::{
    error::Error,
    fmt::{Debug, Display},
    hash::Hash,
    marker::PhantomPinned,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use stopcock::{
    CancelStreamExt, CancellationToken, Cancelled, CancelledOwned, DropGuard, DropGuardRef,
    Generator, Hold, Holder, IntoSignal, Registration, RunUntilCancelled, Settled, Signal,
    StopReason, TakeUntilCancelled, TryGenerator, Yielder, generator, signal, try_generator,
};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
fn is_debug<T: Debug>() {}

/// A future that is not `Unpin`, with an output that is.
struct PinnedFuture(PhantomPinned);

impl Future for PinnedFuture {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let Self(PhantomPinned) = *self;
        Poll::Pending
    }
}

/// Returns whether a type has a trait, without a compile error if it has not.
macro_rules! has {
    ($type:ty: $bound:ident) => {{
        struct Has<T>(std::marker::PhantomData<T>);
        trait Not {
            const ANSWER: bool = false;
        }
        impl<T> Not for Has<T> {}
        #[allow(dead_code, reason = "which of the two is used is the answer")]
        impl<T: $bound> Has<T> {
            const ANSWER: bool = true;
        }
        <Has<$type>>::ANSWER
    }};
}

#[test]
fn the_token_and_its_futures_are_everything_that_tokio_utils_are() {
    is_send::<CancellationToken>();
    is_sync::<CancellationToken>();
    is_unpin::<CancellationToken>();
    is_unwind_safe::<CancellationToken>();
    fn is_a_key<T: Clone + Default + Eq + Hash + Debug>() {}
    is_a_key::<CancellationToken>();

    is_send::<(Cancelled<'_>, CancelledOwned, DropGuard)>();
    is_sync::<(Cancelled<'_>, CancelledOwned, DropGuard)>();
    is_unpin::<(Cancelled<'_>, CancelledOwned, DropGuard)>();
    is_debug::<(Cancelled<'_>, CancelledOwned, DropGuard)>();

    fn is_a_reason<T: Clone + Error + Display + Debug + Send + Sync + 'static>() {}
    is_a_reason::<StopReason>();
    assert_eq!(size_of::<CancellationToken>(), size_of::<usize>());
    assert_eq!(size_of::<Option<CancellationToken>>(), size_of::<usize>());
}

#[test]
fn a_token_is_made_of_tokio_utils_by_value_and_by_reference_and_theirs_of_it() {
    use tokio_util::sync::CancellationToken as Theirs;

    fn is_made_of_theirs<T: From<Theirs> + for<'a> From<&'a Theirs>>() {}
    is_made_of_theirs::<CancellationToken>();
    let _: fn(&CancellationToken) -> Theirs = CancellationToken::to_tokio_util;
    // For an argument.
    let _: CancellationToken = Theirs::new().into();
    assert_eq!(size_of::<CancellationToken>(), size_of::<Theirs>());
}

#[cfg(feature = "tokio")]
#[test]
fn a_token_is_made_of_each_signal_that_a_task_may_own() {
    type When = signal::When<futures::future::BoxFuture<'static, ()>>;
    let _: fn(When) -> CancellationToken = CancellationToken::from_signal;
    let _: fn(signal::Any<When, signal::Never>) -> CancellationToken =
        CancellationToken::from_signal;
    let _: fn(&'static CancellationToken) -> CancellationToken = CancellationToken::from_signal;
    let _: fn(CancelledOwned) -> CancellationToken = CancellationToken::from_signal;
}

#[test]
fn what_a_token_makes_besides_is_sent_to_other_threads_and_may_be_moved() {
    type Made<'a> = (
        (DropGuardRef<'a>, Registration, Settled, signal::TokenSignal),
        (Hold, Holder),
    );
    fn is_clone<T: Clone + 'static>() {}
    is_clone::<Hold>();
    is_send::<Made<'_>>();
    is_sync::<Made<'_>>();
    is_unpin::<Made<'_>>();
    is_unwind_safe::<Made<'_>>();
    is_debug::<Made<'_>>();
}

#[test]
fn auto_traits_pass_through_a_future_that_runs_until_cancelled() {
    type Of<Fut> = RunUntilCancelled<Fut>;
    is_send::<Of<futures::future::BoxFuture<'static, u8>>>();
    is_sync::<Of<std::future::Ready<u8>>>();
    is_unpin::<Of<futures::future::LocalBoxFuture<'static, u8>>>();
    is_unwind_safe::<Of<std::future::Ready<u8>>>();
    is_debug::<Of<Rc<PhantomPinned>>>();
    assert!(!has!(Of<Rc<u8>>: Send));
    assert!(!has!(Of<PhantomPinned>: Unpin));
    assert!(size_of::<Of<[u64; 4]>>() <= size_of::<[u64; 4]>() + 64);
}

#[test]
fn auto_traits_pass_through_any() {
    use signal::{Any, Never, TokenSignal, When};

    type Tokens = Any<TokenSignal, Any<TokenSignal, Never>>;
    is_send::<Tokens>();
    is_sync::<Tokens>();
    is_unpin::<Tokens>();
    is_unwind_safe::<Tokens>();
    is_debug::<Tokens>();
    type Of<Fut> = Any<When<Fut>, TokenSignal>;
    is_send::<Of<std::future::Ready<()>>>();
    is_unpin::<Of<std::future::Ready<()>>>();
    assert!(!has!(Of<LocalBoxFuture<'static, ()>>: Send));
    // The signal keeps the output.
    assert!(!has!(Of<std::future::Ready<Rc<u8>>>: Send));
    assert!(!has!(Of<PinnedFuture>: Unpin));
    assert!(!has!(Any<Rc<u8>, Never>: Sync));
}

#[test]
fn auto_traits_pass_through_an_adapter() {
    type Of<S> = TakeUntilCancelled<S>;
    is_send::<Of<BoxStream<'static, u8>>>();
    is_unpin::<Of<BoxStream<'static, u8>>>();
    is_sync::<Of<Empty<u8>>>();
    assert!(!has!(Of<LocalBoxStream<'static, u8>>: Send));
    assert!(!has!(Of<PhantomPinned>: Unpin));
    is_unpin::<Of<LocalBoxStream<'static, u8>>>();

    type Until<Fut> = TakeUntilCancelled<Empty<u8>, signal::When<Fut>>;
    is_unpin::<Until<futures::future::Ready<()>>>();
    assert!(!has!(Until<PinnedFuture>: Unpin));
    assert!(!has!(Until<LocalBoxFuture<'static, u8>>: Send));
}

#[cfg(feature = "tokio")]
#[test]
fn auto_traits_pass_through_a_deadline() {
    use stopcock::WithDeadline;

    is_send::<WithDeadline<BoxStream<'static, u8>>>();
    is_unpin::<WithDeadline<BoxStream<'static, u8>>>();
    is_sync::<WithDeadline<Empty<u8>>>();
    assert!(!has!(WithDeadline<LocalBoxStream<'static, u8>>: Send));
    assert!(!has!(WithDeadline<PhantomPinned>: Unpin));
}

#[test]
fn a_generator_is_send_and_sync_when_its_body_is() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let items = generator(signal::never(), async |mut y| {
        let local = String::from("a");
        y.yield_item(local.len()).await;
    });
    is_send(&items);
    is_sync(&items);
    let items = try_generator(signal::never(), async |mut y| {
        let local = String::from("a");
        y.token();
        y.yield_item(local.len()).await;
        Err(local)
    });
    is_send(&items);
    is_sync(&items);
    self::is_send::<Yielder<'_, u8>>();
    assert!(!has!(Yielder<'static, Rc<u8>>: Send));
    assert!(!has!(Yielder<'static, Rc<u8>>: Sync));
}

#[test]
fn a_generator_is_never_unpin() {
    type Body = fn(Yielder<'_, u8>) -> std::future::Ready<()>;
    assert!(!has!(Generator<u8, Body, signal::Never>: Unpin));
    type TryBody = fn(Yielder<'_, u8>) -> std::future::Ready<Result<(), u8>>;
    assert!(!has!(TryGenerator<u8, u8, TryBody, signal::Never>: Unpin));
}

#[test]
fn a_try_generator_is_send_when_its_error_is() {
    type Body<E> = fn(Yielder<'_, u8>) -> std::future::Ready<Result<(), E>>;
    type Of<E> = TryGenerator<u8, E, Body<E>>;
    is_send::<Of<String>>();
    is_debug::<Of<Rc<PhantomPinned>>>();
    assert!(!has!(Of<Rc<u8>>: Send));
}

#[test]
fn types_can_be_named_in_a_struct_and_boxed() {
    struct Service {
        body: TakeUntilCancelled<Iter<std::vec::IntoIter<u8>>>,
        limited: TakeUntilCancelled<BoxStream<'static, u8>, signal::Never>,
    }
    let token = CancellationToken::new();
    let service = Service {
        body: futures::stream::iter(vec![1]).take_until_cancelled(&token),
        limited: futures::stream::empty()
            .boxed()
            .take_until_cancelled(signal::never()),
    };
    let _: BoxStream<'static, u8> = service.body.chain(service.limited).boxed();

    fn is_a_signal<G: Signal>(_: G) {}
    is_a_signal(token.into_signal());
}

#[test]
fn an_adapter_adds_at_most_64_bytes() {
    fn added<S, A>(_: &S, wrap: impl FnOnce(&S) -> A) -> usize {
        let _ = wrap;
        size_of::<A>() - size_of::<S>()
    }
    let token = CancellationToken::new();
    let source = futures::stream::iter(0..3);
    assert!(
        added(&source, |source| source
            .clone()
            .take_until_cancelled(&token))
            <= 64
    );
    #[cfg(feature = "tokio")]
    {
        let timeout = std::time::Duration::ZERO;
        assert!(added(&source, |source| source.clone().with_timeout(timeout)) <= 64);
    }
}

#[test]
fn auto_traits_pass_through_the_adapters_with_an_error() {
    use stopcock::{CancelOnDrop, TryWithCancellation, WithCancellation, WithCancellationFuture};

    type All<S> = (WithCancellation<S>, TryWithCancellation<S>, CancelOnDrop<S>);
    is_send::<All<BoxStream<'static, u8>>>();
    is_sync::<All<Empty<u8>>>();
    is_unpin::<All<LocalBoxStream<'static, u8>>>();
    is_debug::<All<Rc<PhantomPinned>>>();
    assert!(!has!(WithCancellation<LocalBoxStream<'static, u8>>: Send));
    assert!(!has!(TryWithCancellation<PhantomPinned>: Unpin));
    assert!(!has!(CancelOnDrop<PhantomPinned>: Unpin));
    assert!(size_of::<WithCancellation<[u64; 4]>>() <= size_of::<[u64; 4]>() + 64);
    assert!(size_of::<CancelOnDrop<[u64; 4]>>() <= size_of::<[u64; 4]>() + 64);

    type Of<Fut> = WithCancellationFuture<Fut>;
    is_send::<Of<futures::future::BoxFuture<'static, u8>>>();
    is_unpin::<Of<futures::future::LocalBoxFuture<'static, u8>>>();
    is_unwind_safe::<Of<std::future::Ready<u8>>>();
    is_debug::<Of<Rc<PhantomPinned>>>();
    assert!(!has!(Of<Rc<u8>>: Send));
    assert!(!has!(Of<PhantomPinned>: Unpin));
}

#[cfg(feature = "tokio")]
#[test]
fn auto_traits_pass_through_the_forms_that_keep_time() {
    use signal::Draining;
    use stopcock::{
        TakeUntilDeadline, TryWithCancellation, WithCancellation, WithDeadlineFuture,
        WithIdleTimeout,
    };

    type Drained = Draining<signal::TokenSignal>;
    type All<S> = (
        TakeUntilDeadline<S>,
        WithIdleTimeout<S>,
        TakeUntilCancelled<S, Drained>,
        WithCancellation<S, Drained>,
        TryWithCancellation<S, Drained>,
    );
    is_send::<All<BoxStream<'static, u8>>>();
    is_unpin::<All<LocalBoxStream<'static, u8>>>();
    is_debug::<All<Rc<PhantomPinned>>>();
    is_unpin::<WithDeadlineFuture<std::future::Ready<u8>>>();
    assert!(!has!(WithIdleTimeout<PhantomPinned>: Unpin));
    assert!(size_of::<TakeUntilDeadline<[u64; 4]>>() <= size_of::<[u64; 4]>() + 64);
    assert!(size_of::<WithIdleTimeout<[u64; 4]>>() <= size_of::<[u64; 4]>() + 64 + 16);
}

#[test]
fn a_stream_that_drops_on_cancel_is_unpin_and_sync_and_is_send_if_its_source_is() {
    use stopcock::{DropOnCancel, TryWithCancellation, WithCancellation};

    type All<S> = (
        DropOnCancel<TakeUntilCancelled<S>>,
        DropOnCancel<WithCancellation<S>>,
        DropOnCancel<TryWithCancellation<S>>,
    );
    is_send::<All<BoxStream<'static, u8>>>();
    // Only one thread at a time accesses the source.
    is_sync::<All<BoxStream<'static, u8>>>();
    is_unpin::<All<PhantomPinned>>();
    is_debug::<All<Rc<PhantomPinned>>>();
    assert!(!has!(DropOnCancel<TakeUntilCancelled<Rc<u8>>>: Send));
    assert!(size_of::<DropOnCancel<TakeUntilCancelled<[u64; 4]>>>() <= 32);
}

#[cfg(feature = "tokio")]
#[test]
fn producers_and_their_senders_are_send_if_their_items_are() {
    use stopcock::{
        BlockingGenerator, BlockingSender, Join, RunBlocking, Sender, Sending, SpawnedGenerator,
    };

    type All<T> = (
        (SpawnedGenerator<T>, BlockingGenerator<T>, Join<T>),
        (Sender<T>, BlockingSender<T>, Sending<'static, T>),
        RunBlocking<T>,
    );
    is_send::<All<Box<dyn Fn() + Send>>>();
    is_sync::<(SpawnedGenerator<u8>, BlockingGenerator<u8>, Join<u8>)>();
    is_sync::<(Sender<u8>, BlockingSender<u8>, RunBlocking<u8>)>();
    is_unpin::<All<PhantomPinned>>();
    is_debug::<All<Rc<PhantomPinned>>>();
    assert!(!has!(SpawnedGenerator<Rc<u8>>: Send));
    assert!(!has!(Sender<Rc<u8>>: Send));
    fn is_clone<T: Clone>() {}
    is_clone::<(Sender<Rc<PhantomPinned>>, BlockingSender<Rc<PhantomPinned>>)>();
    assert!(size_of::<SpawnedGenerator<[u64; 4]>>() <= 128);
    assert!(size_of::<RunBlocking<u8>>() <= 80);
}
