//! The tools of `testing` themselves: what they record, and how they report a failure.

#[cfg(feature = "tokio")]
mod timed;

use crate::support::panic_of;
use futures::{
    FutureExt, Stream, StreamExt,
    executor::block_on,
    stream::{self, FusedStream, poll_fn},
};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::{mem, task::Poll};
use stopcock::{
    CancelStreamExt, CancellationToken, generator, signal,
    testing::{
        DropProbe, Harness, Moment, Plan, Probe, Script, Source, Step, Stop, StopPoint,
        assert_no_leak, laws,
        strategy::{plans, scripts},
    },
};

/// Checks for the stop after its source is pending, and never before.
fn late(mut source: Source, stop: Stop) -> impl Stream<Item = char> {
    let token = stop.token();
    let mut cancelled = Box::pin(token.clone().cancelled_owned());
    poll_fn(move |cx| match source.poll_next_unpin(cx) {
        Poll::Pending => cancelled.as_mut().poll(cx).map(|()| None),
        ready => ready,
    })
}

#[test]
fn a_broken_law_is_reported_with_the_smallest_run_that_breaks_it() {
    let message = panic_of(|| laws::nothing_late(late));
    assert_eq!(
        message,
        "\
the law `nothing_late` is broken: a poll that begins after the stop returns no item

    source   .a~~~~.
    stop     X......
    woken    .......
    output   .a||||/
    dropped  ......D

script \"a\", stopped before it is made
expected poll 0 to return no item, as it began after the stop
"
    );
}

#[test]
fn the_guide_shows_what_is_reported() {
    let message = panic_of(|| {
        laws::dropped_first(|source, stop| source.take_until(stop.token().cancelled_owned()));
    });
    let guide = include_str!("../../src/testing.rs");
    for line in message.lines() {
        assert!(guide.contains(format!("//! {line}").trim_end()), "{line:?}");
    }
}

#[test]
fn a_report_has_the_laws_that_hold_beside_those_that_are_broken() {
    let report = laws::report_stop(late);
    assert!(report.held().contains(&laws::Law::Prefix));
    let broken = report.broken();
    let law = broken
        .iter()
        .find(|broken| broken.law() == laws::Law::NothingLate);
    assert_eq!(law.unwrap().plan().stop, StopPoint::AtBirth);
    // A law about points in time is not in the report.
    assert!(!report.held().contains(&laws::Law::OnTime));
    assert!(
        broken
            .iter()
            .all(|broken| broken.law() != laws::Law::OnTime)
    );
}

#[test]
fn a_longer_script_is_made_as_short_as_it_can_be() {
    // Wrong from its seventh item on: longer than the scripts that are tried one by one.
    let message = panic_of(|| {
        laws::prefix(|source, _| {
            source
                .enumerate()
                .map(|(n, item)| if n < 6 { item } else { 'Z' })
        });
    });
    assert!(
        message.contains("script \"(abcdefg)\", stopped never"),
        "{message}"
    );
}

#[test]
fn a_late_stop_is_made_as_early_as_it_can_be() {
    // Does not check from its seventh item on.
    let message = panic_of(|| {
        laws::nothing_late(|mut source, stop| {
            let token = stop.token();
            let mut items = 0;
            poll_fn(move |cx| {
                if items < 7 && token.is_cancelled() {
                    return Poll::Ready(None);
                }
                let polled = source.poll_next_unpin(cx);
                items += usize::from(matches!(polled, Poll::Ready(Some(_))));
                polled
            })
        });
    });
    let smallest = ["during poll 6 of the source\n", "before poll 7\n"];
    assert!(
        smallest
            .iter()
            .any(|stop| message.contains(&format!("script \"(abcdefgh)\", stopped {stop}"))),
        "{message}"
    );
}

#[test]
fn all_scripts_of_four_steps_are_tried() {
    let message = panic_of(|| {
        laws::prefix(|source, _| {
            let mut polls = 0;
            let mut source = source.fuse();
            poll_fn(move |cx| {
                polls += 1;
                let polled = source.poll_next_unpin(cx);
                match polled {
                    Poll::Ready(None) if polls == 4 => Poll::Ready(Some('Z')),
                    polled => polled,
                }
            })
        });
    });
    assert!(message.contains("poll 3 to return no item"), "{message}");
}

