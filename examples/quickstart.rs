//! A server of lines on one thread, whose producers are stopped in three ways: the client hangs up, its timeout passes, or
//! the server shuts down.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use futures::StreamExt;
use std::{io, net::SocketAddr, pin::pin, time::Duration};
use stopcock::{CancelStreamExt, CancellationToken, StopReason, generator};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::sleep,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = CancellationToken::new();
    tokio::spawn(accept(listener, server.clone()));

    // Hangs up after three lines.
    let mut lines = BufReader::new(TcpStream::connect(address).await?).lines();
    for _ in 0..3 {
        println!("client 1: {}", lines.next_line().await?.unwrap_or_default());
    }
    drop(lines);

    // Reads until its timeout passes.
    println!("client 2: .. {}", last_line(address).await?);

    // Is still reading when the server shuts down.
    let client = tokio::spawn(last_line(address));
    sleep(Duration::from_millis(50)).await;
    server.cancel_with("shutting down");
    println!("client 3: .. {}", client.await??);

    // Returns once every producer has been dropped.
    server.settled().await;
    println!("nothing is left");
    Ok(())
}

/// Serves each client on a task of its own.
async fn accept(listener: TcpListener, server: CancellationToken) {
    // The accept loop is a producer as well: the token stops it.
    let mut sockets = pin!(generator(&server, async |mut y| {
        while let Ok((socket, _)) = listener.accept().await {
            y.yield_item(socket).await;
        }
    }));
    let mut clients = 0;
    while let Some(socket) = sockets.next().await {
        clients += 1;
        tokio::spawn(serve(clients, socket, server.child_token()));
    }
}

/// Sends lines for 200 ms, then a last one with the reason why there are no more.
async fn serve(client: u32, mut socket: TcpStream, connection: CancellationToken) {
    let (mut reader, mut writer) = socket.split();

    // A producer that is always ready. It shares its thread with all other tasks.
    let lines = generator(&connection, async |mut y| {
        for n in 1.. {
            y.yield_item(format!("line {n}\n")).await;
        }
    });
    let mut lines = pin!(lines.with_timeout(Duration::from_millis(200)));

    let send = async {
        while let Some(Ok(line)) = lines.next().await {
            writer.write_all(line.as_bytes()).await?;
        }
        io::Result::Ok(())
    };
    let mut nothing = [0];
    tokio::select! {
        _ = send => {}
        // The client sends nothing, so a read returns only when it hangs up.
        _ = reader.read(&mut nothing) => {}
    }

    let reason = connection.stop_reason().or(lines.stop_reason().cloned());
    let reason = reason.unwrap_or(StopReason::ConsumerDropped);
    println!("server: client {client} is stopped: {reason}");
    let _ = writer
        .write_all(format!("no more lines: {reason}\n").as_bytes())
        .await;
}

async fn last_line(address: SocketAddr) -> io::Result<String> {
    let mut lines = BufReader::new(TcpStream::connect(address).await?).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        last = line;
    }
    Ok(last)
}
