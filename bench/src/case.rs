//! What is measured: a row is some work, a case one way to do it.

use std::array;

pub(crate) struct Row {
    pub(crate) work: String,
    /// Whether the first case does without an adapter, so that instructions are told as what is added to it.
    pub(crate) has_bare: bool,
    /// How many operations the two counted runs have, of which the difference is taken. Threads are not counted.
    pub(crate) counted: Option<[u64; 2]>,
    /// How many operations a timed run has.
    pub(crate) timed: u64,
    /// The first is what the others' time is compared with.
    pub(crate) cases: Vec<Case>,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Does the work so many times.
    pub(crate) run: Box<dyn Fn(u64) + Sync>,
    /// How many bytes the stream is larger than its source.
    pub(crate) size: Option<fn() -> usize>,
    /// What it is held to: ours only.
    pub(crate) bars: &'static [(Quantity, f64)],
}

impl Row {
    /// What is one operation's of the difference, in which starting up and all that happens once cancels out.
    pub(crate) fn per_operation<const N: usize>(
        &self,
        count: impl Fn(u64) -> [u64; N],
    ) -> Option<[f64; N]> {
        let [few, many] = self.counted?;
        let (small, large) = (count(few), count(many));
        Some(array::from_fn(|i| {
            (large[i] as f64 - small[i] as f64) / (many - few) as f64
        }))
    }
}

impl Case {
    pub(crate) fn new(name: &'static str, run: impl Fn(u64) + Sync + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            size: None,
            bars: &[],
        }
    }

    pub(crate) fn size(mut self, size: fn() -> usize) -> Self {
        self.size = Some(size);
        self
    }

    pub(crate) fn bars(mut self, bars: &'static [(Quantity, f64)]) -> Self {
        self.bars = bars;
        self
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Quantity {
    /// Per operation, over the bare case if there is one.
    Instructions,
    /// The time, as a ratio to the first case.
    Ratio,
    Nanoseconds,
    Allocations,
    /// That were allocated.
    Bytes,
    /// In bytes, over the source.
    Size,
}

pub(crate) fn find<'a>(rows: &'a [Row], work: &str, name: &str) -> &'a Case {
    rows.iter()
        .filter(|row| row.work == work)
        .flat_map(|row| &row.cases)
        .find(|case| case.name == name)
        .expect("a row and a case that are listed")
}

/// The bar, and whether it is met.
pub(crate) fn bar(limit_told: &str, limit: f64, measured: Option<f64>) -> String {
    match measured {
        None => format!("≤ {limit_told}"),
        // What it is printed as is what counts.
        Some(measured) if (measured * 100.0).round() <= limit * 100.0 => {
            format!("≤ {limit_told} ✓")
        }
        Some(_) => format!("≤ {limit_told} **✗**"),
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
