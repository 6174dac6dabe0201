//! A line server on loopback whose clients leave in three ways. In each case the producer is dropped.
//!
//! Each connection is served by a generator under a token of its own, a child of the server's token. The generator is
//! stopped when its client hangs up, at the deadline that its client has set, or when the server shuts down; no matter
//! whether it is `quiet` (has five lines, then waits), `steady` (has one every other millisecond) or `busy` (always has one).
//! All of it runs on one thread.
//!
//! Each stop is printed as it happens: which client, why, after how many lines, and how long after the signal the producer
//! was dropped. The program checks what its clients have read, and fails if a producer is left.

use std::{
    error::Error,
    future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use stopcock::{CancelStreamExt, CancellationToken, StopReason, generator};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::{Stream, StreamExt};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const PACES: [&str; 3] = ["quiet", "steady", "busy"];
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn no_producer_outlives_its_client() -> Result<()> {
    let producers = Arc::new(AtomicUsize::new(0));
    // Every wait has a time limit: a producer that does not stop must fail the program, not hang it.
    let outcome = timeout(Duration::from_secs(4), run(&producers)).await;

    let left = producers.load(Ordering::Relaxed);
    println!("producers left: {left}");
    outcome.map_err(|_| "a producer has not been stopped")??;
    assert_eq!(left, 0);
    Ok(())
}

async fn run(producers: &Arc<AtomicUsize>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stopped, mut stops) = unbounded_channel();
    let server = Server {
        token: CancellationToken::new(),
        producers: Arc::clone(producers),
        stopped,
    };
    let serving = tokio::spawn(server.clone().serve(listener));

    // These stay, whichever others come and leave.
    let mut staying = JoinSet::new();
    for pace in PACES {
        let mut client = connect(address, pace, MINUTE).await?;
        read_five_lines(&mut client).await?;
        staying.spawn(read_last_line(client));
    }

    for pace in PACES {
        let mut client = connect(address, pace, MINUTE).await?;
        read_five_lines(&mut client).await?;
        let hung_up = Instant::now();
        drop(client);
        let stop = stops.recv().await.unwrap();
        stop.report("consumer dropped", hung_up);
    }

    for pace in PACES {
        let client = connect(address, pace, Duration::from_millis(150)).await?;
        assert_eq!(read_last_line(client).await?, "stopped: deadline exceeded");
        let stop = stops.recv().await.unwrap();
        stop.report("deadline exceeded", stop.deadline);
    }

    let shut_down = Instant::now();
    server.token.cancel_with("shutting down");
    while let Some(last_line) = staying.join_next().await {
        assert_eq!(last_line??, "stopped: shutting down");
        let stop = stops.recv().await.unwrap();
        stop.report("shutting down", shut_down);
    }
    serving.await?
}

#[derive(Clone)]
struct Server {
    token: CancellationToken,
    producers: Arc<AtomicUsize>,
    stopped: UnboundedSender<Stop>,
}

impl Server {
    /// Serves all clients that connect, until the token is cancelled and every client has got its last line.
    async fn serve(self, listener: TcpListener) -> Result<()> {
        // Accepting is a producer too: although it is idle, the token stops it.
        let mut sockets = pin!(generator(&self.token, async |mut y| {
            loop {
                y.yield_item(listener.accept().await).await;
            }
        }));
        let mut clients = JoinSet::new();
        while let Some(accepted) = sockets.next().await {
            let (socket, _) = accepted?;
            clients.spawn(self.clone().serve_client(clients.len() + 1, socket));
        }
        while let Some(served) = clients.join_next().await {
            served??;
        }
        Ok(())
    }

