//! `grpc` as a chain of three services: deadlines and hang-ups are passed down, and failures are reported upwards.

#[path = "../src/bin/grpc/main.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod grpc;

use apps::{LONG_ENOUGH, WATCHDOG, check, eventually, print_latencies};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use grpc::{
    Error, call, connect, serve,
    ticker::{
        Ask, Tick,
        ticker_client::TickerClient,
        ticker_server::{Ticker, TickerServer},
    },
};
use std::{
    process::{Child, Command},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use stopcock::{CancellationToken, StopReason};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, yield_now},
    time::sleep,
};
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    transport::{Channel, Server, server::TcpIncoming},
};

/// After its first tick.
const SILENT: u64 = 3_600_000;
const CALLS: usize = 40;

struct Service {
    port: u16,
    token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Service {
    async fn start(next: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let token = CancellationToken::new();
        token.track_holders();
        let server = token.clone();
        let task = tokio::spawn(async move { serve(listener, next, &server).await });
        Self { port, token, task }
    }

    fn is_idle(&self) -> bool {
        self.token.holders().is_empty()
    }

    fn producers(&self) -> usize {
        let holders = self.token.holders();
        let producers = holders.iter().filter(|h| h.what() == "spawn_generator");
        producers.count()
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// The client calls the first one, and the last one produces.
struct Chain([Service; 3]);

impl Chain {
    async fn start() -> Self {
        let last = Service::start(None).await;
        let middle = Service::start(Some(last.port)).await;
        let first = Service::start(Some(middle.port)).await;
        Self([first, middle, last])
    }

    async fn ask(&self, budget: &CancellationToken) -> (Tick, Streaming<Tick>) {
        first_tick(self.0[0].port, budget).await
    }

    async fn eventually_idle(&self) {
        let idle = async || self.0.each_ref().map(Service::is_idle);
        eventually("idle", [true; 3], idle).await;
    }

    async fn stop(self) {
        for service in self.0 {
            service.stop().await;
        }
    }
}

async fn first_tick(port: u16, budget: &CancellationToken) -> (Tick, Streaming<Tick>) {
    let ask = Ask {
        millis: SILENT,
        ..Ask::default()
    };
    let mut ticks = call(&mut connect(port), budget, ask).await.unwrap();
    let tick = ticks.next().await.unwrap().unwrap();
    (tick, ticks)
}

#[test]
fn the_budget_shrinks_along_the_chain() {
    check(async || {
        let chain = Chain::start().await;
        let budget = CancellationToken::with_timeout(WATCHDOG);
        let (tick, ticks) = chain.ask(&budget).await;
        // Of the client, of the services when they call the next one, and of the last one.
        assert_eq!(tick.budgets.len(), 4);
        assert!(u128::from(tick.budgets[0]) <= WATCHDOG.as_micros());
        assert!(tick.budgets.is_sorted_by(|a, b| a > b), "{tick:?}");
        drop(ticks);

        // Without a deadline, none is added.
        let (tick, ticks) = chain.ask(&CancellationToken::new()).await;
        assert!(tick.budgets.is_empty());
        drop(ticks);
        chain.stop().await;
    });
}

#[test]
fn a_deadline_stops_all_three() {
    check(async || {
        let chain = Chain::start().await;
        let budget = CancellationToken::with_timeout(Duration::from_secs(2));
        let (_, mut ticks) = chain.ask(&budget).await;
        assert_eq!(chain.0[2].producers(), 1);

        assert!(ticks.next().await.unwrap().is_err());
        budget.cancelled().await;
        assert!(matches!(
            budget.stop_reason(),
            Some(StopReason::DeadlineExceeded)
        ));
        chain.eventually_idle().await;
        drop(ticks);
        chain.stop().await;
    });
}

#[test]
fn dropping_the_first_call_stops_all_three() {
    check(async || {
        let chain = Chain::start().await;
        let budget = CancellationToken::new();
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            calls.push(chain.ask(&budget).await);
        }

        let mut latencies = Vec::new();
        while let Some(call) = calls.pop() {
            let hung_up = Instant::now();
            drop(call);
            while chain.0[2].producers() > calls.len() {
                assert!(hung_up.elapsed() < WATCHDOG, "it is still there");
                yield_now().await;
            }
            latencies.push(hung_up.elapsed());
        }
        print_latencies("grpc: the third service ended after the hang-up", latencies);
        chain.eventually_idle().await;
        chain.stop().await;
    });
}

#[test]
fn cancelling_the_token_of_the_first_call_stops_all_three() {
    check(async || {
        let chain = Chain::start().await;
        let budget = CancellationToken::new();
        let (_, mut ticks) = chain.ask(&budget).await;
        budget.cancel_with("not needed any more");
        let status = ticks.next().await.unwrap().unwrap_err();
        let reason = StopReason::find_in(&status).unwrap();
        assert_eq!(reason.to_string(), "not needed any more");
        // Although its client still has the stream.
        chain.eventually_idle().await;
        drop(ticks);
        chain.stop().await;
    });
}

#[test]
fn a_shutdown_of_the_last_service_is_an_error_of_the_first_call() {
    check(async || {
        let chain = Chain::start().await;
        let (_, mut ticks) = chain.ask(&CancellationToken::new()).await;
        chain.0[2].token.cancel_with("maintenance");
        let status = ticks.next().await.unwrap().unwrap_err();
        println!("the last service is shut down: {status}");
        chain.eventually_idle().await;
        drop(ticks);
        chain.stop().await;
    });
}

/// Killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_middle_service_that_dies_is_reported_upwards_and_stops_the_last_one() {
    check(async || {
        let last = Service::start(None).await;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let middle = Command::new(env!("CARGO_BIN_EXE_grpc"))
            .args([port.to_string(), last.port.to_string()])
            .spawn();
        let middle = Process(middle.unwrap());
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        eventually("the middle service listens", true, listens).await;

        let first = Service::start(Some(port)).await;
        let (_, mut ticks) = first_tick(first.port, &CancellationToken::new()).await;
        assert_eq!(last.producers(), 1);
        drop(middle);
        let status = ticks.next().await.unwrap().unwrap_err();
        println!("the middle service has died: {status}");
        eventually("idle", true, async || first.is_idle() && last.is_idle()).await;
        drop(ticks);
        first.stop().await;
        last.stop().await;
    });
}

/// The naive version of the service in the middle: a task that reads from the next one and feeds a channel.
struct Naive {
    next: TickerClient<Channel>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

#[async_trait]
impl Ticker for Naive {
    type TicksStream = BoxStream<'static, Result<Tick, Status>>;

