//! `shutdown` as a process of its own, which gets signals. When it ends nothing is left.
#![cfg(unix)]

use apps::{LONG_ENOUGH, WATCHDOG, check};
use axum::{Router, body::Body, routing::get};
use futures::stream;
use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

/// Killed when it is dropped.
struct Server {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Server {
    fn start(grace: Duration) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_shutdown"))
            .args(["0", &grace.as_secs().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = output.next().unwrap().unwrap();
        let (_, address) = first.rsplit_once('/').unwrap();
        Self {
            process,
            address: address.to_owned(),
            output,
        }
    }

    /// Returns once the first line of the body is there.
    fn get(&self, path: &str) -> Response {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut response = Response {
            socket: BufReader::new(socket),
            text: String::new(),
        };
        while !response.text.ends_with(" 1\n") {
            let read = response.socket.read_line(&mut response.text).unwrap();
            assert_ne!(read, 0, "it has ended already: {}", response.text);
        }
        response
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    fn next_line(&mut self) -> String {
        self.output.next().unwrap().unwrap()
    }

    /// The rest of its output, and its exit code.
    fn end(mut self) -> (String, i32) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < WATCHDOG, "it does not end");
            thread::sleep(Duration::from_millis(2));
        };
        let lines: Vec<String> = self.output.by_ref().map(Result::unwrap).collect();
        (lines.join("\n"), status.code().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Response {
    socket: BufReader<TcpStream>,
    text: String,
}

impl Response {
    /// The whole body, and whether it is complete: then it has a last chunk without length.
    fn end(mut self) -> (String, bool) {
        let mut rest = Vec::new();
        let read = self.socket.read_to_end(&mut rest);
        self.text += &String::from_utf8_lossy(&rest);
        let is_complete = read.is_ok() && self.text.ends_with("\r\n0\r\n\r\n");
        (self.text, is_complete)
    }
}

#[test]
fn what_is_under_way_comes_to_its_end() {
    for (signal, name) in [("TERM", "SIGTERM"), ("INT", "Ctrl-C")] {
        let mut server = Server::start(WATCHDOG);
        let ticks = server.get("/ticks");
        let report = server.get("/report");
        server.signal(signal);
        assert!(server.next_line().starts_with(name));

        // An endless stream does not use up the grace period, and a report is not truncated.
        let (_, is_complete) = ticks.end();
        assert!(is_complete);
        let (report, is_complete) = report.end();
        assert!(is_complete && report.contains("row 10\n"), "{report}");
        assert_eq!(server.end(), ("everything has ended".to_owned(), 0));
    }
}

#[test]
fn work_that_takes_longer_than_the_grace_period_is_cut_and_listed() {
    let mut server = Server::start(Duration::from_secs(2));
    let stuck = [server.get("/stuck"), server.get("/stuck")];
    let ticks = server.get("/ticks");
    server.signal("TERM");
    assert!(server.next_line().starts_with("SIGTERM"));

    // The client of a response that was cut sees it.
    assert!(ticks.end().1);
    for stuck in stuck {
        assert!(!stuck.end().1);
    }
    let (output, code) = server.end();
    assert_eq!(code, 1);
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("deadline exceeded"), "{output}");
    assert_eq!(lines.len(), 3, "{output}");
    for holder in &lines[1..] {
        assert!(holder.contains("hold, made at"), "{output}");
        assert!(holder.contains("shutdown.rs:"), "{output}");
    }
}

#[test]
fn a_second_signal_ends_the_grace_period() {
    let mut server = Server::start(10 * WATCHDOG);
    let stuck = server.get("/stuck");
    server.signal("TERM");
    assert!(server.next_line().starts_with("SIGTERM"));
    server.signal("INT");
    assert!(!stuck.end().1);
    let (output, code) = server.end();
    assert!(output.starts_with("not waiting any longer"), "{output}");
    assert_eq!(code, 1);
}

/// The naive version: axum's graceful shutdown alone.
#[test]
fn control_an_endless_stream_holds_up_a_graceful_shutdown() {
    check(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endless = async || Body::from_stream(stream::pending::<Result<String, Infallible>>());
        let app = Router::new().route("/", get(endless));
        let (shut_down, shutting_down) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(listener, app).with_graceful_shutdown(async {
            let _ = shutting_down.await;
        });
        let mut server = tokio::spawn(async { server.await });

        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.write_all(request).await.unwrap();
        client.readable().await.unwrap();
        shut_down.send(()).unwrap();
        let ended = timeout(LONG_ENOUGH, &mut server).await;
        assert!(ended.is_err(), "the control does end");
        drop(client);
        server.await.unwrap().unwrap();
    });
}