#[test]
fn a_source_that_is_polled_as_the_stream_is_made_is_not_left_in_peace() {
    let message = panic_of(|| {
        laws::lazy(|mut source| {
            let first = source.next().now_or_never().flatten();
            stream::iter(first).chain(source)
        });
    });
    assert!(
        message.contains("expected the source to be polled only while the stream is"),
        "{message}"
    );
}

#[test]
fn adapters_that_are_stacked_keep_the_laws_and_each_may_yield() {
    laws::check_all(|source, stop| {
        source
            .take_until_cancelled(CancellationToken::new())
            .take_until_cancelled(stop.token())
    });
    laws::check_all(|mut source, stop| {
        generator(CancellationToken::new(), async move |mut y| {
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
        })
        .take_until_cancelled(signal::any(stop.token(), signal::never()))
    });
    #[cfg(feature = "tokio")]
    laws::check_all(|source, stop| {
        source
            .take_until_cancelled(CancellationToken::new())
            .with_deadline(stop.deadline())
    });
}

#[test]
fn a_source_plays_its_script_on_any_executor() {
    let source = Source::new("a-(bc)--d|");
    let record = source.record();
    assert_eq!(block_on(source.collect::<String>()), "abcd");
    assert_eq!(record.items(), "abcd");
    assert_eq!(record.polls(), 8);
    assert_eq!(record.polls_after_end(), 0);
    assert!(record.is_dropped());
}

#[test]
fn a_script_that_is_none_points_at_the_character() {
    let message = panic_of(|| Source::new("a|b"));
    assert_eq!(message, "nothing can follow the end\n  a|b\n    ^");
}

#[test]
fn polls_after_the_end_and_after_a_panic_are_counted() {
    let mut source = Source::new("a|");
    let record = source.record();
    for item in [Some('a'), None, None, None] {
        let polled = crate::support::poll(std::pin::pin!(&mut source));
        assert_eq!(polled, Poll::Ready(item));
    }
    assert_eq!(record.polls_after_end(), 2);

    let mut source = Source::new("!");
    let record = source.record();
    let panic = panic_of(|| crate::support::poll(std::pin::pin!(&mut source)));
    assert_eq!(panic, "the script says so");
    assert_eq!(
        crate::support::poll(std::pin::pin!(&mut source)),
        Poll::Pending
    );
    assert_eq!(record.polls_after_end(), 1);
}

#[test]
fn a_hook_runs_in_each_poll_and_in_the_drop() {
    let (sender, moments) = std::sync::mpsc::channel();
    let source = Source::new("a|").with_hook(move |moment| sender.send(moment).unwrap());
    assert_eq!(block_on(source.collect::<String>()), "a");
    let moments: Vec<_> = moments.iter().collect();
    assert_eq!(moments, [Moment::Poll(0), Moment::Poll(1), Moment::Drop]);
}

#[test]
fn a_hook_does_not_run_while_a_test_panics() {
    let (sender, moments) = std::sync::mpsc::channel();
    panic_of(|| {
        let _source = Source::new("").with_hook(move |moment| sender.send(moment).unwrap());
        std::panic::resume_unwind(Box::new("of the test"));
    });
    assert_eq!(moments.iter().count(), 0);
}

#[test]
fn a_source_by_hand_is_pending_until_it_is_woken() {
    let mut harness = Harness::new(|_| Source::new("-a").by_hand());
    assert_eq!(harness.poll(), Poll::Pending);
    assert_eq!(harness.wakes(), 0);

    let mut harness = Harness::scripted("-a-", |source, _| source);
    assert_eq!(harness.poll(), Poll::Pending);
    assert!(harness.wake_source());
    assert!(!harness.wake_source());
    assert_eq!(harness.wakes(), 1);
    // A pending that is never woken cannot be woken by hand either.
    assert_eq!(harness.run(), ['a']);
    assert_eq!(harness.poll(), Poll::Pending);
    assert!(!harness.wake_source());

    // Nor can a source that has been dropped.
    let mut harness = Harness::scripted("-", |source, _| source);
    assert_eq!(harness.poll(), Poll::Pending);
    harness.drop_stream();
    assert!(!harness.wake_source());
}

