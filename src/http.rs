//! The request's token: tower layers for servers and clients of HTTP.

mod asked;
mod body_signal;
mod call;
mod cut_body;
mod grpc_timeout;
mod on_stop;
mod propagate_body;
mod propagate_future;
mod propagate_token;
mod request_body;
mod request_future;
mod request_token;
mod steps;
mod under_way;

pub use on_stop::{DefaultOnStop, OnStop};
pub use propagate_body::PropagateTokenBody;
pub use propagate_future::PropagateTokenFuture;
pub use propagate_token::{PropagateToken, PropagateTokenLayer};
pub use request_body::RequestTokenBody;
pub use request_future::RequestTokenFuture;
pub use request_token::{RequestToken, RequestTokenLayer};

use std::error::Error;

/// What the errors of bodies and calls are turned into.
type BoxError = Box<dyn Error + Send + Sync>;
