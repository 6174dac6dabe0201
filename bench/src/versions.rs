//! The versions that were compared, and the machine.

use std::{
    env::{self, consts::ARCH},
    process::Command,
    thread,
};

const LOCK: &str = include_str!("../../Cargo.lock");

/// The versions of the linked packages.
pub(crate) fn of(packages: &[&str]) -> String {
    let versions = packages
        .iter()
        .map(|name| format!("{name} {}", linked(name)));
    versions.collect::<Vec<_>>().join(", ")
}

fn linked(package: &str) -> &'static str {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let found = LOCK.split_once(&entry);
    let (version, _) = found
        .and_then(|(_, rest)| rest.split_once('"'))
        .expect("each peer is in the lock file");
    version
}

/// The machine, the compiler, and the measured peers.
#[allow(dead_code, reason = "one of the two programs measures nothing")]
pub(crate) fn measured() -> String {
    let peers = of(&[
        "futures",
        "tokio",
        "tokio-util",
        "tokio-stream",
        "stream-cancel",
        "async-stream",
        "async-fn-stream",
    ]);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Measured on {cores} cores of an {ARCH} machine, with {}, {peers}.",
        compiler()
    )
}

#[allow(dead_code, reason = "one of the two programs measures nothing")]
fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let reported = Command::new(rustc).arg("--version").output();
    let reported = reported.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match reported
        .as_deref()
        .map(|reported| reported.split(" (").next())
    {
        Ok(Some(version)) if !version.is_empty() => version.trim().to_owned(),
        _ => "an unknown rustc".to_owned(),
    }
}
