use super::probe::nth_letter;
use std::{
    error::Error,
    fmt::{self, Debug, Display, Formatter, Write},
    str::FromStr,
};

/// What a source does, poll by poll, as a marble diagram: `"a-b-(cd)-|"`.
///
/// | letter | the poll is |
/// |---|---|
/// | `a`, `7` | ready with this item: any letter or digit |
/// | `(cd)` | ready with the first item, and the polls after it with the others: what comes at once |
/// | `-` | pending, and the source is woken later |
/// | `~` | pending, and the source is never woken |
/// | `!` | a panic |
/// | <code>&#124;</code> | ready with the end |
///
/// `~`, `!` and `|` are last letters. A script without one continues as if `~` were its last. Parentheses are for the
/// reader: `cd` is the same as `(cd)`, which is how it is printed.
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
/// nothing comes after the end
///   a-|b
///      ^");
/// # Ok::<(), stopcock::testing::ParseScriptError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Script {
    steps: Vec<Step>,
}

/// What one poll of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Ready with an item, a letter or a digit.
    Item(char),
    /// Pending, and woken later.
    Pending,
    /// Pending, and never woken.
    Never,
    /// A panic.
    Panic,
    /// Ready with the end.
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

    /// What nothing may come after, in words.
    fn finality(self) -> Option<&'static str> {
        match self {
            Self::Item(_) | Self::Pending => None,
            Self::Never => Some("nothing comes after a pending that is never woken"),
            Self::Panic => Some("nothing comes after a panic"),
            Self::End => Some("nothing comes after the end"),
        }
    }
}

impl Script {
    /// What it says, poll by poll.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// All scripts over the letters of `alphabet` of up to `steps` steps, shorter ones first.
    ///
    /// # Panics
    ///
    /// If `alphabet` has a letter that is no step.
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
                    panic!("{letter:?} is no step of a script: see `Script` for those that are")
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

    /// `items` items, one after the other, and no end.
    pub(super) fn items(items: usize) -> Self {
        Self::from_steps(vec![Step::Item('a'); items]).relabelled()
    }

    /// The same, and then the end.
    pub(super) fn ended(mut self) -> Self {
        self.steps.push(Step::End);
        self
    }

    /// Nothing but the last of them may be a last letter.
    pub(super) fn from_steps(steps: Vec<Step>) -> Self {
        Self { steps }
    }

    /// The same with `a` for its first item, `b` for its second: so that they can be distinguished.
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

    /// Whether something may still come.
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
            let is_burst = run.len() > 1;
            if is_burst {
                f.write_char('(')?;
            }
            for step in run {
                f.write_char(step.letter())?;
            }
            if is_burst {
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
                ('(', Some(_)) => return Err(error("a burst has none in it", at)),
                (')', None) => return Err(error("no burst is open here", at)),
                (')', Some(opened)) if opened + 1 == at => {
                    return Err(error("a burst has items", at));
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
                (Some(_), Some(_)) => return Err(error("a burst has nothing but items", at)),
                (Some(step), None) => script.steps.push(step),
                (None, _) => return Err(error("this is no step of a script", at)),
            }
        }
        match opened_at {
            None => Ok(script),
            Some(at) => Err(error("this burst is not closed", at)),
        }
    }
}

/// Says what is wrong with a script, and points at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseScriptError {
    what: &'static str,
    text: String,
    /// In characters.
    at: usize,
}

impl ParseScriptError {
    /// Which character of the text it is about, counted from 0.
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
