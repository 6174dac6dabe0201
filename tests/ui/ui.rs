//! What the compiler prints for common mistakes (`wrong`), and that what it advises compiles (`right`).
//!
//! Its words change with its version, so this package is tested with one:
//!
//! ```console
//! $ cargo +1.95.0 test -p stopcock-ui
//! $ TRYBUILD=overwrite cargo +1.95.0 test -p stopcock-ui    # after an intended change
//! ```

#[test]
fn mistakes_are_answered_by_what_to_write_instead() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("wrong/*.rs");
    cases.pass("right/*.rs");
}
