use super::{
    call::Call, in_flight::InFlight, on_stop::OnStop, request_body::RequestTokenBody,
    request_info::RequestInfo,
};
use http::Response;
use http_body::Body;
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    panic::Location,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The future of [`RequestToken`](super::RequestToken).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct RequestTokenFuture<Fut, F> {
    /// Dropped before `in_flight`, which cancels the token.
    #[pin]
    call: Call<Fut>,
    /// `None` once it is ready.
    in_flight: Option<InFlight>,
    request_info: RequestInfo,
    on_stop: F,
    made_at: &'static Location<'static>,
}

impl<Fut, F> RequestTokenFuture<Fut, F> {
    pub(super) fn new(
        call: Call<Fut>,
        in_flight: InFlight,
        request_info: RequestInfo,
        on_stop: F,
        made_at: &'static Location<'static>,
    ) -> Self {
        Self {
            call,
            in_flight: Some(in_flight),
            request_info,
            on_stop,
            made_at,
        }
    }
}

impl<Fut, F, B, E> Future for RequestTokenFuture<Fut, F>
where
    Fut: Future<Output = Result<Response<B>, E>>,
    B: Body + Send + 'static,
    F: OnStop<B>,
{
    type Output = Result<Response<RequestTokenBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let begin_body = |response| match this.in_flight.take() {
            Some(in_flight) => {
                RequestTokenBody::begin(response, in_flight, *this.request_info, this.made_at)
            }
            None => unreachable!("a call has one output"),
        };
        let polled = this.call.poll_then(cx, |output| output.map(begin_body));
        // By now the call has been dropped.
        Poll::Ready(match ready!(polled) {
            Ok(Ok(mut response)) => {
                response.body_mut().note_progress();
                Ok(response)
            }
            Ok(Err(error)) => {
                this.in_flight.take().into_iter().for_each(InFlight::finish);
                Err(error)
            }
            Err(reason) => {
                *this.in_flight = None;
                let response = this.on_stop.respond(&reason, this.request_info.is_grpc);
                Ok(response.map(RequestTokenBody::unguarded))
            }
        })
    }
}

impl<Fut, F> Debug for RequestTokenFuture<Fut, F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTokenFuture")
            .field("is_over", &self.in_flight.is_none())
            .finish_non_exhaustive()
    }
}
