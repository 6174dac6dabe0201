//! The `grpc-timeout` header: up to eight digits, and a unit.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const MAX_DIGITS: usize = 8;

/// The largest number of `MAX_DIGITS` digits.
const MAX: u128 = 99_999_999;

/// From the finest unit to the coarsest.
const UNITS: [(char, Duration); 6] = [
    ('n', Duration::from_nanos(1)),
    ('u', Duration::from_micros(1)),
    ('m', Duration::from_millis(1)),
    ('S', Duration::from_secs(1)),
    ('M', Duration::from_secs(60)),
    ('H', Duration::from_secs(3600)),
];

/// The timeout in the headers; `None` if there is none, or none that is well-formed.
pub(super) fn find(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(GRPC_TIMEOUT)?.as_bytes())
}

/// Sets the timeout to `remaining`, unless there is a shorter one.
pub(super) fn shorten(headers: &mut HeaderMap, remaining: Duration) {
    if find(headers).is_none_or(|own| own > remaining) {
        headers.insert(GRPC_TIMEOUT, format(remaining));
    }
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits
        .iter()
        .fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Formats a timeout in the finest unit in which it fits, rounded down.
fn format(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let fitting = UNITS.into_iter().find_map(|(unit, length)| {
        let count = nanos / length.as_nanos();
        (count <= MAX).then_some((count, unit))
    });
    let (count, unit) = fitting.unwrap_or((MAX, 'H'));
    match HeaderValue::try_from(format!("{count}{unit}")) {
        Ok(value) => value,
        Err(_) => unreachable!("digits and a letter"),
    }
}
