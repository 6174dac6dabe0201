//! Adapters that break the law of `drop_on_cancel`.

use super::caught;
use futures::Stream;
use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use stopcock::{
    CancellationToken, Registration, StopReason,
    testing::{
        Source,
        laws::{self, Law},
    },
};

/// What a `drop_on_cancel` adapter does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum DropOnCancelFault {
    None,
    WaitsForAPoll,
    WaitsForTheNextPollIfStoppedInOne,
    WaitsForItsFirstPoll,
    OverlooksAStopBeforeItWasMade,
    DropsOnlyWhatIsPending,
}

/// The source of a `drop_on_cancel` adapter, shared with the thread that cancels.
struct Place {
    fault: DropOnCancelFault,
    source: Option<Source>,
    is_stopped: bool,
    is_pending: bool,
}

/// An adapter that keeps the law, except for its fault, on a single thread.
struct DropOnCancel {
    fault: DropOnCancelFault,
    token: CancellationToken,
    place: Arc<Mutex<Place>>,
    closing: Option<Registration>,
}

impl DropOnCancel {
    fn new(fault: DropOnCancelFault, source: Source, token: CancellationToken) -> Self {
        let place = Place {
            fault,
            source: Some(source),
            is_stopped: false,
            is_pending: false,
        };
        let mut this = Self {
            fault,
            token,
            place: Arc::new(Mutex::new(place)),
            closing: None,
        };
        match fault {
            DropOnCancelFault::WaitsForItsFirstPoll => {}
            DropOnCancelFault::OverlooksAStopBeforeItWasMade if this.token.is_cancelled() => {}
            _ => this.register(),
        }
        this
    }

    fn register(&mut self) {
        let place = Arc::clone(&self.place);
        let close = move |_: &StopReason| {
            let mut place = place.lock().unwrap();
            place.is_stopped = true;
            let source = match place.fault {
                DropOnCancelFault::WaitsForAPoll => None,
                DropOnCancelFault::DropsOnlyWhatIsPending if !place.is_pending => None,
                _ => place.source.take(),
            };
            drop(place);
            drop(source);
        };
        self.closing = Some(self.token.on_cancel(close));
    }
}

impl Stream for DropOnCancel {
    type Item = char;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<char>> {
        if self.closing.is_none() {
            self.register();
        }
        let mut place = self.place.lock().unwrap();
        let was_stopped = mem::replace(&mut place.is_stopped, false);
        let source = place.source.take();
        drop(place);
        let Some(mut source) = source.filter(|_| !was_stopped) else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut source).poll_next(cx);
        let mut place = self.place.lock().unwrap();
        place.is_pending = polled.is_pending();
        let waits = self.fault == DropOnCancelFault::WaitsForTheNextPollIfStoppedInOne;
        if (place.is_stopped && !waits) || polled == Poll::Ready(None) {
            drop(place);
            drop(source);
            return match polled {
                Poll::Pending => Poll::Ready(None),
                polled => polled,
            };
        }
        place.source = Some(source);
        polled
    }
}

#[test]
fn each_fault_of_drop_on_cancel_is_caught() {
    let faults = [
        DropOnCancelFault::None,
        DropOnCancelFault::WaitsForAPoll,
        DropOnCancelFault::WaitsForTheNextPollIfStoppedInOne,
        DropOnCancelFault::WaitsForItsFirstPoll,
        DropOnCancelFault::OverlooksAStopBeforeItWasMade,
        DropOnCancelFault::DropsOnlyWhatIsPending,
    ];
    let wrong = caught(Law::DropOnCancel, &faults, |fault| {
        laws::drop_on_cancel(|source, stop| DropOnCancel::new(fault, source, stop.token()));
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