#[test]
fn a_stream_that_is_not_woken_is_not_polled_on() {
    let mut harness = Harness::scripted("-a", |mut source, _| {
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        poll_fn(move |_| source.poll_next_unpin(&mut nobody))
    });
    assert_eq!(harness.run(), []);
    assert_eq!(harness.polls(), 1);
}

#[test]
fn the_harness_counts_wakes_for_each_waker() {
    let mut harness = Harness::scripted("---", |source, stop| {
        source.take_until_cancelled(stop.token())
    });
    assert_eq!(harness.poll(), Poll::Pending);
    harness.change_waker();
    harness.wake_source();
    assert_eq!(harness.wakes(), 0, "the new one has not been seen yet");
    assert_eq!(harness.poll(), Poll::Pending);
    harness.stop();
    assert_eq!(harness.wakes(), 1);
    assert_eq!(harness.polls(), 2);
    assert!(!harness.is_over());
    assert_eq!(harness.run(), []);
    assert!(harness.is_over());
}

#[test]
fn a_stream_that_spins_is_a_panic_with_a_diagram() {
    let mut harness = Harness::new(|_| {
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<Option<char>>::Pending
        })
    })
    .with_budget(5);
    let message = panic_of(|| harness.run());
    assert_eq!(
        message,
        "\
the stream has spent its budget of 5 polls, and is neither over nor does it wait

source   .....
stop     .....
woken    wwwww
output   -----
dropped  .....
"
    );
}

#[test]
fn an_endless_stream_is_a_panic_with_its_last_polls() {
    let mut harness = Harness::new(|_| stream::repeat('a'));
    let message = panic_of(|| harness.run());
    assert!(message.starts_with("the stream has spent its budget of 10000 polls"));
    let (_, output) = message.split_once("output   …").unwrap();
    let letters = output.lines().next().unwrap();
    assert_eq!(letters.len(), 72, "{message}");
}

#[test]
fn the_harness_drops_the_stream_and_writes_it_down() {
    let mut harness = Harness::scripted("a-", |source, stop| {
        source.take_until_cancelled(stop.token())
    });
    assert_eq!(harness.poll(), Poll::Ready(Some('a')));
    harness.drop_stream();
    assert!(harness.record().is_dropped());
    assert_eq!(
        harness.record().to_string(),
        "\
source   a.
stop     ..
woken    ..
output   a/
dropped  .D"
    );
    assert!(panic_of(|| harness.poll()).contains("has been dropped"));
}

#[test]
fn a_panic_of_the_stream_is_written_down_and_passes_through() {
    let mut harness = Harness::scripted("a!", |source, _| source);
    assert_eq!(harness.poll(), Poll::Ready(Some('a')));
    assert_eq!(panic_of(|| harness.poll()), "the script says so");
    assert!(harness.record().to_string().contains("output   a!"));
    assert!(!harness.is_over());
}

#[test]
fn polls_of_the_source_within_one_poll_of_the_stream_have_a_column_each() {
    let mut harness = Harness::scripted("ab-c", |source, _| {
        source.filter(|item| std::future::ready(*item == 'b'))
    });
    assert_eq!(harness.run(), ['b']);
    harness.drop_stream();
    assert_eq!(
        harness.record().to_string(),
        "\
source   ab-c~.
stop     ......
woken    ..w...
output   .b-.-/
dropped  .....D"
    );
}

#[test]
fn a_probe_watches_any_stream() {
    let probe = Probe::new(stream::iter(["x", "y", "z"]));
    let record = probe.record();
    let mut rest = probe.skip(1);
    assert_eq!(block_on(rest.next()), Some("y"));
    assert_eq!(record.items(), "ab");
    assert!(!record.is_dropped());
    drop(rest);
    assert!(record.is_dropped());

    assert!(!Probe::new(stream::repeat(0)).is_terminated());
    let probe = Probe::new(stream::iter(0..27));
    let record = probe.record();
    assert_eq!(block_on(probe.count()), 27);
    assert_eq!(record.items(), "abcdefghijklmnopqrstuvwxyza");
}

