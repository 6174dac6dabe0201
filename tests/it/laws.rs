//! The laws S1 to S13: every stoppable stream, on all short scripts, at all stop points.

use crate::support::{Moment, Record, Source, Wakes, panic_of, scripts};
use futures::{
    StreamExt,
    stream::{self, FusedStream},
    task::AtomicWaker,
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering::SeqCst},
    task::Poll,
};
use stopcock::{
    CancelStreamExt, CancellationToken, Generator, GeneratorBody, Signal, StopReason,
    TakeUntilCancelled, generator, signal,
};

/// Marbles: the items, `-` a pending, `|` the end, `X` the end at a stop.
type Marbles = String;

/// A stream that can tell why it was stopped.
trait Stoppable: FusedStream<Item = char> {
    fn reason(&self) -> Option<StopReason>;
}

impl<G: Signal> Stoppable for TakeUntilCancelled<Source, G> {
    fn reason(&self) -> Option<StopReason> {
        self.stop_reason().cloned()
    }
}

impl<B, G: Signal> Stoppable for Generator<char, B, G>
where
    B: for<'a> GeneratorBody<'a, char>,
{
    fn reason(&self) -> Option<StopReason> {
        self.stop_reason().cloned()
    }
}

type Stream = Pin<Box<dyn Stoppable>>;

/// How a source is wrapped, and how the stop is fired.
struct Wrap {
    name: &'static str,
    wrap: fn(Source, &Arc<Stop>) -> Stream,
}

/// Fires all the signals of this file at once.
#[derive(Default)]
struct Stop {
    token: CancellationToken,
    flag: AtomicBool,
    waker: AtomicWaker,
}

impl Stop {
    fn fire(&self) {
        self.token.cancel();
        self.flag.store(true, SeqCst);
        self.waker.wake();
    }

