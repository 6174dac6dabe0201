//! Counts instructions: the program runs itself under callgrind.

use crate::case::{Case, Row};
use std::{
    env, fs,
    process::{self, Command, Stdio},
    thread,
};

/// Two at a time. The number of cores affects only how long this takes, not the counts.
const AT_A_TIME: usize = 2;

pub(crate) fn is_installed() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// The instructions per operation of each case, in order.
pub(crate) fn instructions(row: &Row) -> Vec<Option<f64>> {
    let mut counts = vec![None; row.cases.len()];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME)
            .map(|worker| {
                let share = row.cases.iter().enumerate().skip(worker).step_by(AT_A_TIME);
                scope.spawn(move || {
                    share
                        .map(|(index, case)| (index, row.per_operation(|n| [run(row, case, n)])))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in workers {
            for (index, count) in worker.join().expect("a worker that counts") {
                counts[index] = count.map(|[count]| count);
            }
        }
    });
    counts
}

fn run(row: &Row, case: &Case, n: u64) -> u64 {
    let key = thread::current().id();
    let out = env::temp_dir().join(format!("stopcock-bench-{}-{key:?}", process::id()));
    let status = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().expect("the path of this program"))
        .args(["run", &row.work, case.name, &n.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("valgrind");
    assert!(status.success(), "{}, {}: {status}", row.work, case.name);
    let profile = fs::read_to_string(&out).expect("what callgrind wrote");
    fs::remove_file(&out).expect("what callgrind wrote");
    profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|total| total.trim().parse().ok())
        .expect("a total")
}
