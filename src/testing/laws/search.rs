//! Runs a stream through the plans of a check, and finds the smallest run that breaks a law.

use super::{
    Broken, Law, Report,
    trace::{Claim, Tier, Trace},
};
use crate::testing::{
    Letter, Plan, Script, Source, Stop, StopPoint, Stoppable,
    plan::{Run, Stage, Wrap},
    subject::Lettered,
};
use futures_core::Stream;
use std::time::Duration;

/// All scripts of up to this length are tried. Miri is slow.
pub(super) const STEPS: usize = if cfg!(miri) { 2 } else { 4 };

/// The same for the laws in which time passes.
const STEPS_IN_TIME: usize = if cfg!(miri) { 1 } else { 3 };

/// The number of longer, random plans.
const LONGER: u64 = if cfg!(miri) { 4 } else { 256 };
/// Checks a stream against some laws.
#[track_caller]
pub(super) fn examine(laws: &[Law], tier: Tier, wrap: Wrap<'_>) -> Report {
    let stage = Stage::new(wrap);
    let first = first(&stage, laws);
    let is_timed = first.is_timed;
    assert!(
        !is_timed || !laws.contains(&Law::DropOnCancel),
        "the law `drop_on_cancel` is about a token that is cancelled: take the token from the stop, not a point in time"
    );
    let paced = Plan::paced().filter(|_| is_timed);
    let long = Plan::always_ready().chain(Plan::ready_until_the_end());
    let long = long.chain(paced).filter(|_| !cfg!(miri));
    // The long ones last, as these are not made smaller.
    let plans = Plan::all(STEPS)
        .chain((0..LONGER).map(Plan::random))
        .chain(long);
    check_plans_for(laws, plans, tier, &first, &stage)
}

/// Checks a stream against a law that is about a length of time.
#[track_caller]
#[cfg_attr(
    not(feature = "tokio"),
    allow(dead_code, reason = "there is no clock for it")
)]
pub(super) fn examine_in_time(law: Law, time: Duration, tier: Tier, wrap: Wrap<'_>) -> Report {
    let stage = Stage::new(wrap);
    let first = first(&stage, &[law]);
    assert!(
        !first.is_timed,
        "the law `{law}` is about a token and the time after its cancel: take the token from the stop, not a point in time"
    );
    let random = (0..LONGER).map(|seed| Plan::random_in_time(time, seed));
    let long = Plan::always_ready_in_time(time).filter(|_| !cfg!(miri));
    let plans = Plan::in_time(time, STEPS_IN_TIME).chain(random).chain(long);
    check_plans_for(&[law], plans, tier, &first, &stage)
}

/// A run that shows what the stream takes from its stop.
#[track_caller]
pub(super) fn first(stage: &Stage<'_>, laws: &[Law]) -> Run {
    stage.watch.laws(laws.iter().copied());
    Plan::new(Script::default(), StopPoint::Never).play(stage)
}

/// Checks which laws hold in all of the plans.
#[track_caller]
pub(super) fn check_plans_for(
    laws: &[Law],
    plans: impl Iterator<Item = Plan>,
    tier: Tier,
    first: &Run,
    stage: &Stage<'_>,
) -> Report {
    let applies = |law: &Law| first.is_timed || !law.is_of_time();
    let mut claims: Vec<_> = laws
        .iter()
        .copied()
        .filter(applies)
        .map(Claim::Keeps)
        .collect();
    // A panic of the stream's own code breaks any check.
    if !laws.contains(&Law::Panics) {
        claims.push(Claim::HasNoPanicOfItsOwn);
    }
    let mut broken = Vec::new();
    for plan in plans.filter(|plan| tier != Tier::Stream || plan.stop == StopPoint::Never) {
        if !claims.iter().any(|claim| matches!(claim, Claim::Keeps(_))) {
            break;
        }
        stage.watch.laws(claims.iter().map(|claim| claim.law()));
        let run = plan.play(stage);
        let trace = Trace::new(&plan, tier, &run);
        claims.retain(|claim| match trace.check(*claim) {
            Ok(()) => true,
            Err(expected) => {
                let found = Broken {
                    law: claim.law(),
                    plan: plan.clone(),
                    record: run.record.clone(),
                    expected,
                };
                broken.push(smallest(found, *claim, tier, stage));
                false
            }
        });
        if run.not_made.is_some() {
            // Nothing else is known of a stream that cannot be made.
            claims.clear();
        }
    }
    let held = claims.into_iter().filter_map(|claim| match claim {
        Claim::Keeps(law) => Some(law),
        Claim::HasNoPanicOfItsOwn => None,
    });
    Report {
        held: held.collect(),
        broken,
        misuse: first
            .misuse
            .filter(|_| tier != Tier::Stream && first.not_made.is_none()),
    }
}

/// Simplifies the plan as long as it still breaks the law.
fn smallest(mut found: Broken, claim: Claim, tier: Tier, stage: &Stage<'_>) -> Broken {
    let check = |plan: Plan| {
        let run = plan.play(stage);
        let expected = Trace::new(&plan, tier, &run).check(claim).err()?;
        Some(Broken {
            law: claim.law(),
            plan,
            record: run.record,
            expected,
        })
    };
    stage.watch.laws([claim.law()].into_iter());
    loop {
        let simpler = found.plan.simpler().find_map(check);
        match simpler {
            Some(simpler) => found = simpler,
            None => return found,
        }
    }
}

pub(super) fn report_of<S>(laws: &[Law], tier: Tier, wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stream,
    S::Item: Letter,
{
    examine(laws, tier, &|source, stop| {
        Box::pin(Lettered::new(wrap(source, stop)))
    })
}

pub(super) fn laws_of(tier: Tier) -> Vec<Law> {
    // Most streams promise nothing about what they do after a panic.
    let is_checked = |law: &Law| tier != Tier::Stream || *law != Law::Panics;
    let all = Law::ALL.into_iter().filter(|law| law.tier() <= tier);
    all.filter(is_checked).collect()
}

pub(super) fn report_of_stoppable<S>(laws: &[Law], wrap: impl Fn(Source, Stop) -> S) -> Report
where
    S: Stoppable,
    S::Item: Letter,
{
    examine(laws, Tier::Stoppable, &|source, stop| {
        Box::pin(Lettered::stoppable(wrap(source, stop)))
    })
}
