//! `on_end`: the callback runs once, after the source was dropped and before the end is returned.

use crate::support::{panic_of, poll};
use futures::{Stream, StreamExt, stream};
use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Poll,
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, StopReason, generator, signal,
    testing::{Moment, Source},
    try_generator,
};

type Log = Arc<Mutex<Vec<String>>>;

/// A log: a line for the end, and one for the drop of the source.
fn logged(script: &str) -> (Source, impl FnOnce(Result<(), &StopReason>) + use<>, Log) {
    let log = Log::default();
    let (dropped, ended) = (Arc::clone(&log), Arc::clone(&log));
    let source = Source::new(script).with_hook(move |moment| {
        if moment == Moment::Drop {
            dropped.lock().unwrap().push("dropped".to_owned());
        }
    });
    let on_end = move |end: Result<(), &StopReason>| {
        ended.lock().unwrap().push(match end {
            Ok(()) => "ended".to_owned(),
            Err(reason) => reason.to_string(),
        });
    };
    (source, on_end, log)
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

/// Reads the stream to its end: the callback has run when that is returned, and does not run again.
fn read<S: Stream>(stream: S, log: &Log, stop: impl FnOnce()) {
    let mut stream = pin!(stream);
    let mut stop = Some(stop);
    loop {
        let before = lines(log);
        match poll(stream.as_mut()) {
            Poll::Ready(None) => break,
            Poll::Ready(Some(_)) if !lines(log).is_empty() => break,
            _ => {}
        }
        assert_eq!(before, lines(log));
        if let Some(stop) = stop.take() {
            stop();
        }
    }
    let at_the_end = lines(log);
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
    assert_eq!(at_the_end, lines(log));
}

/// Every way in which an adapter or a generator can end.
macro_rules! check {
    ($name:ident, |$source:ident, $token:ident| $stream:expr) => {
        #[test]
        fn $name() {
            let make = |$source: Source, $token: &CancellationToken| $stream;
            let token = CancellationToken::new();

            let (source, on_end, log) = logged("a-b|");
            read(make(source, &token).on_end(on_end), &log, || {});
            assert_eq!(lines(&log), ["dropped", "ended"]);

            let (source, on_end, log) = logged("a-b");
            let stream = make(source, &token).on_end(on_end);
            drop(stream);
            assert_eq!(lines(&log), ["dropped", "consumer dropped"]);

            // A source that has panicked has not ended. That of a generator is dropped when its body unwinds.
            let (source, on_end, log) = logged("a!");
            let mut stream = Box::pin(make(source, &token).on_end(on_end));
            panic_of(|| while !matches!(poll(stream.as_mut()), Poll::Ready(None)) {});
            assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
            assert_eq!(lines(&log).last().unwrap(), "consumer dropped");
            assert_eq!(
                lines(&log).iter().filter(|line| *line != "dropped").count(),
                1
            );

            let (source, on_end, log) = logged("a-b");
            let stream = make(source, &token).on_end(on_end);
            read(stream, &log, || assert!(token.cancel_with("enough")));
            assert_eq!(lines(&log), ["dropped", "enough"]);
        }
    };
}

check!(of_take_until_cancelled, |source, token| source
    .take_until_cancelled(token));
check!(of_with_cancellation, |source, token| source
    .with_cancellation(token));
check!(of_try_with_cancellation, |source, token| {
    source.map(Ok::<_, StopReason>).try_with_cancellation(token)
});
check!(of_a_mapped_stop, |source, token| source
    .with_cancellation(token)
    .map_stop(drop));
check!(of_a_refined_one, |source, token| source
    .take_until_cancelled(token)
    .yield_every(1));
check!(of_an_option, |source, token| source
    .take_until_cancelled(Some(token)));
check!(of_a_generator, |source, token| {
    let mut source = source;
    generator(token, async move |mut y| {
        while let Some(item) = source.next().await {
            y.yield_item(item).await;
        }
    })
});
check!(of_a_try_generator, |source, token| {
    let mut source = source;
    try_generator(token, async move |mut y| -> Result<(), StopReason> {
        while let Some(item) = source.next().await {
            y.yield_item(item).await;
        }
        Ok(())
    })
});

#[test]
fn a_refinement_after_it_keeps_it() {
    let token = CancellationToken::new();
    let (source, on_end, log) = logged("abc");
    let stream = source
        .with_cancellation(&token)
        .on_end(on_end)
        .yield_every(1);
    token.cancel_with("enough");
    read(stream.map_stop(drop), &log, || {});
    assert_eq!(lines(&log), ["dropped", "enough"]);
}

#[test]
fn a_stream_that_cancels_when_it_is_dropped_calls_it_before() {
    let (source, on_end, log) = logged("a|");
    let stream = source
        .cancel_on_drop(CancellationToken::new())
        .on_end(on_end);
    read(stream, &log, || {});
    assert_eq!(lines(&log), ["dropped", "ended"]);

    let token = CancellationToken::new();
    let (source, on_end, log) = logged("a");
    let asked = token.clone();
    let stream = source.cancel_on_drop(token.clone()).on_end(move |end| {
        assert!(!asked.is_cancelled());
        on_end(end);
    });
    drop(stream);
    assert_eq!(lines(&log), ["dropped", "consumer dropped"]);
    assert!(token.is_cancelled());
}

#[test]
fn a_source_that_was_taken_back_has_not_ended() {
    let (source, on_end, log) = logged("a");
    let stream = source.take_until_cancelled(signal::never()).on_end(on_end);
    let source = stream.into_inner();
    assert!(lines(&log).is_empty());
    drop(source);
    assert_eq!(lines(&log), ["dropped"]);
}

#[test]
fn it_is_called_before_the_token_has_settled() {
    let token = CancellationToken::new();
    let settled = token.settled();
    let mut settled = pin!(stream::once(settled));
    let mut stream = stream::pending::<()>()
        .take_until_cancelled(&token)
        .on_end(|_| {
            assert!(poll(settled.as_mut()).is_pending());
        });
    token.cancel();
    assert!(poll(Pin::new(&mut stream)).is_ready());
    drop(stream);
    assert!(poll(settled.as_mut()).is_ready());
}

#[test]
fn with_drop_on_cancel_the_canceller_calls_it() {
    let token = CancellationToken::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&calls);
    let stream = stream::repeat(1).with_cancellation(&token);
    let mut stream = stream
        .on_end(move |end| log.lock().unwrap().push(end.unwrap_err().to_string()))
        .drop_on_cancel();
    assert!(poll(Pin::new(&mut stream)).is_ready());
    assert!(calls.lock().unwrap().is_empty());
    token.cancel_with("enough");
    assert_eq!(*calls.lock().unwrap(), ["enough"]);
    assert!(matches!(
        poll(Pin::new(&mut stream)),
        Poll::Ready(Some(Err(_)))
    ));
    drop(stream);
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[test]
fn a_panic_of_it_passes_through_once() {
    let token = CancellationToken::new();
    token.cancel();
    let stream = stream::pending::<()>().take_until_cancelled(&token);
    let mut stream = stream.on_end(|_| panic!("no log"));
    assert_eq!(panic_of(|| poll(Pin::new(&mut stream))), "no log");
    assert!(matches!(poll(Pin::new(&mut stream)), Poll::Ready(None)));
    drop(stream);
}

#[cfg(feature = "tokio")]
mod timed {
    use super::{lines, logged, read};
    use futures::{StreamExt, stream};
    use std::{pin::pin, sync::mpsc, time::Duration};
    use stopcock::{
        CancelStreamExt, CancellationToken, StopReason, blocking_generator, spawn_generator,
        try_spawn_generator,
    };

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn of_a_deadline_and_of_a_grace() {
        let (ended, end) = mpsc::channel();
        let sent = ended.clone();
        let stream = stream::pending::<()>().with_timeout(SECOND);
        let stream = stream.on_end(move |end| sent.send(end.unwrap_err().to_string()).unwrap());
        assert_eq!(stream.count().await, 1);
        assert_eq!(end.try_recv().unwrap(), "deadline exceeded");

        let token = CancellationToken::new();
        token.cancel_with("enough");
        let draining = |script| {
            let (source, on_end, log) = logged(script);
            let stream = source.take_until_cancelled(&token);
            (stream.on_end(on_end).drain_for(SECOND), log)
        };
        // An end within the grace period is natural.
        let (stream, log) = draining("ab|");
        read(stream, &log, || {});
        assert_eq!(lines(&log), ["dropped", "ended"]);
        let (stream, log) = draining("ab~");
        assert_eq!(stream.count().await, 2);
        assert_eq!(lines(&log), ["dropped", "enough"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_producer() {
        let (ended, end) = mpsc::channel();
        let on_end = || {
            let ended = ended.clone();
            move |end: Result<(), &StopReason>| {
                let end = end.map_err(ToString::to_string);
                ended.send(end).unwrap();
            }
        };
        let token = CancellationToken::new();

        let numbers = spawn_generator(&token, 1, |tx| async move { tx.send(1).await });
        assert_eq!(numbers.on_end(on_end()).count().await, 1);
        assert_eq!(end.try_recv().unwrap(), Ok(()));

        let numbers = blocking_generator(&token, 1, |tx| tx.send(1));
        assert_eq!(numbers.on_end(on_end()).count().await, 1);
        assert_eq!(end.try_recv().unwrap(), Ok(()));

        // The body's own reason.
        let fails = spawn_generator(&token, 1, |tx| async move {
            tx.send(1).await?;
            Err("the disk is full".into())
        });
        assert_eq!(fails.on_end(on_end()).count().await, 1);
        assert_eq!(end.try_recv().unwrap(), Err("the disk is full".to_owned()));

        // The error of a body that may fail is an item.
        let fails = try_spawn_generator(&token, 1, |tx| async move {
            tx.send(1).await?;
            Err(StopReason::from("the disk is full"))
        });
        assert_eq!(fails.on_end(on_end()).count().await, 2);
        assert_eq!(end.try_recv().unwrap(), Ok(()));

        let panics = spawn_generator::<u8, _, _, _>(&token, 1, |_| async { panic!("at once") });
        let mut panics = pin!(panics.on_end(on_end()));
        let polled = std::panic::AssertUnwindSafe(panics.next());
        assert!(futures::FutureExt::catch_unwind(polled).await.is_err());
        assert_eq!(panics.next().await, None);
        assert_eq!(end.try_recv().unwrap(), Err("consumer dropped".to_owned()));

        let endless = || {
            spawn_generator(&token, 1, |tx| async move {
                loop {
                    tx.send(1).await?;
                }
            })
        };
        drop(endless().on_end(on_end()));
        assert_eq!(end.try_recv().unwrap(), Err("consumer dropped".to_owned()));
        let stopped = endless().on_end(on_end());
        token.cancel_with("enough");
        assert_eq!(stopped.count().await, 0);
        assert_eq!(end.try_recv().unwrap(), Err("enough".to_owned()));
        assert!(end.try_recv().is_err());
    }
}
