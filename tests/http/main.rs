//! The layers of `stopcock::http`.

mod body;
mod request;
mod support;
