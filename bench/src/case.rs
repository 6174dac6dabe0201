//! What is measured: a row is some work, a case one way to do it.

pub(crate) struct Row {
    pub(crate) work: &'static str,
    /// Whether the first case does without an adapter, so that instructions are told as what is added to it.
    pub(crate) has_bare: bool,
    /// How many operations a run counts: so many, and three times so many, of which the difference is taken.
    pub(crate) counted: u64,
    /// How many operations a timed run has.
    pub(crate) timed: u64,
    /// The first is what the others' time is compared with.
    pub(crate) cases: Vec<Case>,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Does the work so many times.
    pub(crate) run: fn(u64),
    /// How many bytes the stream is larger than its source.
    pub(crate) size: Option<fn() -> usize>,
    /// What it is held to: ours only.
    pub(crate) bars: &'static [(Quantity, f64)],
}

impl Case {
    pub(crate) const fn new(name: &'static str, run: fn(u64)) -> Self {
        Self {
            name,
            run,
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

pub(crate) fn find(rows: &[Row], work: &str, name: &str) -> fn(u64) {
    rows.iter()
        .filter(|row| row.work == work)
        .flat_map(|row| &row.cases)
        .find(|case| case.name == name)
        .expect("a row and a case that are listed")
        .run
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
