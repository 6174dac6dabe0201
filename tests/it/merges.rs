//! S11 in a merge: streams that are always ready, each under an adapter or a generator of its own, let the other tasks of
//! their thread run, however they are merged.

use futures::{FutureExt, Stream, StreamExt, future, stream};
use futures_concurrency::stream::Merge;
use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::Poll,
    time::Duration,
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, StopReason, Yielder,
    blocking_generator, generator, signal, spawn_generator_on, try_generator,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_stream::StreamMap;

const RUN: usize = 1024;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The number of items of all sources.
type Count = Arc<AtomicUsize>;
type Feed = Pin<Box<dyn Stream<Item = ()> + Send>>;

fn busy(count: &Count) -> impl Stream<Item = ()> + Send + Unpin + use<> {
    let count = Arc::clone(count);
    stream::poll_fn(move |_| {
        count.fetch_add(1, SeqCst);
        Poll::Ready(Some(()))
    })
}

fn results(count: &Count) -> impl Stream<Item = Result<(), StopReason>> + Send + Unpin + use<> {
    busy(count).map(Ok)
}

/// Counts the items where they are taken, as a producer runs ahead.
fn counted<S>(items: S, count: &Count) -> impl Stream<Item = ()> + Send + use<S>
where
    S: Stream<Item = ()> + Send,
{
    let count = Arc::clone(count);
    items.inspect(move |()| {
        count.fetch_add(1, SeqCst);
    })
}

/// More items than a stream may yield before another task runs, so that a full channel is always ready.
const AHEAD: usize = 26 * RUN;

/// A runtime on other threads.
fn elsewhere() -> &'static Handle {
    static ELSEWHERE: OnceLock<Runtime> = OnceLock::new();
    let runtime = || {
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).build().unwrap()
    };
    ELSEWHERE.get_or_init(runtime).handle()
}

fn boxed<T>(stream: impl Stream<Item = T> + Send + 'static) -> Feed {
    Box::pin(stream.map(|_| ()))
}

type Make = fn(&Count, &CancellationToken) -> Feed;

const STREAMS: [(&str, Make); 16] = [
    ("take_until_cancelled", |c, t| {
        boxed(busy(c).take_until_cancelled(t))
    }),
    ("with_cancellation", |c, t| {
        boxed(busy(c).with_cancellation(t))
    }),
    ("try_with_cancellation", |c, t| {
        boxed(results(c).try_with_cancellation(t))
    }),
    ("under a future", |c, t| {
        let cancelled = signal::when(Box::pin(t.clone().cancelled_owned()));
        boxed(busy(c).take_until_cancelled(cancelled))
    }),
    ("drop_on_cancel", |c, t| {
        boxed(busy(c).take_until_cancelled(t).drop_on_cancel())
    }),
    ("drain_for", |c, t| {
        boxed(busy(c).take_until_cancelled(t).drain_for(DAY))
    }),
    ("with_timeout", |c, _| boxed(busy(c).with_timeout(DAY))),
    ("a token with a deadline", |c, _| {
        boxed(busy(c).take_until_cancelled(CancellationToken::with_timeout(DAY)))
    }),
    ("with_idle_timeout", |c, _| {
        boxed(busy(c).with_idle_timeout(DAY))
    }),
    ("try_with_idle_timeout", |c, _| {
        boxed(results(c).try_with_idle_timeout(DAY))
    }),
    ("two adapters", |c, t| {
        boxed(busy(c).take_until_cancelled(t).with_cancellation(t))
    }),
    ("shorter runs", |c, t| {
        boxed(busy(c).take_until_cancelled(t).yield_every(100))
    }),
    ("generator", |c, t| {
        let mut source = busy(c);
        boxed(generator(t, async move |mut y: Yielder<'_, ()>| {
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
        }))
    }),
    ("try_generator", |c, t| {
        let mut source = busy(c);
        boxed(try_generator(t, async move |mut y| {
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
            Ok::<_, StopReason>(())
        }))
    }),
    ("spawn_generator", |c, t| {
        let (full, is_full) = mpsc::channel();
        let items = spawn_generator_on(elsewhere(), t, AHEAD, async move |tx| {
            for _ in 0..AHEAD {
                tx.send(()).await?;
            }
            full.send(()).unwrap();
            pending().await
        });
        is_full.recv().unwrap();
        boxed(counted(items, c))
    }),
    ("blocking_generator", |c, t| {
        let (full, is_full) = mpsc::channel();
        let items = blocking_generator(t, AHEAD, move |tx| {
            (0..AHEAD).try_for_each(|_| tx.send(()))?;
            full.send(()).unwrap();
            tx.send(())
        });
        is_full.recv().unwrap();
        boxed(counted(items, c))
    }),
];

