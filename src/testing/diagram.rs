use super::{Event, Output, Record};
use std::{
    fmt::{self, Display, Formatter},
    iter,
};

/// If there are more columns than this, the first ones are left out.
const COLUMNS: usize = 72;

/// What happened in one column, line by line.
#[derive(Clone, Copy)]
struct Column {
    source: char,
    stop: char,
    woken: char,
    output: char,
    dropped: char,
}

const EMPTY: Column = Column {
    source: '.',
    stop: '.',
    woken: '.',
    output: '.',
    dropped: '.',
};

type Line = (&'static str, fn(&Column) -> char);

const LINES: [Line; 5] = [
    ("source", |column| column.source),
    ("stop", |column| column.stop),
    ("woken", |column| column.woken),
    ("output", |column| column.output),
    ("dropped", |column| column.dropped),
];

fn columns(events: &[Event]) -> Vec<Column> {
    let mut columns = Vec::new();
    // Also true during the drop of the stream.
    let mut in_poll = false;
    for event in events {
        let starts_a_column = match event {
            Event::Polled { .. } | Event::Dropping => true,
            // One poll of the stream may poll its source more than once.
            Event::SourcePolled { .. } => {
                !in_poll
                    || columns
                        .last()
                        .is_some_and(|last: &Column| last.source != EMPTY.source)
            }
            Event::Stopping | Event::SourceDropped => !in_poll,
            _ => false,
        };
        if starts_a_column {
            columns.push(EMPTY);
        }
        let Some(column) = columns.last_mut() else {
            continue;
        };
        match event {
            Event::Polled { .. } => in_poll = true,
            Event::SourceGave(step) => column.source = step.letter(),
            Event::SourceDropped => column.dropped = 'D',
            Event::Stopping => column.stop = 'X',
            Event::Woken { .. } => column.woken = 'w',
            Event::Gave(output) => {
                in_poll = false;
                column.output = output.letter();
            }
            Event::Dropping => {
                in_poll = true;
                column.output = '/';
            }
            Event::Dropped { .. } => in_poll = false,
            Event::SourcePolled { .. }
            | Event::SourceWoken
            | Event::Stopped
            | Event::StopPanicked
            | Event::SourcePanickedInDrop
            | Event::Passed(_)
            | Event::Seen(_) => {}
        }
    }
    columns
}

impl Output {
    fn letter(&self) -> char {
        match self {
            Self::Pending => '-',
            Self::Item(item) => *item,
            Self::Stopped => 'X',
            Self::End => '|',
            Self::Panic(_) => '!',
        }
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let columns = columns(&self.events());
        let left_out = columns.len().saturating_sub(COLUMNS);
        for (n, (name, letter)) in LINES.into_iter().enumerate() {
            let line_break = if n > 0 { "\n" } else { "" };
            let ellipsis = iter::repeat_n('…', usize::from(left_out > 0));
            let letters: String = ellipsis
                .chain(columns[left_out..].iter().map(letter))
                .collect();
            write!(f, "{line_break}{name:<9}{letters}")?;
        }
        Ok(())
    }
}
