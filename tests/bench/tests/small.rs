//! Every scenario at a thousandth of its size, so that the tool works when it is needed. Nothing
//! here says how fast anything is.

use std::collections::BTreeMap;
use std::process::Command;

use millrace_cluster_tests::program;
use serde_json::Value;

/// What each scenario is about, by one of its figures.
const FIGURES: [(&str, &str); 9] = [
    ("fsyncs", "publishers_16_fsyncs_per_thousand"),
    ("amplification", "topic_charged_bytes_per_byte"),
    ("queues", "rss_per_queue_bytes"),
    ("sustained", "worker_turn_longest_seconds"),
    ("restart", "start_1_received_seconds"),
    ("backlog", "rss_restarted_bytes"),
    ("replicas", "fsyncs_of_3_over_1_shards_64_queues"),
    ("idle", "cpu_of_64_over_4_shards"),
    ("catch_up", "caught_up_payload_bytes_per_second"),
];

#[test]
fn every_scenario_runs_to_its_end_and_loses_no_message() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = dir.path().join("figures.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-bench"));
    command.arg("--binary").arg(program::path().unwrap());
    command.arg("--dir").arg(dir.path()).arg("--out").arg(&out);
    command.args(["--divide", "1000", "all"]);

    let said = command.output().unwrap();

    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{errors}");
    let lines = std::fs::read_to_string(&out).unwrap();
    let reports = lines.lines().map(|line| {
        let report: Value = serde_json::from_str(line).unwrap();
        (report["scenario"].as_str().unwrap().to_owned(), report)
    });
    let reports: BTreeMap<String, Value> = reports.collect();
    for (scenario, figure) in FIGURES {
        let figures = &reports[scenario]["figures"];
        assert!(figures[figure].is_f64(), "no {figure} in {figures}");
        assert!(figures["disk_after_syncs_per_second"].is_f64(), "{figures}");
    }
    // All but the one that was received and never settled.
    let backlog = &reports["backlog"];
    assert_eq!(backlog["figures"]["messages_ready_restarted"], 99_999.0);
    let restart = &reports["restart"];
    assert_eq!(restart["figures"]["messages_waiting_at_the_end"], 10_000.0);
}
