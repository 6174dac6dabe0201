//! Detects a stream under test that is stuck inside a poll, where a maximum number of polls does not help.

use super::{Event, Plan, Record, laws::Law};
use std::{
    env,
    io::{self, Write},
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// The environment variable for the patience in milliseconds; `0` is forever.
const VARIABLE: &str = "STOPCOCK_TESTING_PATIENCE_MS";

const PATIENCE: Duration = Duration::from_secs(10);

/// The number of checks until the patience is over. A machine that was suspended misses at most one of them.
const CHECKS: u32 = 10;

/// A thread that prints a report and aborts the process when the stream under test makes no progress.
///
/// It aborts, as the stuck thread can neither be stopped nor made to panic, and exit handlers may not return in a
/// process with a deadlock.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    is_done: Condvar,
}

#[derive(Default)]
struct Watched {
    is_done: bool,
    laws: Vec<Law>,
    /// The number of plans so far, and the current one.
    plans: usize,
    plan: Option<(Plan, Record)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let thread = patience().and_then(|patience| {
            let shared = Arc::clone(&shared);
            let watched = thread::current().name().map(str::to_owned);
            let thread = thread::Builder::new().name("stopcock-testing-watch".to_owned());
            // If there is no thread, nothing is detected.
            thread.spawn(move || shared.watch(patience, watched)).ok()
        });
        Self { shared, thread }
    }

    /// The laws that the next plans are checked against.
    pub(super) fn laws(&self, laws: impl Iterator<Item = Law>) {
        self.shared.lock().laws = laws.collect();
    }

    /// Called when a plan begins.
    pub(super) fn begin(&self, plan: &Plan, record: &Record) {
        if self.thread.is_none() {
            return;
        }
        let mut watched = self.shared.lock();
        watched.plans += 1;
        watched.plan = Some((plan.clone(), record.clone()));
    }

    /// Called when it has ended.
    pub(super) fn end(&self) {
        let plan = self.shared.lock().plan.take();
        drop(plan);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().is_done = true;
        self.shared.is_done.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic.
            let _ = thread.join();
        }
    }
}

fn patience() -> Option<Duration> {
    // Miri is slow.
    if cfg!(miri) {
        return None;
    }
    let millis = env::var(VARIABLE)
        .ok()
        .and_then(|millis| millis.parse().ok());
    let patience = millis.map_or(PATIENCE, Duration::from_millis);
    (!patience.is_zero()).then_some(patience)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, patience: Duration, name: Option<String>) {
        let mut seen = None;
        let mut checks = 0;
        let mut watched = self.lock();
        while !watched.is_done {
            let waited = self.is_done.wait_timeout(watched, patience / CHECKS);
            watched = waited.unwrap_or_else(PoisonError::into_inner).0;
            let progress = watched
                .plan
                .as_ref()
                .map(|(_, record)| (watched.plans, record.len()));
            checks = match progress.is_some() && progress == seen {
                true => checks + 1,
                false => 0,
            };
            seen = progress;
            if let (CHECKS, Some((plan, record))) = (checks, &watched.plan) {
                let report = report(&watched.laws, plan, record, patience, name.as_deref());
                // Not `eprintln!`, which the test harness captures, and loses when the process aborts.
                let _ = io::stderr().lock().write_all(report.as_bytes());
                process::abort();
            }
        }
    }
}

fn report(
    laws: &[Law],
    plan: &Plan,
    record: &Record,
    patience: Duration,
    name: Option<&str>,
) -> String {
    let events = record.events();
    let laws: Vec<_> = laws.iter().map(|law| format!("`{law}`")).collect();
    let diagram: Vec<_> = record
        .to_string()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!(
        "\nthe stream under test is stuck {}: nothing has happened for {patience:?}, and the process is aborted\n\n{}\n\
         {plan}\nchecked against {}\nin thread '{}'\n(`{VARIABLE}` sets how long to wait; 0 is forever)\n",
        place(&events),
        diagram.concat(),
        laws.join(", "),
        name.unwrap_or("<unnamed>"),
    )
}

/// Where it is stuck.
fn place(events: &[Event]) -> String {
    let polls = events
        .iter()
        .filter(|event| matches!(event, Event::Polled { .. }));
    let polls = polls.count();
    let mut open = Vec::new();
    for event in events {
        match event {
            Event::Polled { .. } => open.push(format!("inside poll {}", polls - 1)),
            Event::Stopping => open.push("as the stop is fired".to_owned()),
            Event::Dropping => open.push("as it is dropped".to_owned()),
            Event::Gave(_) | Event::Stopped | Event::Dropped { .. } => {
                open.pop();
            }
            _ => {}
        }
    }
    open.pop().unwrap_or_else(|| match polls {
        0 => "as it is made".to_owned(),
        polls => format!("after poll {}", polls - 1),
    })
}