type MergeFeeds = fn(Vec<Feed>) -> Feed;

const MERGES: [(&str, MergeFeeds); 7] = [
    ("select", |feeds| {
        let merged = feeds
            .into_iter()
            .reduce(|all, one| Box::pin(stream::select(all, one)));
        merged.unwrap()
    }),
    ("select_all", |feeds| Box::pin(stream::select_all(feeds))),
    ("StreamMap", |feeds| {
        let map: StreamMap<usize, Feed> = feeds.into_iter().enumerate().collect();
        boxed(map)
    }),
    ("tokio-stream's merge", |feeds| {
        let merged = feeds
            .into_iter()
            .reduce(|all, one| Box::pin(tokio_stream::StreamExt::merge(all, one)));
        merged.unwrap()
    }),
    ("futures-concurrency's merge", |feeds| {
        Box::pin(feeds.merge())
    }),
    ("a loop of tokio's select", |feeds| {
        let select = |one: Feed, other: Feed| {
            boxed(stream::unfold(
                (one, other),
                async |(mut one, mut other)| {
                    let item = tokio::select! {
                        item = one.next() => item,
                        item = other.next() => item,
                    };
                    item.map(|item| (item, (one, other)))
                },
            ))
        };
        feeds.into_iter().reduce(select).unwrap()
    }),
    ("a loop of select", |feeds| {
        boxed(stream::unfold(feeds, async |mut feeds| {
            future::select_all(feeds.iter_mut().map(StreamExt::next)).await;
            Some(((), feeds))
        }))
    }),
];

/// The number of items that these streams, with different phases, yield before another task of the thread runs. Stops
/// at more than `most`.
fn items_before_a_turn(
    make: impl Fn(&Count) -> Feed,
    streams: usize,
    merge: MergeFeeds,
    most: usize,
) -> usize {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let count = Count::default();
        let mut feeds = Vec::new();
        for n in 0..streams {
            let mut feed = make(&count);
            for _ in 0..100 * n {
                feed.next().await;
            }
            feeds.push(feed);
        }
        let task = tokio::spawn(async move {
            let mut merged = merge(feeds);
            count.store(0, SeqCst);
            let turn = Arc::new(AtomicUsize::new(usize::MAX));
            let (seen, counted) = (Arc::clone(&turn), Arc::clone(&count));
            tokio::spawn(async move { seen.store(counted.load(SeqCst), SeqCst) });
            while turn.load(SeqCst) == usize::MAX && count.load(SeqCst) <= most {
                merged.next().await;
            }
            turn.load(SeqCst)
        });
        task.await.unwrap()
    })
}

#[test]
fn other_tasks_have_a_turn_however_streams_are_merged() {
    let token = CancellationToken::new();
    for (stream, make) in STREAMS {
        for (merge, merged) in MERGES {
            for streams in [1, 2, 3, 8] {
                let most = (streams + 16) * RUN;
                let items = items_before_a_turn(|count| make(count, &token), streams, merged, most);
                assert!(items <= most, "{streams} of {stream} in {merge}");
            }
        }
    }
}

/// The budget is renewed when the task is polled next, which another executor inside it prevents.
#[tokio::test]
async fn another_executor_inside_of_a_task_gets_all_items() {
    let numbers = stream::iter(0..100_000).take_until_cancelled(CancellationToken::new());
    assert_eq!(futures::executor::block_on(numbers.count()), 100_000);

    let mut numbers = stream::iter(0..100_000).take_until_cancelled(CancellationToken::new());
    let mut count = 0;
    loop {
        match numbers.next().now_or_never() {
            Some(Some(_)) => count += 1,
            Some(None) => break,
            None => {}
        }
    }
    assert_eq!(count, 100_000);
}