#[test]
fn a_stream_that_panics_as_it_is_dropped_is_dropped() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("as it is dropped"));
        }
    }

    let bomb = Bomb;
    let probe = Probe::new(poll_fn(move |_| {
        let _ = &bomb;
        Poll::<Option<char>>::Pending
    }));
    let record = probe.record();
    assert_eq!(panic_of(|| drop(probe)), "as it is dropped");
    assert!(record.is_dropped());
}

#[test]
fn what_leaks_is_reported_with_the_place_it_was_taken_at() {
    let mut kept = None;
    let message = panic_of(|| {
        assert_no_leak(|probes| {
            drop(probes.drop_probe());
            kept = Some(probes.drop_probe());
        });
    });
    let line = line!() - 3;
    assert_eq!(
        message,
        format!(
            "1 of 2 probes are still alive:\n  taken at {}:{line}:32",
            file!()
        )
    );
    assert_no_leak(|probes| block_on(probes.stream(stream::iter([1, 2])).count()));
}

#[test]
fn probes_of_other_tests_do_not_count() {
    let alive = DropProbe::new();
    assert_no_leak(|probes| assert_no_leak(|_| drop(probes.drop_probe())));
    assert!(!alive.record().is_dropped());
}

fn smallest<S: proptest::strategy::Strategy>(
    strategy: &S,
    holds: impl Fn(&S::Value) -> bool,
) -> S::Value {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(strategy, |value| match holds(&value) {
        true => Ok(()),
        false => Err(TestCaseError::fail("as it should")),
    });
    match outcome {
        Err(TestError::Fail(_, smallest)) => smallest,
        other => panic!("it should have failed, and not {other:?}"),
    }
}

#[test]
fn strategies_shrink_to_short_scripts_and_early_stops() {
    let script = smallest(&scripts(20), |script: &Script| {
        let pendings = script.steps().iter();
        pendings.filter(|step| **step == Step::Pending).count() < 2
    });
    assert_eq!(script.to_string(), "--|");

    let plan = smallest(&plans(20), |plan| {
        !matches!(plan.stop, StopPoint::Before(3..)) || plan.script.steps().is_empty()
    });
    assert_eq!(plan.stop, StopPoint::Before(3));
    assert!(plan.script.steps().len() <= 2, "{plan}");
}

#[test]
fn a_plan_that_breaks_a_law_is_reported_as_it_is() {
    let plan = Plan::new("ab-".parse().unwrap(), StopPoint::Before(1));
    assert_eq!(
        format!("{plan:?} {:?}", plan.script),
        "Plan(script \"(ab)-\", stopped before poll 1) Script(\"(ab)-\")"
    );
    let broken = laws::try_plan(&plan, late).unwrap_err();
    assert_eq!(broken.plan(), &plan);
    assert_eq!(broken.record().items(), "ab");
    laws::try_plan(&plan, |source, stop| source.take_until_cancelled(stop)).unwrap();
}

#[test]
fn some_laws_can_be_checked_with_the_stop_fired() {
    // It checks, and never registers a waker.
    let deaf = |mut source: Source, stop: Stop| {
        let token = stop.token();
        poll_fn(move |cx| match token.is_cancelled() {
            true => Poll::Ready(None),
            false => source.poll_next_unpin(cx),
        })
    };
    laws::check(&[laws::Law::NothingLate, laws::Law::Ends], deaf);
    let message = panic_of(|| laws::check(&[laws::Law::Wakes], deaf));
    assert!(
        message.starts_with("the law `wakes` is broken"),
        "{message}"
    );
    let message = panic_of(|| laws::check(&[laws::Law::Honest], deaf));
    assert!(message.contains("call its own function"), "{message}");
    for law in [laws::Law::Drains, laws::Law::EndsWhenIdle] {
        let message = panic_of(|| laws::check(&[law], deaf));
        assert!(
            message.contains("its own function, which takes one"),
            "{message}"
        );
    }
    let message = panic_of(|| laws::check(&[laws::Law::Ends, laws::Law::DropOnCancel], deaf));
    assert!(
        message.starts_with("the law `drop_on_cancel` is broken"),
        "{message}"
    );
}

