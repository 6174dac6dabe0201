//! `sse` with 200 clients that hang up, are reset, or do not read: no producer outlives its client.

#[path = "../src/bin/sse.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod sse;

use apps::{LONG_ENOUGH, check, eventually, print_latencies};
use axum::{
    Router,
    response::{Sse, sse::Event},
    routing::get,
};
use futures::StreamExt;
use sse::serve;
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use stopcock::{CancellationToken, Holder};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::{JoinHandle, yield_now},
    time::sleep,
};

const PRODUCERS: [&str; 3] = ["generator", "spawn_generator", "blocking_generator"];
const CLIENTS: usize = 200;

/// After its first event, so that no write can fail.
const SILENT: u64 = 3_600_000;
const WITHOUT_A_PAUSE: u64 = 0;

struct Server {
    address: SocketAddr,
    token: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let server = token.clone();
        let grace = Duration::from_millis(100);
        let task = tokio::spawn(async move { serve(listener, &server, grace).await });
        Self {
            address,
            token,
            task,
        }
    }

    /// The number of elements of this name.
    fn producers(&self, name: &str) -> usize {
        let holders = self.token.holders();
        holders.iter().filter(|h| h.what() == name).count()
    }

    async fn connect(&self, producer: &str, millis: u64) -> TcpStream {
        connect(self.address, &format!("/events/{producer}/{millis}")).await
    }

    /// Clients that have had their first event.
    async fn clients(&self, producer: &str, millis: u64) -> Vec<TcpStream> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = self.connect(producer, millis).await;
            clients.push(first_event(client).await);
        }
        assert_eq!(self.producers(producer), CLIENTS);
        clients
    }

    async fn stop(self) {
        self.token.cancel_with("maintenance");
        self.task.await.unwrap().unwrap();
        let holders: Vec<_> = self.token.holders().iter().map(Holder::to_string).collect();
        assert!(holders.is_empty(), "{holders:?}");
    }
}

async fn connect(address: SocketAddr, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn first_event(client: TcpStream) -> TcpStream {
    let mut client = BufReader::new(client);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        let read = client.read_line(&mut line).await.unwrap();
        assert_ne!(read, 0, "it has ended already");
    }
    client.into_inner()
}

#[derive(Clone, Copy, Debug)]
enum HangUp {
    Closes,
    Resets,
}

async fn hang_up(how: HangUp) {
    let server = Server::start().await;
    for producer in PRODUCERS {
        let mut latencies = Vec::new();
        let mut clients = server.clients(producer, SILENT).await;
        while let Some(client) = clients.pop() {
            if let HangUp::Resets = how {
                client.set_zero_linger().unwrap();
            }
            let hung_up = Instant::now();
            drop(client);
            while server.producers(producer) > clients.len() {
                assert!(hung_up.elapsed() < apps::WATCHDOG, "it is still there");
                yield_now().await;
            }
            latencies.push(hung_up.elapsed());
        }
        print_latencies(&format!("sse: {producer}, client {how:?}"), latencies);
    }
    server.stop().await;
}

#[test]
fn producers_end_when_their_clients_hang_up() {
    check(async || hang_up(HangUp::Closes).await);
}

#[test]
fn producers_end_when_their_clients_are_reset() {
    check(async || hang_up(HangUp::Resets).await);
}

#[test]
fn a_client_that_never_reads_holds_up_neither_its_producer_nor_the_shutdown() {
    check(async || {
        let server = Server::start().await;
        let mut clients = Vec::new();
        for producer in PRODUCERS {
            for _ in 0..10 {
                clients.push(server.connect(producer, WITHOUT_A_PAUSE).await);
            }
        }
        for producer in PRODUCERS {
            eventually(producer, 10, async || server.producers(producer)).await;
        }
        // Until the buffers on the way are full, so that hyper asks for no more of the bodies.
        sleep(Duration::from_secs(1)).await;

        for client in clients.drain(..15) {
            drop(client);
        }
        let left = async || PRODUCERS.map(|producer| server.producers(producer));
        eventually("producers", [0, 5, 10], left).await;
        server.stop().await;
        // Their connections are still open: see `serve`.
        drop(clients);
    });
}

#[test]
fn a_shutdown_cuts_endless_streams_as_an_error() {
    check(async || {
        let server = Server::start().await;
        let mut reading = Vec::new();
        for n in 0..CLIENTS {
            let producer = PRODUCERS[n % PRODUCERS.len()];
            let millis = [SILENT, 10][n % 2];
            let url = format!("http://{}/events/{producer}/{millis}", server.address);
            let mut events = reqwest::get(url).await.unwrap().bytes_stream();
            assert!(events.next().await.unwrap().is_ok());
            reading.push(tokio::spawn(async move {
                let mut last = None;
                while let Some(event) = events.next().await {
                    last = Some(event);
                }
                last.is_some_and(|last| last.is_err())
            }));
        }
        server.stop().await;
        for is_cut in reading {
            assert!(is_cut.await.unwrap(), "it looks complete");
        }
    });
}

#[test]
fn the_page_shows_the_events() {
    check(async || {
        let server = Server::start().await;
        let page = reqwest::get(format!("http://{}", server.address)).await;
        let page = page.unwrap().text().await.unwrap();
        assert!(page.contains("new EventSource("));
        server.stop().await;
    });
}

/// The naive version: a task that feeds a channel from a hub. It notices that its client is not there any more when it
/// sends, and nothing comes.
#[test]
fn control_tasks_with_a_channel_outlive_their_clients() {
    check(async || {
        let hub = broadcast::Sender::<u64>::new(16);
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let naive = {
            let (hub, tasks) = (hub.clone(), Arc::clone(&tasks));
            async move || {
                let (tx, rx) = tokio::sync::mpsc::channel(1);
                let mut numbers = hub.subscribe();
                let task = tokio::spawn(async move {
                    while let Ok(n) = numbers.recv().await {
                        let event = Event::default().data(n.to_string());
                        if tx.send(Ok::<_, Infallible>(event)).await.is_err() {
                            break;
                        }
                    }
                });
                tasks.lock().unwrap().push(task);
                Sse::new(futures::stream::unfold(rx, async |mut rx| {
                    Some((rx.recv().await?, rx))
                }))
            }
        };
        let app = Router::new().route("/", get(naive));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async { axum::serve(listener, app).await });

        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(connect(address, "/").await);
        }
        eventually("listening", 40, async || hub.receiver_count()).await;
        hub.send(1).unwrap();
        for client in clients {
            drop(first_event(client).await);
        }
        sleep(LONG_ENOUGH).await;
        let tasks = std::mem::take(&mut *tasks.lock().unwrap());
        let ended = tasks.iter().filter(|task| task.is_finished()).count();
        assert_eq!((tasks.len(), ended), (40, 0), "the control does not leak");
        tasks.iter().for_each(JoinHandle::abort);
        server.abort();
    });
}
