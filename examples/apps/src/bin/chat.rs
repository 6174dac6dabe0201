//! A chat over web sockets and Redis. The Redis listener of a user ends with that user, for whatever reason.
//!
//! ```text
//! redis-server &
//! cargo run -p apps --bin chat      # ws://127.0.0.1:3000/ROOM; Ctrl-C ends it
//! ```
//!
//! In Go the listener is a goroutine for each user:
//!
//! ```go
//! ctx, cancel := context.WithCancel(r.Context())
//! defer cancel()
//! sub := rdb.Subscribe(ctx, room)
//! defer sub.Close()
//! for { select { case m := <-sub.Channel(): write(ctx, m); case <-ctx.Done(): return } }
//! ```
//!
//! and a second goroutine has to call `cancel` when the user has left: as long as nobody writes, no write fails. Here the
//! listener is a stream, which is polled by the user's task and dropped with it: when the user leaves or stops reading, at
//! the shutdown, and when Redis dies.

use axum::{
    Router,
    extract::{
        Path, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::Response,
    routing::get,
};
use futures::{SinkExt, Stream, StreamExt, TryStreamExt};
use redis::AsyncCommands;
use std::{convert::Infallible, env, pin::pin, time::Duration};
use stopcock::{CancelFutureExt, CancellationToken, signal, try_generator};
use tokio::{net::TcpListener, signal::ctrl_c};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let redis = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on ws://{}/ROOM", listener.local_addr()?);

    let ctrl_c = signal::when(ctrl_c()).with_reason("the server is shutting down");
    let chat = Chat {
        redis: redis::Client::open(redis)?,
        server: CancellationToken::from_signal(ctrl_c),
        patience: Duration::from_secs(10),
    };
    chat.serve(listener).await
}

#[derive(Clone)]
pub(crate) struct Chat {
    pub(crate) redis: redis::Client,
    /// Ends everything.
    pub(crate) server: CancellationToken,
    /// How long a user may take to read a message.
    pub(crate) patience: Duration,
}

impl Chat {
    pub(crate) async fn serve(self, listener: TcpListener) -> Result<(), Error> {
        let server = self.server.clone();
        let app = Router::new().route("/{room}", get(join)).with_state(self);
        axum::serve(listener, app)
            .with_graceful_shutdown(server.clone().cancelled_owned())
            .await?;
        // axum has handed the sockets over and does not wait for them.
        server.settled().await;
        Ok(())
    }

    async fn talk(self, socket: WebSocket, room: String) {
        // The shutdown waits for it, so that every user gets a Close frame before the process exits.
        let _held = self.server.hold();
        let user = self.server.child_token();
        let (mut to_user, mut from_user) = socket.split();

        let hear = async {
            let mut lines = pin!(self.listen(&user, &room));
            while let Some(line) = lines.try_next().await? {
                // Cancelled with the user's token. If it takes too long, it has a reason of its own.
                let patience = user.child_with_timeout_cause(self.patience, "you do not read");
                let sent = to_user.send(Message::text(line));
                sent.with_cancellation(&patience).await??;
            }
            Err("Redis has closed the subscription".into())
        };
        let say = async {
            let mut redis = self.redis.get_multiplexed_async_connection().await?;
            while let Some(message) = from_user.try_next().await? {
                if let Message::Text(line) = message {
                    let _: () = redis.publish(&room, line.as_str()).await?;
                }
            }
            Err("you have left".into())
        };
        // The first one that ends drops the other. Dropping `hear` drops the subscription.
        let ended: Result<Infallible, Error> = tokio::select! {
            ended = hear => ended,
            ended = say => ended,
        };

        let Err(reason) = ended;
        let mut reason = reason.to_string();
        // The frame has no room for more.
        while reason.len() > 123 {
            reason.pop();
        }
        let close = Message::Close(Some(CloseFrame {
            code: close_code::AWAY,
            reason: reason.into(),
        }));
        let goodbye = async {
            to_user.send(close).await?;
            // A socket that is closed with something unread is reset, and the frame may be lost.
            while from_user.try_next().await?.is_some() {}
            Ok::<_, axum::Error>(())
        };
        // The socket is closed now, even if the user has not read the frame.
        let _ = goodbye.with_timeout(self.patience).await;
    }

    /// The messages of a room. The stream subscribes at its first poll, and unsubscribes when it is dropped.
    fn listen(
        &self,
        user: &CancellationToken,
        room: &str,
    ) -> impl Stream<Item = Result<String, Error>> {
        try_generator(user, async move |mut y| {
            let mut subscription = self.redis.get_async_pubsub().await?;
            subscription.subscribe(room).await?;
            let mut messages = subscription.on_message();
            while let Some(message) = messages.next().await {
                y.yield_item(message.get_payload()?).await;
            }
            Ok(())
        })
    }
}

async fn join(
    State(chat): State<Chat>,
    Path(room): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(|socket| chat.talk(socket, room))
}
