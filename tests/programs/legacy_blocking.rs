//! Three kinds of blocking code, each abandoned before it is done: a reader, a callback, a single call.
//!
//! They have no `await` at which they could be dropped. They can check whether they are still needed, or be abandoned:
//!
//! - A file is read line by line, on a thread of its own. Its consumer takes five lines and returns, and the next `send`
//!   fails: the thread is never further ahead than its capacity, and ends.
//! - A scan calls back for each sector, and finds nothing for a long time. It calls `check` to learn whether to continue.
//! - A query blocks until its server answers. It checks nothing, so it can only be abandoned: its caller continues at the
//!   deadline, and the late answer is dropped.
//!
//! The program fails if anything that it has abandoned is still there in the end.

use futures::FutureExt;
use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use stopcock::{
    BlockingGenerator, CancellationToken, StopReason, blocking_generator, run_blocking, signal,
    try_blocking_generator,
};
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::timeout,
};
use tokio_stream::StreamExt;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LINES: usize = 10_000;
const CAPACITY: usize = 16;

#[tokio::test]
async fn blocking_code_is_abandoned() -> Result<()> {
    // Every wait has a time limit: a thread that does not end must fail the program, not hang it.
    let outcome = timeout(Duration::from_secs(30), run()).await;
    outcome.map_err(|_| "a thread has not ended")?
}

async fn run() -> Result<()> {
    let file = TempFile::new()?;
    read_all(&file).await?;
    read_five(&file).await?;
    read_what_is_not_there(&file).await;
    find_three().await;
    query_too_slow().await
}

/// The lines of a file, on a thread that reads a little ahead.
fn lines(path: PathBuf, read: Arc<AtomicUsize>) -> BlockingGenerator<io::Result<String>> {
    try_blocking_generator(signal::never(), CAPACITY, move |tx| {
        for line in BufReader::new(File::open(path)?).lines() {
            read.fetch_add(1, Ordering::Relaxed);
            tx.send(line?)?;
        }
        Ok(())
    })
}

async fn read_all(file: &TempFile) -> Result<()> {
    let lines: Vec<_> = lines(file.path.clone(), Arc::default())
        .collect::<io::Result<_>>()
        .await?;
    println!("file   read to its end: {} lines", lines.len());
    assert!(lines.into_iter().eq((1..=LINES).map(line)));
    Ok(())
}

async fn read_five(file: &TempFile) -> Result<()> {
    let read = Arc::new(AtomicUsize::new(0));
    let mut lines = lines(file.path.clone(), Arc::clone(&read));
    for n in 1..=5 {
        assert_eq!(lines.try_next().await?, Some(line(n)));
    }

    // The thread owns the other handle of `read`. After the join it has dropped that, and the file.
    let _ = lines.join().await;
    let threads = Arc::strong_count(&read) - 1;
    let read = read.load(Ordering::Relaxed);
    println!("file   5 lines taken, {read} of {LINES} read  threads left: {threads}");
    assert_eq!(threads, 0);
    // The last line was read, but not taken.
    assert!(read <= 5 + CAPACITY + 1);
    Ok(())
}

async fn read_what_is_not_there(file: &TempFile) {
    let mut lines = lines(file.path.with_extension("none"), Arc::default());
    let error = lines.next().await.unwrap().unwrap_err();
    println!("file   an error is the last item: {:?}", error.kind());
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(lines.next().await.is_none());
}

/// Stands for a library: calls back for each damaged sector of a disk, until the callback returns `false`.
fn scan(mut visit: impl FnMut(u64, bool) -> bool) {
    (1..).all(|sector| visit(sector, [10, 20, 30].contains(&sector)));
}

async fn find_three() {
    let scanned = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&scanned);
    let token = CancellationToken::new();
    let mut damaged = blocking_generator(&token, CAPACITY, move |tx| {
        let mut wanted = Ok(());
        scan(|sector, is_damaged| {
            counter.fetch_add(1, Ordering::Relaxed);
            wanted = match is_damaged {
                true => tx.send(sector),
                // There may never be anything to send again.
                false => tx.check(),
            };
            wanted.is_ok()
        });
        wanted
    });

    let mut found = Vec::new();
    while let Some(sector) = damaged.next().await {
        found.push(sector);
        if found.len() == 3 {
            token.cancel_with("three are enough");
        }
    }
    let ended = damaged.join().await.unwrap_err().to_string();
    let threads = Arc::strong_count(&scanned) - 1;
    let scanned = scanned.load(Ordering::Relaxed);
    println!(
        "scan   {found:?} found in {scanned} sectors, then {ended:?}  threads left: {threads}"
    );
    assert_eq!(found, [10, 20, 30]);
    assert_eq!(ended, "three are enough");
    assert_eq!(threads, 0);
}

/// The answer of a server. The other end of its channel shows when it is dropped.
struct Answer {
    _dropped: oneshot::Sender<()>,
}

/// Stands for a library: blocks until the server answers, and cannot be interrupted.
fn query(server: &mpsc::Receiver<Answer>) -> Option<Answer> {
    server.recv().ok()
}

async fn query_too_slow() -> Result<()> {
    let (server, connection) = mpsc::channel();
    let token = CancellationToken::with_timeout(Duration::from_millis(50));

    let answer = run_blocking(&token, move || query(&connection)).await;
    let is_settled = token.settled().now_or_never().is_some();
    let reason = answer.err().ok_or("an answer that was never sent")?;
    println!("query  given up: {reason}  settled: {is_settled}");
    assert!(matches!(reason, StopReason::DeadlineExceeded));
    assert!(!is_settled, "the call still has its thread");

    let (alive, mut dropped) = oneshot::channel();
    server.send(Answer { _dropped: alive })?;
    token.settled().await;
    let is_dropped = matches!(dropped.try_recv(), Err(TryRecvError::Closed));
    println!("query  answered too late  settled: true  answer dropped: {is_dropped}");
    assert!(is_dropped);
    Ok(())
}

fn line(n: usize) -> String {
    format!("line {n}")
}

/// A file of ten thousand lines that is removed in the end, even if the program fails.
struct TempFile {
    path: PathBuf,
}

impl TempFile {
    fn new() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let path = env::temp_dir().join(format!("stopcock-{}-{now}.txt", process::id()));
        let file = File::create_new(&path)?;
        let removed_on_failure = Self { path };
        let mut writer = BufWriter::new(file);
        for n in 1..=LINES {
            writeln!(writer, "{}", line(n))?;
        }
        writer.flush()?;
        Ok(removed_on_failure)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("{} is left: {error}", self.path.display());
        }
    }
}
