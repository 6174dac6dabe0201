use crate::StopReason;
use http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

/// Makes the response to a request that was stopped before its handler responded.
///
/// It is a closure `|reason: &StopReason| -> Response<B>`, or [`DefaultOnStop`].
pub trait OnStop<B> {
    #[doc(hidden)]
    fn respond(&self, reason: &StopReason, is_grpc: bool) -> Response<B>;
}

impl<B, F: Fn(&StopReason) -> Response<B>> OnStop<B> for F {
    fn respond(&self, reason: &StopReason, _: bool) -> Response<B> {
        self(reason)
    }
}

/// The default response to a stopped request: `504 Gateway Timeout` after a [timeout](StopReason::is_timeout),
/// otherwise `503 Service Unavailable`. For gRPC, the `grpc-status` is 4 (`DEADLINE_EXCEEDED`) or 14 (`UNAVAILABLE`).
///
/// The body is `B::default()`, which has to be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultOnStop;

impl<B: Default> OnStop<B> for DefaultOnStop {
    fn respond(&self, reason: &StopReason, is_grpc: bool) -> Response<B> {
        let mut response = Response::new(B::default());
        let (http_status, grpc_status) = match reason.is_timeout() {
            true => (StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            false => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        };
        if !is_grpc {
            *response.status_mut() = http_status;
            return response;
        }
        // "Trailers-Only": the trailers are in the head, and there is nothing else.
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from_static(grpc_status));
        response
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

const DEADLINE_EXCEEDED: &str = "4";

const UNAVAILABLE: &str = "14";
