//! `chat` against a Redis that is started here: no subscription outlives its user.

#[path = "../src/bin/chat.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod chat;

use apps::{LONG_ENOUGH, check, eventually, skipped};
use axum::{
    Router,
    extract::{
        State,
        ws::{Message as Line, WebSocketUpgrade},
    },
    routing::get,
};
use chat::Chat;
use futures::{SinkExt, StreamExt};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    time::{Duration, Instant},
};
use stopcock::CancellationToken;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, protocol::CloseFrame},
};

/// Set where there is no Redis. CI does not set it.
const SKIP: &str = "APPS_SKIP_REDIS";

/// A `redis-server` of this test alone. Killed when it is dropped.
struct Redis {
    process: Child,
    directory: PathBuf,
    client: redis::Client,
    connection: MultiplexedConnection,
}

impl Redis {
    async fn start() -> Self {
        // Another process may take the port meanwhile. Then `redis-server` exits, and the next one is tried.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let directory = env::temp_dir().join(format!("chat-{}-{port}", process::id()));
            fs::create_dir_all(&directory).unwrap();
            let process = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                // It must not be Redis that ends a slow subscriber.
                .args(["--client-output-buffer-limit", "pubsub 0 0 0"])
                .current_dir(&directory)
                .stdout(Stdio::null())
                .spawn();
            let mut process = process
                .unwrap_or_else(|error| panic!("redis-server: {error}; {SKIP}=1 skips this"));
            let client = redis::Client::open(("127.0.0.1", port)).unwrap();
            while process.try_wait().unwrap().is_none() {
                let connection = client.get_multiplexed_async_connection().await;
                if let Ok(connection) = connection {
                    return Self {
                        process,
                        directory,
                        client,
                        connection,
                    };
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("redis-server does not start");
    }

    /// Waits until a room has `expected` subscribers.
    async fn eventually_subscribed(&self, room: &str, expected: usize) {
        eventually("subscribed", expected, async || self.subscribed(room).await).await;
    }

    async fn subscribed(&self, room: &str) -> usize {
        let mut command = redis::cmd("PUBSUB");
        let mut connection = self.connection.clone();
        let answer = command.arg("NUMSUB").arg(room);
        let (_, number): (String, usize) = answer.query_async(&mut connection).await.unwrap();
        number
    }

    async fn say(&self, room: &str, line: &str) {
        let _: () = self.connection.clone().publish(room, line).await.unwrap();
    }

    /// Immediately, like `kill -9`.
    fn die(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.die();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

struct Server {
    address: SocketAddr,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(redis: &Redis, patience: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let chat = Chat {
            redis: redis.client.clone(),
            server: token.clone(),
            patience,
        };
        Self {
            address,
            token,
            task: tokio::spawn(async { chat.serve(listener).await.unwrap() }),
        }
    }

    async fn join(&self, room: &str, users: usize) -> Vec<User> {
        let mut joined = Vec::new();
        for _ in 0..users {
            joined.push(join(self.address, room).await);
        }
        joined
    }

    /// Returns once all has ended, without a grace period.
    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap();
    }
}

type User = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn join(address: SocketAddr, room: &str) -> User {
    let (user, _) = connect_async(format!("ws://{address}/{room}"))
        .await
        .unwrap();
    user
}

async fn hear(user: &mut User) -> Message {
    user.next().await.unwrap().unwrap()
}

/// Reads until the Close frame, and returns its reason.
async fn close_reason(user: &mut User) -> String {
    loop {
        if let Message::Close(Some(CloseFrame { reason, .. })) = hear(user).await {
            break reason.to_string();
        }
    }
}

const PATIENT: Duration = Duration::from_secs(20);

#[test]
fn users_who_disconnect_are_unsubscribed() {
    if skipped(SKIP) {
        return;
    }
    check(async || {
        let redis = Redis::start().await;
        let server = Server::start(&redis, PATIENT).await;
        let mut users = server.join("silent", 40).await;
        redis.eventually_subscribed("silent", 40).await;

        users[0].send(Message::text("hello")).await.unwrap();
        for user in &mut users {
            assert_eq!(hear(user).await, Message::text("hello"));
        }

        // Every second one loses its connection, without a Close frame. From here on nobody writes in the room.
        let mut latencies = Vec::new();
        while let Some(mut user) = users.pop() {
            if users.len() % 2 == 0 {
                user.close(None).await.unwrap();
            }
            let hung_up = Instant::now();
            drop(user);
            redis.eventually_subscribed("silent", users.len()).await;
            latencies.push(hung_up.elapsed());
        }
        apps::print_latencies("chat: unsubscribed after the user left", latencies);
        server.stop().await;
    });
}

#[test]
fn a_user_who_does_not_read_is_unsubscribed() {
    if skipped(SKIP) {
        return;
    }
    check(async || {
        let redis = Redis::start().await;
        let server = Server::start(&redis, Duration::from_secs(2)).await;
        let stuck = server.join("busy", 1).await;
        let mut readers = tokio::task::JoinSet::new();
        for mut reader in server.join("busy", 2).await {
            readers.spawn(async move { close_reason(&mut reader).await });
        }
        redis.eventually_subscribed("busy", 3).await;

        // The others continue to read.
        let line = "x".repeat(100_000);
        while redis.subscribed("busy").await == 3 {
            redis.say("busy", &line).await;
            sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(redis.subscribed("busy").await, 2);
        assert_eq!(readers.len(), 2);

        server.token.cancel_with("maintenance");
        assert_eq!(readers.join_all().await, ["maintenance"; 2]);
        drop(stuck);
        server.stop().await;
    });
}

#[test]
fn a_shutdown_unsubscribes_all_with_a_close_frame_that_has_the_reason() {
    if skipped(SKIP) {
        return;
    }
    check(async || {
        let redis = Redis::start().await;
        let server = Server::start(&redis, PATIENT).await;
        let mut users = server.join("a", 20).await;
        users.extend(server.join("b", 20).await);
        redis.eventually_subscribed("a", 20).await;
        redis.eventually_subscribed("b", 20).await;

        server.token.cancel_with("maintenance");
        for user in &mut users {
            assert_eq!(close_reason(user).await, "maintenance");
        }
        // Each has answered with a Close frame of its own, or has been dropped.
        drop(users);
        server.stop().await;
        redis.eventually_subscribed("a", 0).await;
        redis.eventually_subscribed("b", 0).await;
    });
}

#[test]
fn users_get_a_close_frame_when_redis_dies() {
    if skipped(SKIP) {
        return;
    }
    check(async || {
        let mut redis = Redis::start().await;
        let server = Server::start(&redis, PATIENT).await;
        let mut users = server.join("room", 20).await;
        redis.eventually_subscribed("room", 20).await;

        redis.die();
        for user in &mut users {
            assert_eq!(
                close_reason(user).await,
                "Redis has closed the subscription"
            );
        }
        // A user who joins now gets one as well.
        let mut late = join(server.address, "room").await;
        assert!(!close_reason(&mut late).await.is_empty());
        drop((users, late));
        server.stop().await;
    });
}

/// The naive version: for each user a task that writes what Redis sends, and one that reads what the user sends.
#[test]
fn control_two_independent_tasks_stay_subscribed() {
    if skipped(SKIP) {
        return;
    }
    check(async || {
        let mut redis = Redis::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let naive = async |State(redis): State<redis::Client>, upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async move |socket| {
                let (mut to_user, mut from_user) = socket.split();
                tokio::spawn(async move { while let Some(Ok(_)) = from_user.next().await {} });
                let mut subscription = redis.get_async_pubsub().await.unwrap();
                subscription.subscribe("room").await.unwrap();
                while let Some(message) = subscription.on_message().next().await {
                    let line: String = message.get_payload().unwrap();
                    if to_user.send(Line::text(line)).await.is_err() {
                        break;
                    }
                }
            })
        };
        let app = Router::new().route("/room", get(naive));
        let app = app.with_state(redis.client.clone());
        let server = tokio::spawn(async { axum::serve(listener, app).await.unwrap() });

        // 40 users leave a room in which nobody writes.
        for _ in 0..40 {
            join(address, "room").await.close(None).await.unwrap();
        }
        redis.eventually_subscribed("room", 40).await;
        sleep(LONG_ENOUGH).await;
        assert_eq!(
            redis.subscribed("room").await,
            40,
            "the control does not leak"
        );

        // One more does not read. A line that cannot be written ends the tasks of those who have left.
        let stuck = join(address, "room").await;
        redis.eventually_subscribed("room", 41).await;
        let line = "x".repeat(100_000);
        for _ in 0..200 {
            redis.say("room", &line).await;
        }
        redis.eventually_subscribed("room", 1).await;
        sleep(LONG_ENOUGH).await;
        assert_eq!(
            redis.subscribed("room").await,
            1,
            "the control does not leak"
        );

        redis.die();
        drop(stuck);
        server.abort();
    });
}
