//! The methods that adjust an adapter, with their documentation: the same for all adapters.

/// The refinements of an adapter around a valve.
///
/// `call` is the method that makes the adapter in examples; `stop` is its end in a diagram.
macro_rules! refinements {
    ($Adapter:ident $(<$M:ident>)?, trait: $Trait:literal, call: $call:literal, stop: $stop:literal) => {
        $crate::stream::accessors::accessors!($Adapter<S, G $(, $M)?>);

        impl<S, G $(, $M)?> $Adapter<S, G $(, $M)?> {
            /// Returns the source. `None` once the stream has ended, as the source is dropped then.
            ///
            /// To use a source after the end of the stream, pass the adapter a borrow of it: `(&mut source)`.
            ///
            /// # Examples
            ///
            /// ```
            /// use futures::{Stream, StreamExt, executor::block_on, stream};
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// let token = CancellationToken::new();
            #[doc = concat!("let mut numbers = stream::iter([Ok::<_, std::io::Error>(1), Ok(2)]).", $call, "(&token);")]
            /// assert!(block_on(numbers.next()).is_some());
            /// assert_eq!(numbers.get_ref().unwrap().size_hint(), (1, Some(1)));
            ///
            /// let rest = numbers.into_inner().unwrap();
            /// assert_eq!(block_on(rest.count()), 1);
            /// ```
            pub fn into_inner(self) -> Option<S>
            where
                G: Signal,
            {
                self.valve.into_source()
            }

            /// Calls `f` once, when the stream has ended: with `Ok` at a natural end, with the reason at a stop, and
            /// with [`ConsumerDropped`](StopReason::ConsumerDropped) if it is dropped before it has ended.
            ///
            /// For a log line or a metric of a stream that has been moved into a body, where its `stop_reason()` cannot be
            /// called any more.
            ///
            /// `f` runs after the source was dropped and before the poll returns the end. With `drop_on_cancel` the
            /// thread that drops the source calls `f`, so it has to be `Send + 'static`; call `on_end` before
            /// `drop_on_cancel`. A stream whose source has panicked has not ended: it reports
            /// `ConsumerDropped`. After [`into_inner`](Self::into_inner) `f` is not called.
            ///
            /// # Panics
            ///
            /// A panic of `f` passes through the poll, the drop, or the cancel that calls it.
            ///
            /// # Examples
            ///
            /// ```
            /// use futures::{StreamExt, stream};
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// let token = CancellationToken::new();
            #[doc = concat!("let body = stream::pending::<Result<u8, std::io::Error>>().", $call, "(&token);")]
            /// let body = body.on_end(|end| assert_eq!(end.unwrap_err().to_string(), "shutting down"));
            ///
            /// token.cancel_with("shutting down");
            /// futures::executor::block_on(body.count());
            /// ```
            pub fn on_end<F>(self, f: F) -> $Adapter<S, $crate::signal::OnEnd<G, F> $(, $M)?>
            where
                F: FnOnce(Result<(), &StopReason>),
            {
                let on_end = |signal| $crate::signal::OnEnd::new(signal, f);
                self.map_valve(|valve| valve.map_signal(on_end))
            }

            /// Yields to other tasks after `items` items without a `Pending`, instead of 1024; never for 0.
            ///
            /// `FuturesUnordered` of futures yields like this; tokio's cooperative budget does it for tokio's own sources.
            ///
            /// ```text
            /// source   abcdefgh
            /// output   abc-def-gh      yield_every(3)
            /// ```
            ///
            /// A source that is always ready can be stopped by another task or a timer of the same thread only when the
            /// adapter yields. Choose fewer items if each of them takes long, and 0 if the consumer awaits something else
            /// anyway.
            ///
            /// # Examples
            ///
            /// ```
            /// use futures::{FutureExt, StreamExt, stream};
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// let token = CancellationToken::new();
            #[doc = concat!("let mut numbers = stream::repeat(1).", $call, "(&token).yield_every(1);")]
            /// assert!(numbers.next().now_or_never().is_some());
            /// assert!(numbers.next().now_or_never().is_none());
            /// assert!(numbers.next().now_or_never().is_some());
            /// ```
            pub fn yield_every(self, items: usize) -> Self {
                self.map_valve(|valve| valve.yield_every(items))
            }

            /// Stops gracefully, then hard: after the signal the stream continues for `time`, and is stopped only then.
            ///
            /// ```text
            /// source   a--b--c--d--e--f
            /// signal   ----X
            /// time           |------|
            #[doc = concat!("output   a--b--c--d--e", $stop)]
            /// ```
            ///
            /// The time runs from the first poll that notices the signal. If the source ends within it, that is a natural
            /// end, and no item is lost. The stop has the reason of the signal.
            ///
            /// A `Pending` does not mean that the source is empty: the cooperative budget of a tokio task makes a full
            /// channel pending. So the source is drained until it ends or the time is over. If it is a channel, drop the
            /// sender on the same signal.
            ///
            /// # Panics
            ///
            /// The first poll panics outside a tokio runtime.
            ///
            /// # Examples
            ///
            /// ```
            /// use futures::{StreamExt, stream};
            /// use std::time::Duration;
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
            /// # async fn main() {
            /// let token = CancellationToken::new();
            /// let jobs = stream::iter([1, 2, 3]);
            #[doc = concat!("let jobs = jobs.", $call, "(&token).drain_for(Duration::from_secs(5));")]
            /// token.cancel();
            /// // All queued jobs.
            /// assert_eq!(jobs.count().await, 3);
            /// # }
            /// ```
            #[cfg(feature = "tokio")]
            #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
            pub fn drain_for(
                self,
                time: std::time::Duration,
            ) -> $Adapter<S, crate::signal::Draining<G> $(, $M)?> {
                let drain = |signal| crate::signal::Draining::new(signal, time);
                self.map_valve(|valve| valve.map_signal(drain).check_next())
            }
        }

        impl<S, G $(, $M)?> $Adapter<S, G $(, $M)?> {
            /// Drops the source when the token is cancelled, even if nothing polls the stream.
            ///
            /// ```text
            /// source   a---b---c---
            /// signal   ------X
            /// dropped  ------D
            #[doc = concat!("output   a---b------", $stop, "     when it is polled next")]
            /// ```
            ///
            /// Without it, the source is dropped when the stream is next polled, or dropped. A consumer that waits for
            /// something else may do neither for a long time: hyper does not poll the body of a client that does not
            /// read. Such a body keeps its database cursor, and keeps [`settled`](crate::CancellationToken::settled)
            /// waiting. With `drop_on_cancel` the source has been dropped when
            /// `cancel()` returns.
            ///
            /// Exactly one thread drops the source, never while it is polled, and with no lock held:
            ///
            /// - The thread that cancels. If the token is cancelled already, this call does.
            /// - At the deadline of a token, a task, not the timer: a task of the runtime in which `drop_on_cancel()` was
            ///   called; if that was outside a runtime, or that runtime has shut down, a task of the runtime of the
            ///   deadline. A runtime that drops the task drops the source with it. Only if the runtime of the deadline is
            ///   shutting down as well, its timer drops the source.
            /// - If the cancel comes during a poll, the polling thread, when that poll returns. An item that it took from
            ///   the source is yielded.
            /// - A poll that notices the cancel before the thread that cancels has reached this stream.
            ///
            /// Whichever thread cancels, the source is dropped in the context of the runtime in which `drop_on_cancel()`
            /// was called, if any, so its `Drop` may spawn.
            ///
            /// While another thread drops the source, polls are pending and are woken afterwards, and dropping the stream
            /// does not wait. A panic of the source's `Drop` passes through the cancel, like that of a callback: after
            /// everything else under the token has been notified; at a deadline it is the panic of the task. The stream
            /// has ended then as well.
            ///
            /// It needs a token of this crate, as any other signal only wakes the task that polls. A source that has been
            /// dropped cannot be drained, so it cannot be combined with `drain_for`. The source is boxed, and an item
            /// costs two uncontended locks.
            ///
            /// # Examples
            ///
            /// ```
            /// use futures::{FutureExt, StreamExt, stream};
            /// use std::sync::Arc;
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// let cursor = Arc::new("cursor");
            /// let held = Arc::clone(&cursor);
            /// let rows = stream::repeat_with(move || held.len());
            ///
            /// let token = CancellationToken::new();
            #[doc = concat!("let mut rows = rows.", $call, "(&token).drop_on_cancel();")]
            /// assert!(rows.next().now_or_never().is_some());
            ///
            /// token.cancel();
            /// assert_eq!(Arc::strong_count(&cursor), 1, "nothing has polled since");
            /// // The next poll reports the stop.
            /// rows.next().now_or_never();
            /// assert!(rows.stop_reason().is_some());
            /// ```
            ///
            /// A stream that another thread cannot drop does not compile. With a signal that is not a token:
            ///
            /// ```compile_fail,E0277
            /// use futures::{StreamExt, stream};
            #[doc = concat!("use stopcock::{", $Trait, ", signal};")]
            ///
            #[doc = concat!("stream::repeat(1).", $call, "(signal::never()).drop_on_cancel();")]
            /// ```
            ///
            /// With a grace period:
            ///
            /// ```compile_fail,E0599
            /// use futures::{StreamExt, stream};
            /// use std::time::Duration;
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// let token = CancellationToken::new();
            #[doc = concat!("let numbers = stream::repeat(1).", $call, "(&token);")]
            /// numbers.drop_on_cancel().drain_for(Duration::MAX);
            /// ```
            ///
            /// With a source that is not `Send`:
            ///
            /// ```compile_fail,E0277
            /// use futures::{StreamExt, stream};
            /// use std::rc::Rc;
            #[doc = concat!("use stopcock::{", $Trait, ", CancellationToken};")]
            ///
            /// let token = CancellationToken::new();
            #[doc = concat!("let counters = stream::repeat(Rc::new(1)).", $call, "(&token);")]
            /// counters.drop_on_cancel();
            /// ```
            pub fn drop_on_cancel(self) -> $crate::DropOnCancel<Self>
            where
                S: Send + 'static,
                G: $crate::stream::CancelSignal + Send + 'static,
                $($M: Send + 'static,)?
            {
                $crate::DropOnCancel::new(self)
            }
        }

        impl<S, G $(, $M)?> $crate::stream::drop_on_cancel::HasValve
            for $Adapter<S, G $(, $M)?>
        where
            G: $crate::stream::CancelSignal,
        {
            type Source = S;
            type Signal = G;

            fn valve(&self) -> &Valve<S, G> {
                &self.valve
            }

            fn valve_mut(self: Pin<&mut Self>) -> Pin<&mut Valve<S, G>> {
                self.project().valve
            }
        }
    };
}

pub(super) use refinements;
