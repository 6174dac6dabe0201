//! Tools to test that a stream ends, when it should and as it should: of this crate, of another, or your own.
//!
//! A source of items is written as a [`Script`], a marble diagram in a line of text.

mod script;

pub use script::{ParseScriptError, Script, Step};