    /// Serves lines to one client, then sends the reason why there are no more.
    ///
    /// The client says at which pace it wants them and for how many milliseconds, as in `steady 150`.
    async fn serve_client(self, client: usize, mut socket: TcpStream) -> Result<()> {
        let connection = self.token.child_token();
        let (reader, mut writer) = socket.split();
        let mut requests = BufReader::new(reader).lines();

        let request = tokio::select! {
            request = requests.next_line() => request?.unwrap_or_default(),
            () = connection.cancelled() => return Ok(()),
        };
        let (pace, millis) = request.split_once(' ').ok_or("not a request")?;
        let deadline = Instant::now() + Duration::from_millis(millis.parse()?);

        self.producers.fetch_add(1, Ordering::Relaxed);
        let gone = Arc::new(OnceLock::new());
        let probe = Probe {
            producers: self.producers,
            gone: Arc::clone(&gone),
        };
        let mut lines = pin!(lines(&connection, pace, probe).with_deadline(deadline));

        let mut sent = 0;
        let reason = loop {
            let line = tokio::select! {
                line = lines.next() => line,
                // While the producer is idle no write can fail. So the hang-up is noticed here: after its request a client sends
                // nothing but the end.
                _ = requests.next_line() => {
                    connection.cancel_with(StopReason::ConsumerDropped);
                    lines.next().await
                }
            };
            match line {
                Some(Ok(line)) => match writer.write_all(line.as_bytes()).await {
                    Ok(()) => sent += 1,
                    Err(_) => {
                        connection.cancel_with(StopReason::ConsumerDropped);
                    }
                },
                Some(Err(deadline_exceeded)) => break deadline_exceeded,
                None => break connection.stop_reason().unwrap(),
            }
        };
        // The reason is sent after the body has been dropped.
        let gone = *gone.get().unwrap();

        // A client that has hung up does not get it.
        let last_line = format!("stopped: {reason}\n");
        let _ = writer.write_all(last_line.as_bytes()).await;
        self.stopped.send(Stop {
            producer: format!("client {client}  {pace:6}"),
            reason,
            sent,
            deadline,
            gone,
        })?;
        Ok(())
    }
}

/// The producer of one connection: endless lines.
fn lines(connection: &CancellationToken, pace: &str, probe: Probe) -> impl Stream<Item = String> {
    generator(connection, async move |mut y| {
        let _dropped_with_the_body = probe;
        for n in 1.. {
            y.yield_item(format!("line {n}\n")).await;
            match pace {
                "quiet" if n == 5 => future::pending().await,
                "steady" => sleep(Duration::from_millis(2)).await,
                _ => {}
            }
        }
    })
}

/// Lives as long as the producer that owns it.
struct Probe {
    producers: Arc<AtomicUsize>,
    gone: Arc<OnceLock<Instant>>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.gone.get_or_init(Instant::now);
        self.producers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a producer ended.
struct Stop {
    producer: String,
    reason: StopReason,
    sent: usize,
    deadline: Instant,
    gone: Instant,
}

impl Stop {
    fn report(&self, expected: &str, signal: Instant) {
        let reason = self.reason.to_string();
        assert_eq!(reason, expected);
        println!(
            "{}  {reason:17}  after {:6} lines  producer gone {:5} µs after the signal",
            self.producer,
            self.sent,
            (self.gone - signal).as_micros(),
        );
    }
}

type Client = Lines<BufReader<TcpStream>>;

async fn connect(server: SocketAddr, pace: &str, time: Duration) -> Result<Client> {
    let mut socket = TcpStream::connect(server).await?;
    let request = format!("{pace} {}\n", time.as_millis());
    socket.write_all(request.as_bytes()).await?;
    Ok(BufReader::new(socket).lines())
}

async fn read_five_lines(client: &mut Client) -> Result<()> {
    for n in 1..=5 {
        assert_eq!(client.next_line().await?, Some(format!("line {n}")));
    }
    Ok(())
}

async fn read_last_line(mut client: Client) -> Result<String> {
    let mut last_line = String::new();
    while let Some(line) = client.next_line().await? {
        last_line = line;
    }
    Ok(last_line)
}
