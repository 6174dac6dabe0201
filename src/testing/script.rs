use super::probe::nth_letter;
use std::{
    error::Error,
    fmt::{self, Debug, Display, Formatter, Write},
    str::FromStr,
};

/// What a source returns, poll by poll, as a marble diagram: `"a-b-(cd)-|"`.
///
/// | letter | a poll returns |
/// |---|---|
/// | `a`, `7` | this item: any letter or digit |
/// | `(cd)` | the first item, and the next polls the others, without a `Pending` between them |
/// | `-` | `Pending`, and the source is woken later |
/// | `~` | `Pending`, and the source is never woken |
/// | `!` | nothing: it panics |
/// | <code>&#124;</code> | the end |
///
/// Nothing may follow `~`, `!` or `|`. A script that ends without one of them continues as with a `~`. Parentheses are
/// optional: `cd` is the same as `(cd)`. A script displays with them.
///
/// # Examples
///
/// ```
/// use stopcock::testing::{Script, Step};
///
/// let script: Script = "a-(bc)|".parse()?;
/// assert_eq!(
///     script.steps(),
///     [Step::Item('a'), Step::Pending, Step::Item('b'), Step::Item('c'), Step::End],
/// );
/// assert_eq!(script.to_string(), "a-(bc)|");
///
/// let error = "a-|b".parse::<Script>().unwrap_err();
/// assert_eq!(error.to_string(), "\
/// nothing can follow the end
///   a-|b
///      ^");
/// # Ok::<(), stopcock::testing::ParseScriptError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Script {
    steps: Vec<Step>,
}

/// What one poll of a source returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// An item: a letter or a digit.
    Item(char),
    /// `Pending`; the source is woken later.
    Pending,
    /// `Pending`; the source is never woken.
    Never,
    /// The poll panics.
    Panic,
    /// The end.
    End,
}

impl Step {
    fn of(letter: char) -> Option<Self> {
        match letter {
            '-' => Some(Self::Pending),
            '~' => Some(Self::Never),
            '!' => Some(Self::Panic),
            '|' => Some(Self::End),
            item if item.is_alphanumeric() => Some(Self::Item(item)),
            _ => None,
        }
    }

    pub(super) fn letter(self) -> char {
        match self {
            Self::Pending => '-',
            Self::Never => '~',
            Self::Panic => '!',
            Self::End => '|',
            Self::Item(item) => item,
        }
    }

    /// Why no step may follow this one, if none may.
    fn finality(self) -> Option<&'static str> {
        match self {
            Self::Item(_) | Self::Pending => None,
            Self::Never => Some("nothing can follow a pending that is never woken"),
            Self::Panic => Some("nothing can follow a panic"),
            Self::End => Some("nothing can follow the end"),
        }
    }
}

impl Script {
    /// The steps, one for each poll.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// All scripts of up to `steps` steps that consist of letters of `alphabet`, shorter ones first.
    ///
    /// # Panics
    ///
    /// If a letter of `alphabet` is not a step.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::testing::Script;
    ///
    /// let all: Vec<_> = Script::all("a|", 2).map(|script| script.to_string()).collect();
    /// assert_eq!(all, ["", "a", "|", "(aa)", "a|"]);
    /// ```
    pub fn all(alphabet: &str, steps: usize) -> impl Iterator<Item = Self> {
        let alphabet: Vec<_> = alphabet
            .chars()
            .map(|letter| match Step::of(letter) {
                Some(step) => step,
                None => {
                    panic!("{letter:?} is not a step of a script: the documentation of `Script` lists the steps")
                }
            })
            .collect();
        let mut layer = vec![Self::default()];
        (0..=steps).flat_map(move |_| {
            let longer = layer
                .iter()
                .filter(|script| script.is_open())
                .flat_map(|script| {
                    alphabet.iter().map(|step| {
                        let mut steps = script.steps.clone();
                        steps.push(*step);
                        Self { steps }
                    })
                })
                .collect();
            std::mem::replace(&mut layer, longer)
        })
    }

    /// A script of `items` items, without an end.
    pub(super) fn items(items: usize) -> Self {
        Self::from_steps(vec![Step::Item('a'); items]).relabelled()
    }

    /// Adds the end.
    pub(super) fn ended(mut self) -> Self {
        self.steps.push(Step::End);
        self
    }

    /// Only the last step may be one that nothing may follow.
    pub(super) fn from_steps(steps: Vec<Step>) -> Self {
        Self { steps }
    }

    /// Renames the items to `a`, `b`, `c` and so on, so that they can be distinguished.
    pub(super) fn relabelled(mut self) -> Self {
        let mut items = 0;
        for step in &mut self.steps {
            if let Step::Item(letter) = step {
                *letter = nth_letter(items);
                items += 1;
            }
        }
        self
    }

    /// Whether another step may follow.
    fn is_open(&self) -> bool {
        self.steps
            .last()
            .is_none_or(|last| last.finality().is_none())
    }
}

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let is_item = |step: &Step| matches!(step, Step::Item(_));
        for run in self.steps.chunk_by(|a, b| is_item(a) && is_item(b)) {
            let is_group = run.len() > 1;
            if is_group {
                f.write_char('(')?;
            }
            for step in run {
                f.write_char(step.letter())?;
            }
            if is_group {
                f.write_char(')')?;
            }
        }
        Ok(())
    }
}

impl Debug for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Script(\"{self}\")")
    }
}

impl FromStr for Script {
    type Err = ParseScriptError;

    fn from_str(text: &str) -> Result<Self, ParseScriptError> {
        let error = |what, at| ParseScriptError {
            what,
            text: text.to_owned(),
            at,
        };
        let mut script = Self::default();
        let mut opened_at = None;
        for (at, letter) in text.chars().enumerate() {
            match (letter, opened_at) {
                ('(', None) => opened_at = Some(at),
                ('(', Some(_)) => return Err(error("parentheses cannot be nested", at)),
                (')', None) => return Err(error("this parenthesis was not opened", at)),
                (')', Some(opened)) if opened + 1 == at => {
                    return Err(error("the parentheses are empty", at));
                }
                (')', Some(_)) => {
                    opened_at = None;
                    continue;
                }
                _ => {}
            }
            if let Some(finality) = script.steps.last().and_then(|last| last.finality()) {
                return Err(error(finality, at));
            }
            if letter == '(' {
                continue;
            }
            match (Step::of(letter), opened_at) {
                (Some(Step::Item(item)), _) => script.steps.push(Step::Item(item)),
                (Some(_), Some(_)) => return Err(error("only items can be in parentheses", at)),
                (Some(step), None) => script.steps.push(step),
                (None, _) => return Err(error("this is not a step of a script", at)),
            }
        }
        match opened_at {
            None => Ok(script),
            Some(at) => Err(error("this parenthesis is not closed", at)),
        }
    }
}

/// The error of a script that does not parse. It displays with a marker under the wrong character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseScriptError {
    what: &'static str,
    text: String,
    /// Counted in characters.
    at: usize,
}

impl ParseScriptError {
    /// The index of the wrong character, counted from 0.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl Display for ParseScriptError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, text, at } = self;
        write!(f, "{what}\n  {text}\n  {:at$}^", "")
    }
}

impl Error for ParseScriptError {}
