//! The layers of `stopcock::http`.

mod body;
mod propagate;
mod request;
mod support;
