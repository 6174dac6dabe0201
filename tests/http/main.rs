//! The layers of `stopcock::http`.

mod body;
mod chain;
mod heap;
mod network;
mod propagate;
mod request;
mod server;
mod support;
