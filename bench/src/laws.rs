//! Which streams break which laws: ours and those of the peers, each used as its documentation shows.
//!
//! `stopcock-bench laws` runs it, and prints the table of `LAWS.md`.

mod versions;

use async_fn_stream::fn_stream;
use async_stream::stream;
use futures::{StreamExt as _, stream as streams};
use futures_lite::stream::stop_after_future;
use std::{env, future::ready, io, panic, pin::pin, time::Duration};
use stop_token::{StopSource, stream::StreamExt as _};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, generator, signal,
    testing::{
        Source, Stop,
        laws::{self, Law, Report},
    },
    try_generator,
};
use stream_cancel::{StreamExt as _, Tripwire, Valved};
use tokio::{select, time::sleep_until};
use tokio_stream::Timeout;
use tokio_util::sync::CancellationToken as TokioToken;

/// The peers, by their package names in the lock file.
const PEERS: [&str; 9] = [
    "futures",
    "futures-lite",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "stop-token",
    "stream-cancel",
    "async-stream",
    "async-fn-stream",
];

/// The numbers that `LAWS.md` gives to the laws, by the names of their functions, in the order of that file.
const NUMBERS: [(&str, &str); 20] = [
    ("prefix", "S1"),
    ("identity", "S2"),
    ("nothing_late", "S3"),
    ("ends", "S3"),
    ("nothing_lost", "S4"),
    ("left_alone", "S5"),
    ("dropped_first", "S6"),
    ("fused", "S7"),
    ("wakes", "S8"),
    ("dropping", "S9"),
    ("size_hint", "S10"),
    ("fair", "S11"),
    ("one_outcome", "S12"),
    ("panics", "S13"),
    ("stop_is_reported", "S14"),
    ("nothing_early", "D2"),
    ("honest", "D4"),
    ("released", "D5"),
    ("on_time", "D6"),
    ("lazy", "G1"),
];

