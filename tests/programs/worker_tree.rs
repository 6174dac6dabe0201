//! A tree of workers, stopped from one point: softly, and hard after a grace period. No job is lost or done twice.
//!
//! There are two tokens at the root. Each group of workers has a child of each, so that it can be stopped alone too:
//!
//! ```text
//! hard ─┬─ soft ─┬─ mail     takes jobs until this is cancelled
//!       │        ├─ batch    the same, and has a deadline of its own
//!       │        └─ ..
//!       ├─ mail              finishes a job until this is cancelled
//!       └─ ..
//! ```
//!
//! Once `soft` is cancelled no worker takes another job, and each finishes the one that it has begun. `soft` has settled
//! when all of them have finished. If that takes too long `hard` is cancelled: a worker that is still busy drops its job at
//! once, which puts it back into the queue.
//!
//! The program fails if a job is neither done nor back in its queue, or is both, or if a worker is left.

use std::{
    error::Error,
    future::Future,
    io,
    ops::Range,
    pin::pin,
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use stopcock::{CancelFutureExt, CancellationToken, generator};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::StreamExt;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WORKERS_PER_GROUP: usize = 3;
const GRACE: Duration = Duration::from_millis(300);
const MOMENT: Duration = Duration::from_millis(5);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_or_done_twice() -> Result<()> {
    let time = Duration::from_secs(1);
    let workers = Arc::new(());
    // A worker that does not stop must fail the program, not hang it.
    let outcome = timeout(time + Duration::from_secs(10), run(time, &workers)).await;

    let left = Arc::strong_count(&workers) - 1;
    println!("workers left: {left}");
    outcome.map_err(|_| "a worker has not been stopped")??;
    assert_eq!(left, 0);
    Ok(())
}

async fn run(time: Duration, workers: &Arc<()>) -> Result<()> {
    let hard = CancellationToken::new();
    let soft = hard.child_token();
    soft.track_holders();
    let batch = soft.child_with_timeout(time / 2);
    let groups = [
        // Has done all of its jobs long before, and waits for more.
        Group::new("mail", soft.child_token(), &hard, 50, MOMENT),
        // Is stopped by its own deadline, which does not affect the others.
        Group::new("batch", batch, &hard, 100_000, MOMENT),
        // Has a queue that is never empty, and very short jobs.
        Group::new("import", soft.child_token(), &hard, 100_000, MOMENT),
        // Does not finish within any grace period.
        Group::new("video", soft.child_token(), &hard, 10, HOUR),
    ];

    let mut tasks = JoinSet::new();
    let operator = operator()?;
    for group in &groups {
        for _ in 0..WORKERS_PER_GROUP {
            tasks.spawn(worker(Arc::clone(group), Arc::clone(workers)));
        }
    }

    println!("process {}, {} workers", process::id(), tasks.len());
    let reason = tokio::select! {
        reason = operator => reason,
        () = sleep(time) => "time is up",
    };
    stop(&soft, &hard, reason).await;
    // The workers have nothing left to do but return.
    tasks.join_all().await;

    println!("\ngroup   stopped by            jobs   done  handed back  not begun");
    for group in &groups {
        group.account_for_all()?;
    }
    Ok(())
}

/// Stops softly, and hard if that takes too long.
async fn stop(soft: &CancellationToken, hard: &CancellationToken, reason: &'static str) {
    println!("soft stop: {reason}");
    soft.cancel_with(reason);
    if soft.settled().with_timeout(GRACE).await.is_err() {
        println!("hard stop: the grace of {GRACE:?} is over, and these are still running:");
        for holder in soft.holders() {
            println!("  {holder}");
        }
        hard.cancel_with("the grace is over");
        hard.settled().await;
    }
}

/// Takes jobs until the soft stop, and finishes what it has begun until the hard one.
async fn worker(group: Arc<Group>, _counted: Arc<()>) {
    let mut jobs = pin!(generator(&group.soft, async |mut y| {
        while let Some(job) = group.next_job().await {
            y.yield_item(job).await;
        }
    }));
    // A job that was taken from the queue is yielded, even if a token is cancelled meanwhile.
    while let Some(job) = jobs.next().await {
        group.begun.fetch_add(1, Ordering::Relaxed);
        let work = group.work_on(&job).with_cancellation(&group.hard);
        if work.await.is_err() {
            group.hand_back(job);
        }
    }
}

struct Job {
    id: usize,
    time: Duration,
}

/// Workers that share a queue.
struct Group {
    name: &'static str,
    soft: CancellationToken,
    hard: CancellationToken,
    ids: Range<usize>,
    queue: UnboundedSender<Job>,
    queued: tokio::sync::Mutex<UnboundedReceiver<Job>>,
    begun: AtomicUsize,
    done: Mutex<Vec<usize>>,
}

impl Group {
    fn new(
        name: &'static str,
        soft: CancellationToken,
        hard: &CancellationToken,
        jobs: usize,
        time: Duration,
    ) -> Arc<Self> {
        let (queue, queued) = unbounded_channel();
        let group = Self {
            name,
            soft,
            hard: hard.child_token(),
            ids: 0..jobs,
            queue,
            queued: tokio::sync::Mutex::new(queued),
            begun: AtomicUsize::new(0),
            done: Mutex::default(),
        };
        for id in group.ids.clone() {
            group.hand_back(Job { id, time });
        }
        Arc::new(group)
    }

    /// If it is dropped while it waits, it has taken no job.
    async fn next_job(&self) -> Option<Job> {
        self.queued.lock().await.recv().await
    }

    /// If it is dropped while it waits, it has not done the job.
    async fn work_on(&self, job: &Job) {
        sleep(job.time).await;
        self.done.lock().unwrap().push(job.id);
    }

    fn hand_back(&self, job: Job) {
        // The group owns the other end as well.
        let _ = self.queue.send(job);
    }

    /// Fails unless each job is either done, exactly once, or in the queue.
    fn account_for_all(&self) -> Result<()> {
        let mut queued = self.queued.try_lock()?;
        let mut ids = self.done.lock().unwrap().clone();
        let done = ids.len();
        while let Ok(job) = queued.try_recv() {
            ids.push(job.id);
        }
        ids.sort_unstable();
        assert!(self.ids.clone().eq(ids), "lost, or done twice");

        let reason = self.soft.stop_reason().ok_or("it has not been stopped")?;
        let begun = self.begun.load(Ordering::Relaxed);
        println!(
            "{:6}  {:18}  {:6}  {done:5}  {:11}  {:9}",
            self.name,
            reason.to_string(),
            self.ids.len(),
            begun - done,
            self.ids.len() - begun,
        );
        Ok(())
    }
}

/// Stops the server: SIGTERM, from now on.
#[cfg(unix)]
fn operator() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut sigterm = signal(SignalKind::terminate())?;
    Ok(async move {
        sigterm.recv().await;
        "SIGTERM"
    })
}

/// Stops the server: Ctrl-C.
#[cfg(not(unix))]
fn operator() -> io::Result<impl Future<Output = &'static str>> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => "no one can press Ctrl-C",
        }
    })
}