#[test]
fn the_stop_can_be_fired_from_anywhere() {
    for (at, items) in [
        (StopPoint::Before(0), ""),
        (StopPoint::Before(3), "ab"),
        (StopPoint::During(0), "a"),
        (StopPoint::During(2), "ab"),
        (StopPoint::InWaker(0), "ab"),
        (StopPoint::InDrop, "abc"),
    ] {
        let mut harness =
            Harness::scripted("ab-c|", |source, stop| source.take_until_cancelled(stop));
        harness.stop_at(at);
        assert_eq!(harness.run().into_iter().collect::<String>(), items, "{at}");
        assert!(harness.is_over(), "{at}");
        assert!(harness.stop_handle().is_fired(), "{at}");
    }
}

#[test]
fn a_stop_that_was_not_taken_is_reported_first() {
    let message = panic_of(|| laws::ends(|source, _| source));
    assert!(
        message.starts_with("the stream has taken nothing from its stop"),
        "{message}"
    );
}

#[test]
fn a_token_that_is_fired_elsewhere_is_the_same_stop() {
    let token = CancellationToken::new();
    let mut harness = Harness::new(|stop| {
        let source = Source::new("a~").with_hook({
            let stop = stop.clone();
            move |moment| {
                if moment == Moment::Poll(1) {
                    stop.fire();
                }
            }
        });
        source
            .take_until_cancelled(stop.token())
            .take_until_cancelled(&token)
    });
    assert_eq!(harness.run(), ['a']);
    assert!(harness.is_over());
    assert!(harness.stop_handle().is_fired());
}

#[test]
fn a_report_of_any_stream_is_a_table_as_well() {
    // It takes two items in its first poll.
    let report = laws::report_stream(|source| source.fuse().skip(1));
    let held = [
        laws::Law::Fused,
        laws::Law::SizeHint,
        laws::Law::Wakes,
        laws::Law::Dropping,
    ];
    assert_eq!(report.held(), held);
    let broken: Vec<_> = report.broken().iter().map(laws::Broken::law).collect();
    assert_eq!(broken, [laws::Law::Lazy]);
}

#[test]
fn a_report_has_the_result_of_each_law() {
    let report = laws::report(&[laws::Law::Prefix, laws::Law::NothingLate], late);
    assert_eq!(report.held(), [laws::Law::Prefix]);
    assert!(report.of(laws::Law::NothingLate).unwrap().is_err());
    assert!(report.of(laws::Law::Ends).is_none());
}

#[test]
fn check_stream_does_not_check_what_follows_a_panic() {
    // It continues with its source.
    laws::check_stream(|source| source.map(|item| item).fuse());
    let message = panic_of(|| laws::panics(|source| source.map(|item| item).fuse()));
    assert!(
        message.starts_with("the law `panics` is broken"),
        "{message}"
    );
}

#[test]
fn a_panic_of_the_wrapper_is_reported_with_its_plan() {
    let message = panic_of(|| {
        laws::check(&[laws::Law::Prefix], |source, stop| {
            assert!(!stop.is_fired(), "stopped too soon");
            source.take_until_cancelled(stop)
        });
    });
    assert!(
        message.starts_with("the law `panics` is broken"),
        "{message}"
    );
    assert!(
        message.contains("script \"\", stopped before it is made\nexpected the stream to be made without a panic: stopped too soon, at tests"),
        "{message}"
    );
    // It is the only law in the report.
    let report = laws::report_stream(|source| {
        assert!(source.size_hint().0 > 9);
        source
    });
    assert!(report.held().is_empty());
    assert_eq!(report.broken().len(), 1);
}

