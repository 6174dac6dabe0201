use super::{
    BoxError, in_flight::InFlight, request_info::RequestInfo, stoppable_body::StoppableBody,
};
use crate::signal::TokenSignal;
use bytes::Buf;
use http::{HeaderMap, Response, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt::{self, Debug, Formatter},
    panic::Location,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The name of a request in the [`holders`](crate::CancellationToken::holders) of the server's token.
pub(super) const WHAT: &str = "RequestTokenLayer";

/// The body of a response under [`RequestTokenLayer`](super::RequestTokenLayer).
pub struct RequestTokenBody<B> {
    /// Dropped before `in_flight`, which cancels the token.
    body: StoppableBody<B>,
    /// `None` once the response is complete.
    in_flight: Option<InFlight>,
    /// The number of bytes that are still missing of the announced length.
    missing: Option<u64>,
}

impl<B: Body> RequestTokenBody<B> {
    /// The body of a response that the handler has just made.
    pub(super) fn begin(
        response: Response<B>,
        in_flight: InFlight,
        request_info: RequestInfo,
        made_at: &'static Location<'static>,
    ) -> Response<Self>
    where
        B: Send + 'static,
    {
        let (head, body) = response.into_parts();
        if request_info.is_upgrade(head.status) {
            in_flight.release_to_server();
            return Response::from_parts(head, Self::unguarded(body));
        }
        if request_info.has_no_body(head.status) {
            let body = Self::new(StoppableBody::dropped(body), Some(in_flight), None);
            return Response::from_parts(head, body);
        }
        let missing = length(&head.headers, &body);
        let body = match missing {
            // An empty body may have trailers.
            Some(0) => StoppableBody::unguarded(body),
            _ => StoppableBody::guarded(body, || {
                TokenSignal::made_at(in_flight.token().clone(), WHAT, made_at)
            }),
        };
        Response::from_parts(head, Self::new(body, Some(in_flight), missing))
    }

    /// The body of a response that nothing stops.
    pub(super) fn unguarded(body: B) -> Self {
        Self::new(StoppableBody::unguarded(body), None, None)
    }

    fn new(body: StoppableBody<B>, in_flight: Option<InFlight>, missing: Option<u64>) -> Self {
        Self {
            body,
            in_flight,
            missing,
        }
    }

    /// Cancels the token once the response is complete.
    pub(super) fn note_progress(&mut self) {
        let is_complete = self.missing == Some(0) || self.body.is_over();
        if let Some(in_flight) = self.in_flight.take_if(|_| is_complete) {
            // The server may still poll it for its trailers and its end, which must not be stopped any more.
            self.body.release();
            in_flight.finish();
        }
    }
}

/// The length that is announced to the client: by the header, or else by the exact size, of which hyper makes a header.
fn length(headers: &HeaderMap, body: &impl Body) -> Option<u64> {
    match headers.get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None => body.size_hint().exact(),
    }
}

impl<B> Body for RequestTokenBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let polled = ready!(self.body.poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            self.count(frame);
        }
        self.note_progress();
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> RequestTokenBody<B> {
    fn count(&mut self, frame: &Frame<B::Data>) {
        if let (Some(missing), Some(data)) = (&mut self.missing, frame.data_ref()) {
            *missing = missing.saturating_sub(data.remaining() as u64);
        }
    }
}

/// The default body, which nothing stops: for an outer layer that makes responses of its own.
impl<B: Body + Default> Default for RequestTokenBody<B> {
    fn default() -> Self {
        Self::unguarded(B::default())
    }
}

impl<B> Debug for RequestTokenBody<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTokenBody")
            .field("is_complete", &self.in_flight.is_none())
            .finish_non_exhaustive()
    }
}
