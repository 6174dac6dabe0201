use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONTENT_TYPE, UPGRADE},
};

/// The properties of a request that its response depends on.
#[derive(Clone, Copy)]
pub(super) struct RequestInfo {
    pub(super) is_grpc: bool,
    has_upgrade: bool,
    is_connect: bool,
    is_head: bool,
}

impl RequestInfo {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let (method, headers) = (request.method(), request.headers());
        Self {
            is_grpc: is_grpc(headers),
            has_upgrade: headers.contains_key(UPGRADE),
            is_connect: *method == Method::CONNECT,
            is_head: *method == Method::HEAD,
        }
    }

    /// Whether the connection may switch to another protocol.
    pub(super) fn may_upgrade(&self) -> bool {
        self.has_upgrade || self.is_connect
    }

    /// Whether the connection switches to another protocol with a response of this status.
    pub(super) fn is_upgrade(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success())
    }

    /// Whether a response of this status is complete with its head.
    pub(super) fn has_no_body(&self, status: StatusCode) -> bool {
        self.is_head
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
    }
}

/// Not `true` for gRPC-Web, whose clients read the HTTP status.
fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let value = headers
        .get(CONTENT_TYPE)
        .map_or(&[][..], |value| value.as_bytes());
    match value.split_at_checked(GRPC.len()) {
        Some((start, rest)) => {
            start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
        }
        None => false,
    }
}