#[test]
fn a_panic_of_the_stream_itself_is_reported_whichever_law_is_checked() {
    let message = panic_of(|| {
        laws::fused(|source| {
            source
                .map(|item| {
                    assert!(item < 'b', "no more than one");
                    item
                })
                .fuse()
        });
    });
    assert!(message.contains("the law `panics` is broken"), "{message}");
    assert!(
        message.contains(
            "expected poll 1 not to panic, as the source did not: no more than one, at tests"
        ),
        "{message}"
    );
}

/// Runs an ignored test of this module in a process of its own: the panic hook and an abort concern the whole process.
fn in_a_process(test: &str) -> std::process::Output {
    let name = std::thread::current().name().unwrap().to_owned();
    let (module, _) = name.rsplit_once("::").unwrap();
    std::process::Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--ignored"])
        .env("STOPCOCK_TESTING_PATIENCE_MS", "200")
        .output()
        .unwrap()
}

#[test]
#[ignore = "its panic hook is for a process of its own: see the test below"]
fn count_panics() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&seen);
    std::panic::set_hook(Box::new(move |_| {
        let name = std::thread::current().name().map(str::to_owned);
        sink.lock().unwrap().push(name.unwrap_or_default());
    }));
    let report = laws::report_stream(|source| {
        source.map(|item| {
            let other = std::thread::Builder::new().name("other".to_owned());
            let other = other.spawn(|| panic!("of another thread")).unwrap();
            assert!(other.join().is_err());
            assert!(item > 'z', "whatever it is given");
            item
        })
    });
    let is_broken = report.broken()[0].law() == laws::Law::Panics;
    let before = mem::take(&mut *seen.lock().unwrap());
    // Afterwards it is called for this thread as well.
    panic_of(|| panic!("of this thread"));
    let after = seen.lock().unwrap().len();
    let _ours = std::panic::take_hook();
    assert!(is_broken && after == 1, "{is_broken} {after}");
    assert!(before.len() > 10);
    assert!(before.iter().all(|name| name == "other"), "{before:?}");
}

#[test]
#[cfg_attr(miri, ignore = "there are no processes")]
fn panics_that_the_kit_catches_are_not_printed_and_those_of_other_threads_are() {
    let counted = in_a_process("count_panics");
    let message = String::from_utf8_lossy(&counted.stdout);
    assert!(counted.status.success(), "{message}");
    assert!(message.contains("1 passed"), "{message}");
}

#[test]
fn plans_of_ones_own_are_as_good() {
    let plans = || Script::all("a|", 6).map(|script| Plan::new(script, StopPoint::During(5)));
    let laws = [laws::Law::OneOutcome, laws::Law::NothingLost];
    laws::check_plans(&laws, plans(), |source, stop| {
        source.take_until_cancelled(stop)
    });
    let message = panic_of(|| {
        laws::check_plans(&[laws::Law::StopIsReported], plans(), |source, stop| {
            source.take_until_cancelled(stop)
        });
    });
    assert!(
        message.contains("the law `stop_is_reported` is broken"),
        "{message}"
    );
}

/// A stream that waits for itself inside its second poll.
#[test]
#[ignore = "it hangs, in a process of its own: see the test below"]
fn hang() {
    laws::check_stream(|mut source| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let mut polls = 0;
        poll_fn(move |cx| {
            let _sender = &sender;
            polls += 1;
            if polls == 2 {
                // So long that only the tools of `testing` end it, but not forever if they fail.
                let _ = receiver.recv_timeout(std::time::Duration::from_secs(120));
            }
            source.poll_next_unpin(cx)
        })
    });
}

#[test]
#[cfg_attr(miri, ignore = "there are no processes")]
fn a_stream_that_is_stuck_inside_of_a_poll_is_reported_with_its_plan() {
    let hang = in_a_process("hang");
    assert!(!hang.status.success());
    let message = String::from_utf8_lossy(&hang.stderr);
    for part in [
        "the stream under test is stuck inside poll 1: nothing has happened for 200ms",
        "    output   a.",
        "script \"a\", stopped never",
        "checked against `fused`, `size_hint`, `wakes`, `dropping`, `lazy`, `panics`",
        "::hang'",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
}
