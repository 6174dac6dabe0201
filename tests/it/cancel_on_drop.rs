//! `cancel_on_drop`: it cancels when it is dropped before its end, and only then.

use crate::support::{panic_of, poll};
use futures::{Stream, stream};
use std::{cell::Cell, pin::pin, rc::Rc, task::Poll};
use stopcock::{
    CancelStreamExt, CancelTarget, CancellationToken, StopReason,
    testing::{Moment, Source, laws},
};

fn is_fired(token: &CancellationToken) -> bool {
    match token.stop_reason() {
        None => false,
        Some(StopReason::ConsumerDropped) => true,
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn dropped_unfinished_it_drops_its_source_and_then_cancels() {
    for polls in 0..4 {
        let token = CancellationToken::new();
        let source = Source::new("a-b|").with_hook({
            let token = token.clone();
            move |moment| assert!(moment != Moment::Drop || !token.is_cancelled())
        });
        let record = source.record();
        let mut body = source.cancel_on_drop(token.clone());
        for _ in 0..polls {
            let _ = poll(pin!(&mut body));
        }
        assert!(!is_fired(&token));
        drop(body);
        assert!(record.is_dropped());
        assert!(is_fired(&token), "after {polls} polls");
    }
}

#[test]
fn after_the_end_it_does_not_cancel_the_token() {
    let token = CancellationToken::new();
    let mut body = Source::new("a|").cancel_on_drop(token.clone());
    assert_eq!(poll(pin!(&mut body)), Poll::Ready(Some('a')));
    assert_eq!(poll(pin!(&mut body)), Poll::Ready(None));
    assert!(body.stop_reason().is_none());
    drop(body);
    assert!(!is_fired(&token));
}

#[test]
fn a_panic_is_no_end() {
    let token = CancellationToken::new();
    let mut body = Source::new("a!").cancel_on_drop(token.clone());
    assert_eq!(poll(pin!(&mut body)), Poll::Ready(Some('a')));
    assert_eq!(panic_of(|| poll(pin!(&mut body))), "the script says so");
    assert!(!is_fired(&token));
    drop(body);
    assert!(is_fired(&token));
}

#[test]
fn a_source_that_panics_in_its_drop_does_not_keep_the_others_running() {
    let token = CancellationToken::new();
    let source = Source::new("a").with_hook(|moment| assert!(moment != Moment::Drop, "dropped"));
    let body = source.cancel_on_drop(token.clone());
    assert_eq!(panic_of(|| drop(body)), "dropped");
    assert!(is_fired(&token));
}

#[test]
fn a_reason_that_was_there_before_stays() {
    let token = CancellationToken::new();
    let body = Source::new("a").cancel_on_drop(token.clone());
    token.cancel_with("enough");
    drop(body);
    assert_eq!(token.stop_reason().unwrap().to_string(), "enough");
}

#[test]
fn its_own_token_may_stop_what_is_below_it() {
    let token = CancellationToken::new();
    let source = Source::new("a~");
    let record = source.record();
    let body = source
        .take_until_cancelled(&token)
        .cancel_on_drop(token.clone());
    drop(body);
    assert!(record.is_dropped());
    assert!(is_fired(&token));
}

#[test]
fn a_token_of_tokio_util_is_cancelled_as_well() {
    let token = tokio_util::sync::CancellationToken::new();
    let mut finished = Source::new("|").cancel_on_drop(token.clone());
    assert_eq!(poll(pin!(&mut finished)), Poll::Ready(None));
    drop(finished);
    assert!(!token.is_cancelled());
    drop(Source::new("a").cancel_on_drop(token.clone()));
    assert!(token.is_cancelled());
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn the_task_behind_an_abort_handle_is_aborted() {
    let task = tokio::spawn(std::future::pending::<()>());
    let source = Source::new("a").with_hook({
        let task = task.abort_handle();
        move |moment| assert!(moment != Moment::Drop || !task.is_finished())
    });
    drop(source.cancel_on_drop(task.abort_handle()));
    assert!(task.await.unwrap_err().is_cancelled());
}

/// A target of an application.
struct Flag(Rc<Cell<bool>>);

impl CancelTarget for Flag {
    fn cancel_for(self, reason: StopReason) {
        assert!(matches!(reason, StopReason::ConsumerDropped));
        self.0.set(true);
    }
}

#[test]
fn a_target_may_be_anything() {
    let is_cancelled = Rc::new(Cell::new(false));
    drop(Source::new("a").cancel_on_drop(Flag(Rc::clone(&is_cancelled))));
    assert!(is_cancelled.get());
}

#[test]
fn it_keeps_the_laws_of_any_stream() {
    laws::check_stream(|source| source.cancel_on_drop(CancellationToken::new()));
    laws::dropped_first(|source, _| source.cancel_on_drop(CancellationToken::new()));
}

#[test]
fn it_gives_at_most_what_its_source_gives() {
    let body = stream::iter(0..3).cancel_on_drop(CancellationToken::new());
    assert_eq!(body.size_hint(), (0, Some(3)));
}
