//! What is measured: a row is some work, a case is one way to do it.

use std::array;

pub(crate) struct Row {
    pub(crate) work: String,
    /// Whether the first case is without an adapter: then the instructions of the others are those that they add to it.
    pub(crate) has_bare: bool,
    /// The numbers of operations of the two counted runs, whose difference is taken. `None` for work on several threads.
    pub(crate) counted: Option<[u64; 2]>,
    /// The number of operations of a timed run.
    pub(crate) timed: u64,
    /// The time of the others is compared with the first one's.
    pub(crate) cases: Vec<Case>,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Does the work this number of times.
    pub(crate) run: Box<dyn Fn(u64) + Sync>,
    /// By how many bytes the stream is larger than its source.
    pub(crate) size: Option<fn() -> usize>,
    /// The targets, for our cases.
    pub(crate) bars: &'static [(Quantity, f64)],
}

impl Row {
    /// The difference of two runs per operation. What happens once, such as starting up, cancels out.
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
    /// Per operation, in addition to the bare case if there is one.
    Instructions,
    /// The time relative to the first case.
    Ratio,
    Nanoseconds,
    Allocations,
    /// The number of allocations.
    Bytes,
    /// In bytes, in addition to the source.
    Size,
}

pub(crate) fn find<'a>(rows: &'a [Row], work: &str, name: &str) -> &'a Case {
    rows.iter()
        .filter(|row| row.work == work)
        .flat_map(|row| &row.cases)
        .find(|case| case.name == name)
        .expect("a row and a case that are listed")
}

/// The target, and whether it is met.
pub(crate) fn bar(limit_text: &str, limit: f64, measured: Option<f64>) -> String {
    match measured {
        None => format!("≤ {limit_text}"),
        // The printed figure counts.
        Some(measured) if (measured * 100.0).round() <= limit * 100.0 => {
            format!("≤ {limit_text} ✓")
        }
        Some(_) => format!("≤ {limit_text} **✗**"),
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
