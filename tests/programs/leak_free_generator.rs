//! The generator of Go's article on `context`: its consumer takes five numbers and returns. Is the producer dropped?
//!
//! In Go it stays forever, blocked on a channel that nobody reads, unless its consumer cancels it. Here it is part of its
//! stream and is dropped with it: at once if it is a `generator`, which runs in its consumer's poll; in the next poll of its
//! task if it is a `spawn_generator`.
//!
//! Then the same with a thousand listeners. Each waits for events of a hub and passes them to a consumer. Each consumer
//! returns after three events, or waits for a fourth until a token is cancelled. Beside them are a thousand tasks that feed
//! a channel, as they are often written: such a task notices that its consumer was dropped only when it sends, and the
//! fourth event never comes. Those leak.
//!
//! The number of listeners is printed before, meanwhile and after. The program fails if one of ours is left, or if those that
//! should leak do not.

use std::{error::Error, sync::Arc, time::Duration};
use stopcock::{CancellationToken, StopReason, generator, signal, spawn_generator};
use tokio::{
    sync::{broadcast, mpsc},
    task::{JoinSet, yield_now},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Hub = broadcast::Sender<u64>;

const LISTENERS: usize = 1000;
const EVENTS: [u64; 3] = [1, 2, 3];

#[tokio::test]
async fn no_producer_outlives_its_consumer() -> Result<()> {
    // Every wait has a time limit: a producer that does not stop must fail the program, not hang it.
    let outcome = timeout(Duration::from_secs(30), run()).await;
    outcome.map_err(|_| "a producer has not been stopped")?
}

async fn run() -> Result<()> {
    five_of_a_generator().await;
    five_of_a_spawned_generator().await;

    println!("\n{LISTENERS} listeners                       before  meanwhile  after");
    for end in [End::ConsumerGoes, End::TokenCancelled] {
        let left = abandon("generator", end, in_poll).await?;
        assert_eq!(left, 0);
        let left = abandon("spawn_generator", end, spawned).await?;
        assert_eq!(left, 0);
    }

    // The control. Only the owner of the handles of such tasks can still end them.
    let mut tasks = JoinSet::new();
    let naive = |_: &CancellationToken, hub: &Hub| task_and_channel(hub, &mut tasks);
    let leaked = abandon("task and channel", End::ConsumerGoes, naive).await?;
    assert_eq!(leaked, LISTENERS, "the control does not leak");
    tasks.shutdown().await;
    Ok(())
}

async fn five_of_a_generator() {
    let producers = Arc::new(());
    let alive = Arc::clone(&producers);
    let numbers = generator(signal::never(), async move |mut y| {
        let _dropped_with_the_body = alive;
        for n in 1.. {
            y.yield_item(n).await;
        }
    });

    let five: Vec<u64> = numbers.take(5).collect().await;
    let left = Arc::strong_count(&producers) - 1;
    println!("generator        {five:?}  producers left: {left}");
    assert_eq!(five, [1, 2, 3, 4, 5]);
    assert_eq!(left, 0);
}

async fn five_of_a_spawned_generator() {
    let producers = Arc::new(());
    let alive = Arc::clone(&producers);
    let mut numbers = spawn_generator(signal::never(), 1, async move |tx| {
        let _dropped_with_the_body = alive;
        for n in 1.. {
            tx.send(n).await?;
        }
        Ok(())
    });

    let five: Vec<u64> = (&mut numbers).take(5).collect().await;
    // Dropping it is enough. This also waits for the task.
    let ended = numbers.join().await;
    let left = Arc::strong_count(&producers) - 1;
    println!("spawn_generator  {five:?}  producers left: {left}");
    assert_eq!(five, [1, 2, 3, 4, 5]);
    assert!(matches!(ended, Err(StopReason::ConsumerDropped)));
    assert_eq!(left, 0);
}

/// How a consumer ends.
#[derive(Clone, Copy)]
enum End {
    ConsumerGoes,
    TokenCancelled,
}

/// Serves the events to a thousand consumers until they have returned. Returns the number of listeners then.
async fn abandon<S>(
    name: &str,
    end: End,
    mut listen: impl FnMut(&CancellationToken, &Hub) -> S,
) -> Result<usize>
where
    S: Stream<Item = u64> + Send + 'static,
{
    let hub = Hub::new(EVENTS.len());
    let token = CancellationToken::new();
    let before = hub.receiver_count();

    let (how, enough) = match end {
        End::ConsumerGoes => ("consumer goes", EVENTS.len()),
        End::TokenCancelled => ("token cancelled", usize::MAX),
    };
    let consumers: JoinSet<Vec<u64>> = (0..LISTENERS)
        .map(|_| listen(&token, &hub).take(enough))
        .map(async |events| events.collect().await)
        .collect();
    let meanwhile = hub.receiver_count();

    for event in EVENTS {
        hub.send(event)?;
    }
    let_others_run().await;
    if let End::TokenCancelled = end {
        token.cancel();
    }
    for seen in consumers.join_all().await {
        assert_eq!(seen, EVENTS);
    }
    let_others_run().await;

    let after = hub.receiver_count();
    println!("{name:16}  {how:15}  {before:10}  {meanwhile:9}  {after:5}");
    Ok(after)
}

/// Lets each task run more often than it needs. There is one thread, so this needs no clock.
async fn let_others_run() {
    for _ in 0..LISTENERS {
        yield_now().await;
    }
}

fn in_poll(token: &CancellationToken, hub: &Hub) -> impl Stream<Item = u64> + use<> {
    let mut events = hub.subscribe();
    generator(token, async move |mut y| {
        while let Ok(event) = events.recv().await {
            y.yield_item(event).await;
        }
    })
}

fn spawned(token: &CancellationToken, hub: &Hub) -> impl Stream<Item = u64> + use<> {
    let mut events = hub.subscribe();
    spawn_generator(token, 1, async move |tx| {
        while let Ok(event) = events.recv().await {
            tx.send(event).await?;
        }
        Ok(())
    })
}

/// The one that leaks: between two events the task does not notice that its consumer was dropped.
fn task_and_channel(hub: &Hub, tasks: &mut JoinSet<()>) -> impl Stream<Item = u64> + use<> {
    let mut events = hub.subscribe();
    let (tx, rx) = mpsc::channel(1);
    tasks.spawn(async move {
        while let Ok(event) = events.recv().await {
            if tx.send(event).await.is_err() {
                break;
            }
        }
    });
    ReceiverStream::new(rx)
}
