use super::{Harness, Poll, StreamExt, assert_no_leak, laws, panic_of, stream};
use std::time::Duration;
use stopcock::{CancelStreamExt, testing::Event};
use tokio::time::{interval, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_clock_is_advanced_by_hand_and_timers_fire() {
    let mut harness = Harness::new(|_| {
        stream::unfold(interval(SECOND), async |mut interval| {
            interval.tick().await;
            Some(((), interval))
        })
        .take(3)
    });
    assert_eq!(harness.run().len(), 1);
    assert_eq!(harness.run().len(), 0);
    harness.advance(SECOND / 2);
    assert_eq!(harness.run().len(), 0);
    harness.advance(SECOND / 2);
    assert_eq!(harness.run().len(), 1);
    harness.advance(SECOND);
    assert_eq!(harness.run().len(), 1);
    assert!(harness.is_over());
}

#[test]
fn time_passes_timer_by_timer_and_tasks_run_in_between() {
    let mut harness = Harness::new(|_| {
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        tokio::spawn(async move {
            for n in 0..5 {
                sleep(SECOND).await;
                sender.send(n).await.unwrap();
            }
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver)
    });
    // After four seconds without a poll there are four ticks.
    harness.advance(4 * SECOND);
    assert_eq!(harness.run(), [0, 1, 2, 3]);
    assert_eq!(harness.run_for(SECOND / 2), []);
    assert_eq!(harness.run_for(SECOND / 2), [4]);
    assert!(harness.is_over());
}

#[test]
fn the_clock_is_moved_by_nanoseconds() {
    let mut harness = Harness::new(|_| {
        let start = tokio::time::Instant::now();
        stream::repeat_with(move || start.elapsed()).chunks(1)
    });
    for (by, now) in [(3, 3), (1_999_997, 2_000_000), (999_999, 2_999_999)] {
        harness.advance(Duration::from_nanos(by));
        let polled = harness.poll();
        assert_eq!(polled, Poll::Ready(Some(vec![Duration::from_nanos(now)])));
    }
}

#[test]
fn a_chain_of_tasks_runs_to_its_end() {
    let mut harness = Harness::new(|_| {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = tokio::spawn(async {});
            for _ in 0..1000 {
                last = tokio::spawn(async move { last.await.unwrap() });
            }
            last.await.unwrap();
            sender.send('a').await.unwrap();
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver)
    });
    assert_eq!(harness.run(), ['a']);
}

#[test]
fn a_task_that_outlives_the_stream_is_a_leak() {
    let leaky = || {
        assert_no_leak(|probes| {
            let connection = probes.drop_probe();
            let mut harness = Harness::new(|_| {
                tokio::spawn(async move {
                    let _connection = connection;
                    sleep(1000 * SECOND).await;
                });
                stream::pending::<u8>()
            });
            harness.run();
            harness.drop_stream();
            harness
        });
    };
    assert!(panic_of(leaky).starts_with("1 of 1 probes are still alive"));
}

#[test]
fn the_clock_comes_to_the_stop_and_that_is_written_down() {
    let mut harness = Harness::scripted("a--", |source, stop| source.with_timeout(stop.timeout()));
    assert_eq!(harness.run().len(), 1);
    harness.advance(3600 * SECOND);
    assert_eq!(harness.wakes(), 3);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Err(_)))));
    assert!(harness.stop_handle().is_fired());
    assert_eq!(
        harness.record().to_string(),
        "\
source   a--~..
stop     ....X.
woken    .www..
output   a---.X
dropped  .....D"
    );
}

#[test]
fn tasks_that_the_stream_spawns_get_their_turn() {
    let mut harness = Harness::new(|_| {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            sleep(SECOND).await;
            sender.send('a').await.unwrap();
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver)
    });
    assert_eq!(harness.run(), []);
    harness.advance(SECOND);
    assert_eq!(harness.run(), ['a']);
    assert!(harness.is_over());
}