    async fn ticks(&self, request: Request<Ask>) -> Result<Response<Self::TicksStream>, Status> {
        let (tx, rx) = tokio::sync::mpsc::channel(1);
        let ask = Request::new(request.into_inner());
        let mut ticks = self.next.clone().ticks(ask).await?.into_inner();
        let task = tokio::spawn(async move {
            while let Some(tick) = ticks.next().await {
                if tx.send(tick).await.is_err() {
                    break;
                }
            }
        });
        self.tasks.lock().unwrap().push(task);
        let ticks = stream::unfold(rx, async |mut rx| Some((rx.recv().await?, rx)));
        Ok(Response::new(ticks.boxed()))
    }
}

#[test]
fn control_a_task_with_a_channel_keeps_the_last_service_busy() {
    check(async || {
        let last = Service::start(None).await;
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let url = format!("http://127.0.0.1:{}", last.port);
        let naive = Naive {
            next: TickerClient::new(Channel::from_shared(url).unwrap().connect_lazy()),
            tasks: Arc::clone(&tasks),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server::builder().add_service(TickerServer::new(naive));
        let server = server.serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(server);

        let budget = CancellationToken::with_timeout(WATCHDOG);
        for _ in 0..CALLS {
            let (tick, ticks) = first_tick(port, &budget).await;
            // The deadline has not been passed on either.
            assert_eq!(tick.budgets.len(), 1);
            drop(ticks);
        }
        sleep(LONG_ENOUGH).await;
        let ended = CALLS - last.producers();
        assert_eq!(ended, 0, "the control does not leak");

        let tasks = std::mem::take(&mut *tasks.lock().unwrap());
        tasks.iter().for_each(JoinHandle::abort);
        server.abort();
        last.stop().await;
    });
}
