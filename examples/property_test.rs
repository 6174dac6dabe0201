//! Tests a stream of your own against the laws: that it stops, drops what it owns, and loses nothing.
//!
//! ```text
//! cargo run --example property_test
//! ```
//!
//! In a project these are `#[test]` functions, with stopcock's feature `proptest` in `[dev-dependencies]`.

use futures::{Stream, StreamExt};
use proptest::{prelude::ProptestConfig as Config, proptest};
use stopcock::{
    CancelStreamExt, CancellationToken, StopReason,
    testing::{laws, strategy::plans},
};

/// The stream of an application.
fn answer(
    rows: impl Stream<Item = char>,
    request: CancellationToken,
) -> impl Stream<Item = Result<char, StopReason>> {
    rows.inspect(|_row| {}).with_cancellation(request)
}

/// All short scripts of items, pauses and ends, stopped at each possible point.
fn answer_keeps_the_laws() {
    laws::check_stop(|source, stop| answer(source, stop.token()));
    laws::stop_is_reported(|source, stop| answer(source, stop.token()));
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    /// Longer, random scripts.
    fn answer_keeps_the_laws_for_longer(plan in plans(50)) {
        laws::try_plan(&plan, |source, stop| answer(source, stop.token()))?;
    }
}

fn main() {
    answer_keeps_the_laws();
    answer_keeps_the_laws_for_longer();
    println!("`answer` keeps the laws\n");

    // What a failing test prints.
    let report =
        laws::report_stop(|source, stop| source.take_until(stop.token().cancelled_owned()));
    for broken in report.broken() {
        println!("{broken}\n");
    }
}