type Row = (&'static str, fn() -> Report);

const OURS: [Row; 15] = [
    ("**ours**, `take_until_cancelled(token)`", || {
        laws::report_all(|source, stop| source.take_until_cancelled(stop.token()))
    }),
    ("**ours**, `take_until_cancelled(child)`", || {
        laws::report_all(|source, stop| source.take_until_cancelled(stop.token().child_token()))
    }),
    (
        "**ours**, `take_until_cancelled(signal::when(future))`",
        || {
            laws::report_all(|source, stop| {
                source.take_until_cancelled(signal::when(stop.token().cancelled_owned()))
            })
        },
    ),
    (
        "**ours**, `take_until_cancelled(token with a deadline)`",
        || {
            laws::report_all(|source, stop| {
                source.take_until_cancelled(CancellationToken::with_deadline(stop.deadline()))
            })
        },
    ),
    (
        "**ours**, `take_until_cancelled(tokio-util's token)`",
        || laws::report_all(|source, stop| source.take_until_cancelled(tokio_token(&stop))),
    ),
    ("**ours**, `with_cancellation(token)`", || {
        laws::report_all(|source, stop| source.with_cancellation(stop.token()))
    }),
    ("**ours**, `try_with_cancellation(token)`", || {
        laws::report_all(|source, stop| {
            let source = source.map(io::Result::Ok);
            source.try_with_cancellation(stop.token())
        })
    }),
    ("**ours**, `take_until_deadline`", || {
        laws::report_all(|source, stop| source.take_until_deadline(stop.deadline()))
    }),
    ("**ours**, `try_with_deadline`", || {
        laws::report_all(|source, stop| {
            let source = source.map(io::Result::Ok);
            source.try_with_deadline(stop.deadline())
        })
    }),
    ("**ours**, `with_deadline`", || {
        laws::report_all(|source, stop| source.with_deadline(stop.deadline()))
    }),
    ("**ours**, `with_timeout`", || {
        laws::report_all(|source, stop| source.with_timeout(stop.timeout()))
    }),
    ("**ours**, `generator`", || {
        laws::report_all(|mut source, stop| {
            Box::pin(generator(stop.token(), async move |mut y| {
                while let Some(item) = source.next().await {
                    y.yield_item(item).await;
                }
            }))
        })
    }),
    ("**ours**, `try_generator`", || {
        laws::report_all(|mut source, stop| {
            Box::pin(try_generator(stop.token(), async move |mut y| {
                while let Some(item) = source.next().await {
                    y.yield_item(item).await;
                }
                Ok::<_, io::Error>(())
            }))
        })
    }),
    (
        "**ours**, `take_until_cancelled(token).drop_on_cancel()`",
        || {
            laws::report_all(|source, stop| {
                source.take_until_cancelled(stop.token()).drop_on_cancel()
            })
        },
    ),
    (
        "**ours**, `with_cancellation(token).drop_on_cancel()`",
        || laws::report_all(|source, stop| source.with_cancellation(stop.token()).drop_on_cancel()),
    ),
];

const THEIRS: [Row; 15] = [
    ("futures `take_until(our token)`", || {
        laws::report_stop(|source, stop| source.take_until(stop.token().cancelled_owned()))
    }),
    ("futures `take_until(tokio-util's token)`", || {
        laws::report_stop(|source, stop| source.take_until(tokio_token(&stop).cancelled_owned()))
    }),
    ("futures `take_until(sleep_until)`", || {
        laws::report_stop(|source, stop| source.take_until(sleep_until(stop.deadline())))
    }),
    ("futures `abortable`", || {
        laws::report_stop(|source, stop| {
            let (items, handle) = streams::abortable(source);
            stop.token().on_cancel(move |_| handle.abort()).detach();
            items
        })
    }),
    ("futures-lite `stop_after_future(token)`", || {
        laws::report_stop(|source, stop| {
            stop_after_future(source, tokio_token(&stop).cancelled_owned())
        })
    }),
    ("stream-cancel `take_until_if(tripwire)`", || {
        laws::report_stop(|source, stop| {
            let (trigger, tripwire) = Tripwire::new();
            stop.token().on_cancel(move |_| trigger.cancel()).detach();
            source.take_until_if(tripwire)
        })
    }),
    ("stream-cancel `Valved`", || {
        laws::report_stop(|source, stop| {
            let (trigger, items) = Valved::new(source);
            stop.token().on_cancel(move |_| trigger.cancel()).detach();
            items
        })
    }),
    ("stop-token `timeout_at(token)`", || {
        laws::report_stop(|source, stop| source.timeout_at(stop_token(&stop)))
    }),
    ("stop-token `timeout_at(token)`, up to its `Err`", || {
        laws::report_stop(|source, stop| {
            source
                .timeout_at(stop_token(&stop))
                .take_while(|item| ready(item.is_ok()))
        })
    }),
    ("tokio-stream `timeout` (between two items)", || {
        laws::report_stop(|source, stop| stream_timeout(source, &stop))
    }),
    (
        "tokio-stream `timeout` (between two items), up to its `Err`",
        || {
            laws::report_stop(|source, stop| {
                stream_timeout(source, &stop).take_while(|item| ready(item.is_ok()))
            })
        },
    ),
    ("async-stream, `select!` in its body", || {
        laws::report_stop(|mut source, stop| {
            let token = tokio_token(&stop);
            stream! {
                let mut cancelled = pin!(token.cancelled());
                while let Some(item) = select! {
                    biased;
                    () = &mut cancelled => None,
                    item = source.next() => item,
                } {
                    yield item;
                }
            }
        })
    }),
    ("async-fn-stream, `select!` in its body", || {
        laws::report_stop(|mut source, stop| {
            let token = tokio_token(&stop);
            fn_stream(|emitter| async move {
                let mut cancelled = pin!(token.cancelled());
                while let Some(item) = select! {
                    biased;
                    () = &mut cancelled => None,
                    item = source.next() => item,
                } {
                    emitter.emit(item).await;
                }
            })
        })
    }),
    // Without `biased` the order is random: then each of these two may happen.
    ("`unfold` of a biased `select!`, token first", || {
        laws::report_stop(|source, stop| {
            streams::unfold(
                (source, tokio_token(&stop)),
                |(mut source, token)| async move {
                    let item = select! {
                        biased;
                        () = token.cancelled() => None,
                        item = source.next() => item,
                    };
                    item.map(|item| (item, (source, token)))
                },
            )
        })
    }),
    ("`unfold` of a biased `select!`, source first", || {
        laws::report_stop(|source, stop| {
            streams::unfold(
                (source, tokio_token(&stop)),
                |(mut source, token)| async move {
                    let item = select! {
                        biased;
                        item = source.next() => item,
                        () = token.cancelled() => None,
                    };
                    item.map(|item| (item, (source, token)))
                },
            )
        })
    }),
];

fn tokio_token(stop: &Stop) -> TokioToken {
    let token = TokioToken::new();
    let cancelled = token.clone();
    stop.token().on_cancel(move |_| cancelled.cancel()).detach();
    token
}

fn stop_token(stop: &Stop) -> stop_token::StopToken {
    let source = StopSource::new();
    let token = source.token();
    stop.token().on_cancel(move |_| drop(source)).detach();
    token
}

fn stream_timeout(source: Source, stop: &Stop) -> Timeout<Source> {
    // It adds the timeout to the clock, which fails for `Duration::MAX`.
    let decades = Duration::from_secs(3600 * 24 * 365 * 30);
    tokio_stream::StreamExt::timeout(source, stop.timeout().min(decades))
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => print(),
        [word] => explain(word),
        _ => panic!("usage: laws [name]"),
    }
}

