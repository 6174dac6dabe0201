//! Strategies for property tests: they shrink towards short scripts and early stops.
//!
//! # Examples
//!
//! ```
//! use proptest::proptest;
//! use stopcock::{CancelStreamExt, testing::{laws, strategy::plans}};
//!
//! proptest! {
//!     fn it_keeps_every_law(plan in plans(20)) {
//!         laws::try_plan(&plan, |source, stop| source.take_until_cancelled(stop.token()))?;
//!     }
//! }
//! # it_keeps_every_law();
//! ```

use super::{Plan, Script, Step, StopPoint};
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any},
    prop_oneof,
};

/// Scripts of up to `steps` items and `-`, in most cases with a last step. The items are `a`, `b`, `c` and so on.
pub fn scripts(steps: usize) -> impl Strategy<Value = Script> {
    let step = prop_oneof![2 => Just(Step::Item('a')), 1 => Just(Step::Pending)];
    let last = prop_oneof![
        3 => Just(Some(Step::End)),
        1 => Just(None),
        1 => Just(Some(Step::Panic)),
        1 => Just(Some(Step::Never)),
    ];
    (vec(step, 0..=steps), last).prop_map(|(mut steps, last)| {
        steps.extend(last);
        Script::from_steps(steps).relabelled()
    })
}

/// Points at which a stream over a script of up to `steps` steps may be stopped.
///
/// If a point is never reached, the stop is fired after the end of the stream, where it must not change anything.
pub fn stop_points(steps: usize) -> impl Strategy<Value = StopPoint> {
    prop_oneof![
        1 => Just(StopPoint::AtBirth),
        4 => (0..=steps + 1).prop_map(StopPoint::Before),
        3 => (0..=steps).prop_map(StopPoint::During),
        1 => (0..=steps).prop_map(StopPoint::InWaker),
        1 => Just(StopPoint::InDrop),
        1 => Just(StopPoint::Never),
    ]
}

/// Plans with scripts of up to `steps` steps.
pub fn plans(steps: usize) -> impl Strategy<Value = Plan> {
    let drop_after = option::weighted(0.2, 0..=steps);
    (
        scripts(steps),
        stop_points(steps),
        any::<bool>(),
        drop_after,
    )
        .prop_map(|(script, stop, changes_wakers, drop_after)| Plan {
            changes_wakers,
            drop_after,
            ..Plan::new(script, stop)
        })
}
