//! `Script`: a displayed script parses to the same one.

use proptest::{collection::vec, prelude::*, proptest};
use stopcock::testing::{Script, Step};

fn check_steps(text: &str, steps: &[Step]) {
    let script: Script = text.parse().unwrap();
    assert_eq!(script.steps(), steps, "{text:?}");
}

#[test]
fn a_letter_is_a_step_and_parentheses_are_for_the_reader() {
    use Step::{End, Item, Never, Panic, Pending};

    check_steps("", &[]);
    check_steps("a-|", &[Item('a'), Pending, End]);
    check_steps("(ab)c!", &[Item('a'), Item('b'), Item('c'), Panic]);
    check_steps("7(é)~", &[Item('7'), Item('é'), Never]);
}

fn check_printed(text: &str, printed: &str) {
    let script: Script = text.parse().unwrap();
    assert_eq!(script.to_string(), printed, "{text:?}");
}

#[test]
fn items_without_a_pending_between_them_are_printed_in_parentheses() {
    check_printed("ab-(c)-d(e)f|", "(ab)-c-(def)|");
    check_printed("a-b-(cd)-|", "a-b-(cd)-|");
}

fn check_error(text: &str, at: usize, what: &str) {
    let error = text.parse::<Script>().unwrap_err();
    assert_eq!(error.at(), at, "{text:?}");
    let reported = format!("{what}\n  {text}\n  {}^", " ".repeat(at));
    assert_eq!(error.to_string(), reported);
}

#[test]
fn an_error_points_at_the_character() {
    check_error("a?b", 1, "this is not a step of a script");
    check_error("é ", 1, "this is not a step of a script");
    check_error("a|b", 2, "nothing can follow the end");
    check_error("||", 1, "nothing can follow the end");
    check_error("|(a)", 1, "nothing can follow the end");
    check_error("!-", 1, "nothing can follow a panic");
    check_error("~|", 1, "nothing can follow a pending that is never woken");
    check_error("a(b", 1, "this parenthesis is not closed");
    check_error("a)", 1, "this parenthesis was not opened");
    check_error("()", 1, "the parentheses are empty");
    check_error("(a(b))", 2, "parentheses cannot be nested");
    check_error("(a-b)", 2, "only items can be in parentheses");
    check_error("(|)", 1, "only items can be in parentheses");
}

#[test]
fn all_scripts_of_a_length_are_there_once_and_what_is_over_is_not_longer() {
    let printed = |alphabet, steps| -> Vec<_> {
        Script::all(alphabet, steps)
            .map(|script| script.to_string())
            .collect()
    };
    assert_eq!(printed("a-", 0), [""]);
    assert_eq!(printed("a|", 2), ["", "a", "|", "(aa)", "a|"]);
    // 0 to 3 steps of two that may be followed, and each except the longest with an end.
    assert_eq!(printed("a-|", 3).len(), (1 + 2 + 4 + 8) + (1 + 2 + 4));
}

#[test]
fn an_alphabet_with_other_letters_panics_with_a_message() {
    let panic = crate::support::panic_of(|| Script::all("a?", 1).count());
    assert_eq!(
        panic,
        "'?' is not a step of a script: the documentation of `Script` lists the steps"
    );
}

fn script() -> impl Strategy<Value = String> {
    let goes_on = vec(prop_oneof!["[a-z0-9]", Just("-".to_owned())], 0..20);
    let last = prop_oneof![Just(""), Just("|"), Just("!"), Just("~")];
    (goes_on, last).prop_map(|(goes_on, last)| goes_on.concat() + last)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 10 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_was_printed_is_read_as_the_same(text in script()) {
        let script: Script = text.parse().unwrap();
        let again: Script = script.to_string().parse().unwrap();
        prop_assert_eq!(&again, &script);
        prop_assert_eq!(script.steps().len(), text.len());
    }

    #[test]
    fn whatever_is_written_is_read_or_refused_at_one_of_its_characters(text in "[ab|!~()?-]{0,8}") {
        if let Err(error) = text.parse::<Script>() {
            prop_assert!(error.at() < text.chars().count());
        }
    }
}