    fn fired(self: Arc<Self>) -> impl Future<Output = ()> {
        futures::future::poll_fn(move |cx| {
            self.waker.register(cx.waker());
            match self.flag.load(SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }
}

const WRAPS: &[Wrap] = &[
    Wrap {
        name: "take_until_cancelled(token)",
        wrap: |source, stop| Box::pin(source.take_until_cancelled(&stop.token)),
    },
    Wrap {
        name: "take_until_cancelled(great-grandchild)",
        wrap: |source, stop| {
            let token = stop.token.child_token().child_token().child_token();
            Box::pin(source.take_until_cancelled(token))
        },
    },
    Wrap {
        name: "take_until_cancelled(when(future))",
        wrap: |source, stop| {
            Box::pin(source.take_until_cancelled(signal::when(Arc::clone(stop).fired())))
        },
    },
    Wrap {
        name: "generator(token)",
        wrap: |mut source, stop| {
            Box::pin(generator(&stop.token, async move |mut y| {
                while let Some(item) = source.next().await {
                    y.yield_item(item).await;
                }
            }))
        },
    },
];

/// When the stop is fired.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Never,
    /// Before this poll, counted from 0.
    Before(usize),
    /// From inside of this poll of the source.
    During(usize),
}

/// What should come out: the laws in a few lines.
fn expected(script: &str, at: At) -> (Marbles, usize) {
    let mut output = Marbles::new();
    let mut fired = false;
    for (poll, letter) in script.chars().chain("-".chars()).enumerate() {
        if fired || at == At::Before(poll) {
            return (output + "X", poll);
        }
        fired = at == At::During(poll);
        match letter {
            '-' if fired => return (output + "X", poll + 1),
            '|' => return (output + "|", poll + 1),
            letter => output.push(letter),
        }
    }
    (output, script.len() + 1)
}

/// Runs a script to its end, to the stop, or to one poll past its last letter, and checks all that can be seen.
fn run(wrap: &Wrap, script: &str, at: At) -> (Marbles, usize) {
    let case = format!("{} on {script:?}, fired {at:?}", wrap.name);
    let stop = Arc::new(Stop::default());
    let source = {
        let stop = Arc::clone(&stop);
        Source::with_hook(script, move |moment| match (moment, at) {
            (Moment::Poll(poll), At::During(this)) if poll == this => stop.fire(),
            _ => {}
        })
    };
    let record = source.record();
    let mut stream = (wrap.wrap)(source, &stop);
    let mut output = Marbles::new();
    for poll in 0..=script.len() {
        assert!(!stream.is_terminated(), "S7: {case}");
        assert!(stream.reason().is_none(), "S12: {case}");
        assert!(!record.is_dropped(), "{case}");
        let (lower, upper) = stream.size_hint();
        assert_eq!(lower, 0, "S10: {case}");
        let to_come = script[poll..].chars().filter(|c| c.is_alphabetic()).count();
        assert!(upper.is_none_or(|upper| upper >= to_come), "S10: {case}");

        // A new waker at each poll: the stop has to find the latest.
        let wakes = Wakes::new();
        if at == At::Before(poll) {
            stop.fire();
        }
        match wakes.poll(stream.as_mut()) {
            Poll::Pending => {
                output.push('-');
                assert_eq!(wakes.count(), 0, "S2, no wake-up of its own: {case}");
                if at == At::Before(poll + 1) {
                    stop.fire();
                    assert_eq!(wakes.count(), 1, "S8: {case}");
                } else if at == At::Never {
                    record.wake();
                    assert_eq!(wakes.count(), 1, "S2, the source's wake-up: {case}");
                }
            }
            Poll::Ready(Some(item)) => output.push(item),
            Poll::Ready(None) => {
                assert!(record.is_dropped(), "S6: {case}");
                output.push(if stream.reason().is_some() { 'X' } else { '|' });
                check_over(&mut stream, &stop, &record, &case);
                break;
            }
        }
    }
    (output, record.polls())
}

fn check_over(stream: &mut Stream, stop: &Stop, record: &Record, case: &str) {
    let polls = record.polls();
    let was_stopped = stream.reason().is_some();
    for _ in 0..3 {
        assert!(stream.is_terminated(), "S7: {case}");
        assert_eq!(stream.size_hint(), (0, Some(0)), "S10: {case}");
        assert_eq!(
            Wakes::new().poll(stream.as_mut()),
            Poll::Ready(None),
            "S7: {case}"
        );
        stop.fire();
        assert_eq!(stream.reason().is_some(), was_stopped, "S12: {case}");
    }
    assert_eq!(record.polls(), polls, "S5: {case}");
    assert!(record.is_dropped(), "dropped once: {case}");
}

/// How long the scripts are: Miri is slow.
const LENGTH: usize = if cfg!(miri) { 3 } else { 5 };

fn for_all_stops(check: impl Fn(&Wrap, &str, At)) {
    for script in scripts("a-|", LENGTH) {
        // Letters after the end say nothing, and letters of their own tell the items apart.
        if script.find('|').is_some_and(|end| end + 1 < script.len()) {
            continue;
        }
        let mut letters = 'a'..='z';
        let script: String = script
            .chars()
            .map(|c| if c == 'a' { letters.next().unwrap() } else { c })
            .collect();
        for wrap in WRAPS {
            check(wrap, &script, At::Never);
            for poll in 0..=script.len() {
                check(wrap, &script, At::Before(poll));
                check(wrap, &script, At::During(poll));
            }
        }
    }
}

#[test]
fn every_short_script_stops_as_the_laws_say_wherever_it_is_fired() {
    for_all_stops(|wrap, script, at| {
        let case = format!("{} on {script:?}, fired {at:?}", wrap.name);
        assert_eq!(run(wrap, script, at), expected(script, at), "{case}");
    });
}

#[test]
fn dropping_at_any_point_drops_the_source_and_leaves_the_token_alone() {
    for_all_stops(|wrap, script, at| {
        if at != At::Never {
            return;
        }
        for polls in 0..=script.len() {
            let stop = Arc::new(Stop::default());
            let source = Source::new(script);
            let record = source.record();
            let mut stream = (wrap.wrap)(source, &stop);
            let wakes = Wakes::new();
            for _ in 0..polls {
                let _ = wakes.poll(stream.as_mut());
            }
            drop(stream);
            assert!(record.is_dropped(), "S9: {} on {script:?}", wrap.name);
            assert!(!stop.token.is_cancelled());
            stop.fire();
            assert_eq!(wakes.count(), 0, "a dropped stream is woken: {}", wrap.name);
        }
    });
}

#[test]
fn a_panic_of_the_source_passes_through_once_and_then_the_stream_is_over() {
    for wrap in WRAPS {
        for script in ["!abc|", "ab!cd|", "a-!b|"] {
            let stop = Arc::new(Stop::default());
            let source = Source::new(script);
            let record = source.record();
            let mut stream = (wrap.wrap)(source, &stop);
            let at = script.find('!').unwrap();
            for _ in 0..at {
                let _ = Wakes::new().poll(stream.as_mut());
            }
            let message = panic_of(|| Wakes::new().poll(stream.as_mut()));
            assert_eq!(message, "the script says so");
            let case = format!("{} on {script:?}", wrap.name);
            // The stop comes too late to be the reason.
            stop.fire();
            assert_eq!(
                Wakes::new().poll(stream.as_mut()),
                Poll::Ready(None),
                "S13: {case}"
            );
            assert!(stream.reason().is_none(), "S12: {case}");
            check_over(&mut stream, &stop, &record, &case);
            assert_eq!(record.polls(), at + 1, "S5: {case}");
        }
    }
}

#[test]
fn a_panic_in_the_drop_of_the_source_passes_through_once_and_then_the_stream_is_over() {
    for wrap in WRAPS {
        for (script, stopped) in [("a-", true), ("a|", false)] {
            let stop = Arc::new(Stop::default());
            let source = Source::with_hook(script, |moment| {
                assert!(moment != Moment::Drop, "dropped as the script says");
            });
            let record = source.record();
            let mut stream = (wrap.wrap)(source, &stop);
            let wakes = Wakes::new();
            assert_eq!(wakes.poll(stream.as_mut()), Poll::Ready(Some('a')));
            if stopped {
                stop.fire();
            }
            let message = panic_of(|| wakes.poll(stream.as_mut()));
            assert_eq!(message, "dropped as the script says", "{}", wrap.name);
            assert_eq!(stream.reason().is_some(), stopped, "{}", wrap.name);
            check_over(&mut stream, &stop, &record, wrap.name);
        }
    }
}

#[test]
fn a_source_that_panics_in_its_poll_and_in_its_drop_does_so_one_after_the_other() {
    for wrap in WRAPS {
        // In a generator the body, and the source in it, goes while the first panic unwinds: that is the language's.
        if wrap.name.starts_with("generator") {
            continue;
        }
        let source = Source::with_hook("!", |moment| {
            assert!(moment != Moment::Drop, "dropped as the script says");
        });
        let mut stream = (wrap.wrap)(source, &Arc::default());
        let wakes = Wakes::new();
        assert_eq!(
            panic_of(|| wakes.poll(stream.as_mut())),
            "the script says so"
        );
        assert!(stream.is_terminated());
        assert_eq!(
            panic_of(|| wakes.poll(stream.as_mut())),
            "dropped as the script says"
        );
        assert_eq!(wakes.poll(stream.as_mut()), Poll::Ready(None));
    }
}

#[test]
fn an_always_ready_source_yields_after_1024_items_in_a_row_and_wakes_itself() {
    for wrap in WRAPS {
        let script: String = "a".repeat(1024) + "-" + &"a".repeat(3000);
        let stop = Arc::new(Stop::default());
        let source = Source::new(&script);
        let record = source.record();
        let mut stream = (wrap.wrap)(source, &stop);
        let mut rows = vec![0];
        for _ in 0..3000 {
            let wakes = Wakes::new();
            let polls = record.polls();
            match wakes.poll(stream.as_mut()) {
                Poll::Ready(Some(_)) => *rows.last_mut().unwrap() += 1,
                Poll::Ready(None) => unreachable!(),
                Poll::Pending => {
                    let yielded = record.polls() == polls;
                    assert_eq!(wakes.count(), usize::from(yielded), "{}", wrap.name);
                    rows.push(0);
                }
            }
        }
        // The row before the pending one of the script is full, so that it yields there too.
        assert_eq!(rows[..4], [1024, 0, 1024, 949], "S11: {}", wrap.name);

        stop.fire();
        assert_eq!(
            Wakes::new().poll(stream.as_mut()),
            Poll::Ready(None),
            "{}",
            wrap.name
        );
    }
}

#[test]
fn a_sibling_on_the_same_thread_stops_an_always_ready_source() {
    // Without a runtime: two futures that take turns.
    for wrap in [&WRAPS[1], &WRAPS[2]] {
        let stop = Arc::new(Stop::default());
        let source = stream::repeat('a');
        let token = stop.token.child_token();
        let mut endless = match wrap.name.contains("when") {
            true => source
                .take_until_cancelled(signal::when(Arc::clone(&stop).fired()))
                .left_stream(),
            false => source.take_until_cancelled(token).right_stream(),
        };
        let drain = async { while endless.next().await.is_some() {} };
        futures::executor::block_on(futures::future::join(drain, async { stop.fire() }));
    }
}

#[test]
fn a_stop_from_the_drop_of_the_source_changes_nothing_any_more() {
    for wrap in WRAPS {
        let stop = Arc::new(Stop::default());
        let source = {
            let stop = Arc::clone(&stop);
            Source::with_hook("a|", move |moment| {
                if moment == Moment::Drop {
                    stop.fire();
                }
            })
        };
        let record = source.record();
        let mut stream = (wrap.wrap)(source, &stop);
        let wakes = Wakes::new();
        assert_eq!(wakes.poll(stream.as_mut()), Poll::Ready(Some('a')));
        assert_eq!(wakes.poll(stream.as_mut()), Poll::Ready(None));
        assert!(stream.reason().is_none(), "S12: {}", wrap.name);
        check_over(&mut stream, &stop, &record, wrap.name);
    }
}

#[test]
fn a_stop_that_is_fired_in_a_waker_finds_the_stream_pending_or_stops_its_next_poll() {
    struct Fires(Arc<Stop>, Mutex<bool>);

    impl std::task::Wake for Fires {
        fn wake(self: Arc<Self>) {
            self.0.fire();
            *self.1.lock().unwrap() = true;
        }
    }

    for wrap in WRAPS {
        let stop = Arc::new(Stop::default());
        let source = Source::new("a-b");
        let record = source.record();
        let mut stream = (wrap.wrap)(source, &stop);
        let fires = Arc::new(Fires(Arc::clone(&stop), Mutex::new(false)));
        let waker = std::task::Waker::from(Arc::clone(&fires));
        let mut cx = std::task::Context::from_waker(&waker);
        assert_eq!(stream.as_mut().poll_next(&mut cx), Poll::Ready(Some('a')));
        assert_eq!(stream.as_mut().poll_next(&mut cx), Poll::Pending);
        // The source wakes the stream, whose waker fires the stop, which wakes the stream once more.
        record.wake();
        assert!(*fires.1.lock().unwrap());
        assert_eq!(
            stream.as_mut().poll_next(&mut cx),
            Poll::Ready(None),
            "{}",
            wrap.name
        );
        assert!(record.is_dropped());
    }
}