/// The table of `LAWS.md`: a line for all of ours that break nothing, and one for each other stream.
fn print() {
    for law in Law::ALL {
        let is_numbered = NUMBERS.iter().any(|(name, _)| *name == law.name());
        assert!(
            is_numbered,
            "`{law}` needs the number that LAWS.md gives it"
        );
    }
    let (kept, broken): (Vec<_>, Vec<_>) = OURS
        .iter()
        .map(|(name, report)| (*name, breaks(&quietly(*report))))
        .partition(|(_, breaks)| breaks.is_empty());
    let kept: Vec<_> = kept.iter().map(|(name, _)| without_ours(name)).collect();

    println!("| stream | breaks |");
    println!("|---|---|");
    println!("| **stopcock**, {} streams | nothing |", kept.len());
    for (name, breaks) in broken {
        println!("| **stopcock**, {} | {breaks} |", without_ours(name));
    }
    for (name, report) in &THEIRS {
        println!("| {name} | {} |", breaks(&quietly(*report)));
    }
    println!("\nThe streams of stopcock are {}.", kept.join(", "));
    println!("\nWith {}.", versions::of(&PEERS));
}

fn without_ours(name: &'static str) -> &'static str {
    name.trim_start_matches("**ours**, ")
}

/// The laws that are broken, with their numbers.
fn breaks(report: &Report) -> String {
    let broken = |name: &str| report.broken().iter().any(|law| law.law().name() == name);
    let reported = NUMBERS
        .iter()
        .filter(|(name, _)| broken(name))
        .map(|(name, number)| format!("{number} `{name}`"));
    reported.collect::<Vec<_>>().join(", ")
}

/// Suppresses the output of panics that the laws catch: some peers panic when they are polled after their end.
fn quietly(report: fn() -> Report) -> Report {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let quiet = panic::catch_unwind(report);
    panic::set_hook(hook);
    // A panic of the testing tools themselves. It happens again here, and is printed.
    quiet.unwrap_or_else(|_| report())
}

/// Prints how streams whose name contains `word` break the laws.
fn explain(word: &str) {
    for (name, report) in OURS.iter().chain(&THEIRS) {
        if name.contains(word) {
            println!("# {name}\n");
            for broken in quietly(*report).broken() {
                println!("{broken}\n");
            }
        }
    }
}
