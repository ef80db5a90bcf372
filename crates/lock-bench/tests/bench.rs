//! A bench so small that it takes seconds, on a real Redis.

use std::{fs, process::Command};

use anyhow::Result;
use lock_bench::{
    lock::Role,
    results::{Case, Report},
};

#[test]
fn a_run_leaves_every_case_with_ours_the_floor_and_a_peer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (json, html) = (dir.path().join("report.json"), dir.path().join("report.html"));
    let words = ["run", "--quick", "--backend", "setnx", "--rounds", "1", "--slice", "40"];
    let output = Command::new(env!("CARGO_BIN_EXE_lock-bench"))
        .args(words)
        .args(["--contenders", "1", "--contenders", "2", "--case", "uncontended", "--case", "handover"])
        .args(["--case", "recovery"])
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Report = serde_json::from_slice(&fs::read(&json)?)?;
    let page = fs::read_to_string(&html)?;

    let uncontended = report.loads.iter().find(|load| load.case == Case::Uncontended);
    let rows = &uncontended.expect("the case was asked for").rows;
    for role in [Role::Floor, Role::Ours, Role::Peer] {
        let row = rows.iter().find(|row| row.role == role).unwrap_or_else(|| panic!("no {role:?}: {said}"));
        assert!(row.rate.median > 0.0 && row.to_floor.is_some(), "{row:?}");
        // An acquire and a release, and nothing else.
        assert!((1.9..2.2).contains(&row.requests.unwrap()), "{row:?}");
    }
    let contended = report.loads.iter().find(|load| load.case == Case::Handover && load.tasks == 2);
    let ours = contended.unwrap().rows.iter().find(|row| row.role == Role::Ours).unwrap();
    assert!(ours.handover.is_some() && ours.to_alone.is_some() && ours.overlaps == 0, "{ours:?}");
    let recovery = &report.recoveries[0];
    // Nothing but the end of the lease, which was renewed a third of it ago at most, frees the key of a dead holder.
    assert!(recovery.ms.median > 500.0, "{recovery:?}");
    assert!(page.contains("<svg") && page.contains("lock-setnx"), "{page}");
    Ok(())
}
