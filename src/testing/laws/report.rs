use super::Law;
use crate::testing::{Plan, Record};
use std::{
    error::Error,
    fmt::{self, Display, Formatter},
};

/// A law that a stream breaks, and how.
#[derive(Clone, Debug)]
pub struct Broken {
    pub(super) law: Law,
    pub(super) plan: Plan,
    pub(super) record: Record,
    pub(super) expected: String,
}

impl Broken {
    /// The law.
    pub fn law(&self) -> Law {
        self.law
    }

    /// The smallest plan found that breaks the law.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What happened in a run of this plan.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            law,
            plan,
            record,
            expected,
        } = self;
        writeln!(f, "the law `{law}` is broken: {}\n", law.statement())?;
        for line in record.to_string().lines() {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "\n{plan}")?;
        write!(f, "expected {expected}")
    }
}

impl Error for Broken {}

/// The result of a check, law by law.
#[derive(Clone, Debug)]
#[must_use = "a report says which laws are broken"]
pub struct Report {
    pub(super) held: Vec<Law>,
    pub(super) broken: Vec<Broken>,
    /// How the stream has misused its stop, if it has.
    pub(super) misuse: Option<&'static str>,
}

impl Report {
    /// The laws that hold.
    pub fn held(&self) -> &[Law] {
        &self.held
    }

    /// The laws that are broken.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// The result for one law; `None` if it was not checked, or does not apply to the stream.
    pub fn of(&self, law: Law) -> Option<Result<(), &Broken>> {
        let broken = self.broken.iter().find(|broken| broken.law == law);
        let holds = || self.held.contains(&law).then_some(Ok(()));
        broken.map(Err).or_else(holds)
    }

    #[track_caller]
    pub(super) fn assert(&self) {
        if self.broken.is_empty() {
            return;
        }
        let hint = self.misuse.map(str::to_owned);
        let broken = self.broken.iter().map(ToString::to_string);
        let lines: Vec<_> = hint.into_iter().chain(broken).collect();
        panic!("{}\n", lines.join("\n\n"));
    }
}
