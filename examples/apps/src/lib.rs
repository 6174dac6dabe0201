//! What the tests of these programs share: a test fails if it leaves a task, a socket or a thread behind.
//!
//! The programs themselves do not use it.

use std::{
    fmt::Debug,
    fs,
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Handle},
    time::{sleep, timeout},
};

/// The longest time that anything may take. It is not a measurement: the machine may be busy.
pub const WATCHDOG: Duration = Duration::from_secs(30);

/// How long to wait for a control to end, which it does not.
pub const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// The number of threads of a test's runtime.
const THREADS: &str = "apps";
const WORKERS: usize = 2;

/// Runs a test on a runtime of its own, and fails if a task, a socket or a thread is left after it.
///
/// The tests of a process run one after another, as the sockets and threads of the whole process are counted.
///
/// # Panics
///
/// If the test panics, or if something is left or does not end.
pub fn check(test: impl AsyncFnOnce() + Send + 'static) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let run = move || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name(THREADS)
            .thread_keep_alive(Duration::ZERO)
            .enable_all()
            .build()
            .expect("there is no runtime");
        runtime.block_on(async {
            // A thread sets its name itself, some time after it has started.
            let threads = Count::now().threads.min(1) * (1 + WORKERS);
            eventually("threads", threads, async || Count::now().threads).await;
            let before = Count::now();
            let ended = timeout(4 * WATCHDOG, test()).await;
            ended.expect("the test does not end");
            eventually("left after the test", before, async || Count::now()).await;
        });
    };
    // A thread without a name has that of the thread which spawned it, so those of the test are counted as well.
    let thread = thread::Builder::new().name(THREADS.to_owned()).spawn(run);
    if let Err(panic) = thread.expect("there is no thread").join() {
        resume_unwind(panic);
    }
}

/// Waits until `value` returns what is expected.
///
/// # Panics
///
/// If that takes longer than [`WATCHDOG`].
pub async fn eventually<T: Debug + PartialEq>(
    what: &str,
    expected: T,
    mut value: impl AsyncFnMut() -> T,
) {
    let begin = Instant::now();
    loop {
        let value = value().await;
        if value == expected {
            break;
        }
        assert!(
            begin.elapsed() < WATCHDOG,
            "{what}: {value:?} in place of {expected:?}"
        );
        sleep(Duration::from_millis(2)).await;
    }
}

/// What a program can leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Of the runtime in whose context this was called.
    pub tasks: usize,
    /// Of the process. Zero on systems without `/proc`.
    pub sockets: usize,
    /// Of the process: those of the crate and of the test's runtime, and those that these have spawned. Zero on systems
    /// without `/proc`.
    pub threads: usize,
}

impl Count {
    /// The current numbers.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[must_use]
    pub fn now() -> Self {
        let names = |directory: &str, name: fn(&fs::DirEntry) -> Option<String>| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let names: Vec<String> = entries.filter_map(|entry| name(&entry)).collect();
            names
        };
        let files = names("/proc/self/fd", |entry| {
            let file = fs::read_link(entry.path()).ok()?;
            Some(file.to_string_lossy().into_owned())
        });
        let threads = names("/proc/self/task", |entry| {
            fs::read_to_string(entry.path().join("comm")).ok()
        });

        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            sockets: files.iter().filter(|f| f.starts_with("socket:")).count(),
            threads: threads
                .iter()
                .filter(|name| [THREADS, "stopcock"].contains(&name.trim_end()))
                .count(),
        }
    }
}

/// Whether the environment says that a test cannot run here. CI sets no such variable, and counts these lines.
#[must_use]
pub fn skipped(variable: &str) -> bool {
    let skipped = std::env::var_os(variable).is_some();
    if skipped {
        println!("skipped, as {variable} is set");
    }
    skipped
}

/// Prints the median and the 99th percentile.
///
/// # Panics
///
/// If there are no samples.
pub fn print_latencies(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |percent| latencies[(latencies.len() - 1) * percent / 100];
    let (p50, p99, n) = (at(50), at(99), latencies.len());
    println!("{what}: p50 {p50:.1?}, p99 {p99:.1?}, of {n}");
}
