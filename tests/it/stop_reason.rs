//! `StopReason`: its text, and the conversions from and into it.

use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    io::{self, ErrorKind, Read},
    sync::Arc,
};
use stopcock::StopReason;

#[derive(Debug)]
struct DiskFull {
    path: &'static str,
}

impl Display for DiskFull {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "no room in {}", self.path)
    }
}

impl Error for DiskFull {}

/// An error with a source.
#[derive(Debug)]
struct Failed<E>(&'static str, E);

impl<E> Display for Failed<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<E: Error + 'static> Error for Failed<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.1)
    }
}

fn disk_full() -> StopReason {
    StopReason::custom(DiskFull { path: "/data" })
}

fn query_timeout() -> StopReason {
    StopReason::TimedOut(Arc::new(Failed(
        "5 s for the query",
        DiskFull { path: "/tmp" },
    )))
}

/// One of each.
fn reasons() -> [StopReason; 6] {
    [
        StopReason::Cancelled,
        StopReason::DeadlineExceeded,
        StopReason::IdleTimeout,
        StopReason::ConsumerDropped,
        disk_full(),
        query_timeout(),
    ]
}

#[test]
fn each_displays_as_what_happened_and_a_custom_one_as_its_error() {
    let texts = reasons().map(|reason| reason.to_string());
    let expected = [
        "cancelled",
        "deadline exceeded",
        "idle for too long",
        "consumer dropped",
        "no room in /data",
        "5 s for the query",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn each_has_a_distinct_debug_output() {
    let texts = reasons().map(|reason| format!("{reason:?}"));
    assert!(texts[4].contains("DiskFull"));
    for (place, text) in texts.iter().enumerate() {
        assert!(!texts[..place].contains(text));
    }
}

#[test]
fn its_source_is_that_of_the_error_which_it_displays_as() {
    for reason in reasons() {
        let source = reason
            .source()
            .and_then(<dyn Error>::downcast_ref::<DiskFull>);
        let expected = matches!(reason, StopReason::TimedOut(_)).then_some("/tmp");
        assert_eq!(source.map(|error| error.path), expected);
    }
}

#[test]
fn it_can_be_taken_for_the_error_that_it_was_made_of_and_for_no_other() {
    assert_eq!(
        disk_full().downcast_ref::<DiskFull>().unwrap().path,
        "/data"
    );
    assert!(query_timeout().downcast_ref::<Failed<DiskFull>>().is_some());
    for reason in reasons() {
        assert!(reason.downcast_ref::<io::Error>().is_none());
        let is_custom = matches!(reason, StopReason::Custom(_));
        assert_eq!(reason.downcast_ref::<DiskFull>().is_some(), is_custom);
    }
}

#[test]
fn a_timeout_is_what_time_ran_out_for() {
    let timeouts = reasons().map(|reason| reason.is_timeout());
    assert_eq!(timeouts, [false, true, true, false, false, true]);
}

#[test]
fn one_that_went_through_a_box_comes_out_as_itself() {
    for reason in reasons() {
        let text = format!("{reason:?}");
        let boxed: Box<dyn Error + Send + Sync> = reason.into();
        let reason = StopReason::from(boxed);
        assert_eq!(format!("{reason:?}"), text);
        assert_eq!(format!("{:?}", StopReason::custom(reason)), text);
    }
}

#[test]
fn it_is_found_in_whatever_was_made_of_it() {
    fn check(error: &(dyn Error + 'static), expected: Option<&str>) {
        let found = StopReason::find_in(error).map(ToString::to_string);
        assert_eq!(found.as_deref(), expected);
    }
    for reason in reasons() {
        let text = Some(reason.to_string());
        let text = text.as_deref();
        check(&reason, text);
        check(&Failed("the body", reason.clone()), text);
        let in_io = io::Error::from(reason.clone());
        check(&in_io, text);
        check(&Failed("the request", Failed("the body", in_io)), text);
        check(&io::Error::other(io::Error::from(reason.clone())), text);
        check(
            &io::Error::other(Failed("the request", Failed("the body", reason))),
            text,
        );
    }
    check(&DiskFull { path: "/data" }, None);
    check(&io::Error::from(ErrorKind::TimedOut), None);
    check(
        &io::Error::other(Failed("the body", DiskFull { path: "/data" })),
        None,
    );
}

#[test]
fn clones_of_a_custom_one_share_the_error() {
    let reason = disk_full();
    let clone = reason.clone();
    let (StopReason::Custom(error), StopReason::Custom(cloned)) = (reason, clone) else {
        panic!("a clone of a custom reason is custom");
    };
    assert!(Arc::ptr_eq(&error, &cloned));
}

#[test]
fn texts_and_errors_turn_into_custom_reasons() {
    let boxed: Box<dyn Error + Send + Sync> = Box::new(DiskFull { path: "/var" });
    let check = |reason: StopReason, text: &str| {
        assert!(matches!(reason, StopReason::Custom(_)));
        assert_eq!(reason.to_string(), text);
    };
    check("a text".into(), "a text");
    check(String::from("an owned text").into(), "an owned text");
    check(boxed.into(), "no room in /var");
    check(StopReason::custom("a text"), "a text");
    check(disk_full(), "no room in /data");
}

#[test]
fn a_boxed_error_is_not_boxed_again() {
    let boxed: Box<dyn Error + Send + Sync> = Box::new(DiskFull { path: "/var" });
    let reason = StopReason::from(boxed);
    assert_eq!(reason.downcast_ref::<DiskFull>().unwrap().path, "/var");
}

#[test]
fn an_io_error_of_it_is_a_timeout_for_timeouts_and_never_an_interruption() {
    let kinds = reasons().map(|reason| io::Error::from(reason).kind());
    let expected = [
        ErrorKind::Other,
        ErrorKind::TimedOut,
        ErrorKind::TimedOut,
        ErrorKind::Other,
        ErrorKind::Other,
        ErrorKind::TimedOut,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn an_interruption_as_a_custom_reason_does_not_become_one_again() {
    let reason = StopReason::custom(io::Error::from(ErrorKind::Interrupted));
    assert_eq!(io::Error::from(reason).kind(), ErrorKind::Other);
}

#[test]
fn an_io_error_of_it_displays_as_the_reason_and_gives_it_back() {
    for reason in reasons() {
        let text = reason.to_string();
        let error = io::Error::from(reason);
        assert_eq!(error.to_string(), text);
        let reason = error.into_inner().unwrap().downcast::<StopReason>();
        assert_eq!(reason.unwrap().to_string(), text);
    }
}

/// An error of kind `Interrupted` would be retried, and the truncated response would look complete.
#[test]
fn a_reader_of_std_that_is_stopped_fails() {
    struct Stopped(Option<StopReason>);

    impl Read for Stopped {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            match self.0.take() {
                Some(reason) => Err(reason.into()),
                None => Ok(0),
            }
        }
    }

    for reason in reasons() {
        let text = reason.to_string();
        let answer = io::read_to_string(Stopped(Some(reason)));
        assert_eq!(answer.unwrap_err().to_string(), text);
    }
}

#[test]
fn it_converts_into_boxed_errors() {
    fn is_error<E: Error + Clone + Send + Sync + 'static>() {}
    is_error::<StopReason>();

    let fails = || -> Result<(), Box<dyn Error + Send + Sync>> { Err(StopReason::IdleTimeout)? };
    assert!(matches!(
        fails().unwrap_err().downcast_ref(),
        Some(StopReason::IdleTimeout)
    ));
}