#[test]
fn tasks_that_a_timer_wakes_get_their_turn_with_it() {
    let mut harness = Harness::new(|stop| {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let token = stop.token();
        tokio::spawn(async move {
            sleep(SECOND).await;
            sender.send('a').await.unwrap();
            token.cancelled().await;
            sender.send('b').await.unwrap();
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver)
    });
    assert_eq!(harness.run(), []);
    harness.advance(SECOND);
    assert_eq!(harness.wakes(), 1);
    assert_eq!(harness.poll(), Poll::Ready(Some('a')));
    assert_eq!(harness.poll(), Poll::Pending);
    harness.stop();
    assert_eq!(harness.wakes(), 2);
    assert_eq!(harness.poll(), Poll::Ready(Some('b')));
}

#[test]
fn a_stop_at_a_point_in_time_may_be_fired_from_elsewhere() {
    for is_another_thread in [false, true] {
        let mut harness =
            Harness::scripted("a-", |source, stop| source.with_timeout(stop.timeout()));
        assert_eq!(harness.run().len(), 1);
        let stop = harness.stop_handle().clone();
        match is_another_thread {
            true => std::thread::spawn(move || stop.fire()).join().unwrap(),
            false => stop.fire(),
        }
        assert!(matches!(harness.run()[..], [Err(_)]));
    }
}

#[test]
fn what_is_dropped_with_the_harness_finds_its_clock() {
    struct Asks;

    impl Drop for Asks {
        fn drop(&mut self) {
            drop(sleep(SECOND));
        }
    }

    drop(Harness::new(|_| stream::iter([Asks])));
}

#[test]
fn a_deadline_that_is_requested_too_late_panics_with_a_message() {
    let message = panic_of(|| {
        laws::ends(|source, stop| {
            stream::once(async move { source.with_deadline(stop.deadline()) }).flatten()
        });
    });
    assert!(
        message.contains("call `deadline` or `timeout` while the stream is made"),
        "{message}"
    );
}

#[test]
fn a_law_about_tokens_panics_for_a_point_in_time() {
    let message =
        panic_of(|| laws::drop_on_cancel(|source, stop| source.with_timeout(stop.timeout())));
    assert!(
        message.contains("take the token from the stop"),
        "{message}"
    );
    let message = panic_of(|| {
        laws::drains(SECOND, |source, stop| source.with_timeout(stop.timeout()));
    });
    assert!(
        message.contains("take the token from the stop"),
        "{message}"
    );
}

#[test]
fn the_time_that_went_by_is_written_down() {
    let mut harness = Harness::scripted("a~", |source, _| source);
    harness.advance(SECOND);
    assert_eq!(harness.run_for(SECOND / 2), ['a']);
    let passed = |event: &Event| match event {
        Event::Passed(time) => Some(*time),
        _ => None,
    };
    let passed: Vec<_> = harness
        .record()
        .events()
        .iter()
        .filter_map(passed)
        .collect();
    assert_eq!(passed, [SECOND, SECOND / 2]);
}

#[test]
fn a_stream_that_waits_for_a_timer_is_checked_over_time() {
    let throttled = |source| Box::pin(tokio_stream::StreamExt::throttle(source, SECOND).fuse());
    laws::check_stream_over_time(throttled);
    let message = panic_of(|| laws::check_stream(throttled));
    assert!(
        message.starts_with("the law `wakes` is broken"),
        "{message}"
    );
}

#[test]
fn a_stream_that_a_task_feeds_is_checked_over_time() {
    let fed = |is_leaky: bool| {
        move |mut source: stopcock::testing::Source| {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                loop {
                    let item = tokio::select! {
                        item = source.next() => item,
                        () = sender.closed(), if !is_leaky => None,
                    };
                    match item {
                        Some(item) if sender.send(item).await.is_ok() => {}
                        _ => break,
                    }
                }
            });
            tokio_stream::wrappers::ReceiverStream::new(receiver)
        }
    };
    laws::check_stream_over_time(fed(false));
    // The task waits for its source, and does not notice that its reader has been dropped.
    let message = panic_of(|| laws::check_stream_over_time(fed(true)));
    assert!(
        message.starts_with("the law `dropping` is broken"),
        "{message}"
    );
    assert!(
        message.contains("; while it is pending, time passes and tasks run"),
        "{message}"
    );
}

#[test]
fn a_stream_that_forgets_its_waker_is_caught_over_time() {
    let message = panic_of(|| {
        laws::check_stream_over_time(|mut source| {
            let mut sleep = Box::pin(sleep(SECOND));
            futures::stream::poll_fn(move |cx| {
                let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
                match std::future::Future::poll(sleep.as_mut(), &mut nobody) {
                    Poll::Ready(()) => source.poll_next_unpin(cx),
                    Poll::Pending => Poll::Pending,
                }
            })
        });
    });
    assert!(
        message.starts_with("the law `wakes` is broken"),
        "{message}"
    );
}

#[tokio::test]
async fn inside_a_runtime_it_panics_with_the_way_out() {
    let message = panic_of(|| Harness::new(|_| stream::empty::<char>()));
    assert!(message.contains("use it in a plain `#[test]`"), "{message}");
}
