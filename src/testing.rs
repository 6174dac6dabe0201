//! Tools to test that a stream ends, when it should and as it should: of this crate, of another, or your own.
//!
//! A source of items is written as a [`Script`], a marble diagram in a line of text.

pub mod laws;
#[cfg(feature = "proptest")]
#[cfg_attr(docsrs, doc(cfg(feature = "proptest")))]
pub mod strategy;

mod clock;
mod diagram;
mod harness;
mod leak;
mod plan;
mod probe;
mod record;
mod script;
mod source;
mod stop;
mod subject;

pub use harness::Harness;
pub use leak::{DropProbe, Probes, assert_no_leak};
pub use plan::Plan;
pub use probe::{Moment, Probe};
pub use record::{Event, Output, Record, View};
pub use script::{ParseScriptError, Script, Step};
pub use source::Source;
pub use stop::{Stop, StopPoint};
pub use subject::{Letter, Stoppable};
