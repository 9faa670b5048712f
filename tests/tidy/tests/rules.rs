//! The rules of the house, over this clone.

use std::path::Path;
use std::process::Command;

use millrace_tidy as tidy;

fn tree() -> tidy::Tree {
    tidy::Tree::read(root()).expect("the clone is readable")
}

fn root() -> &'static Path {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_root
        .ancestors()
        .nth(2)
        .expect("the crate is two levels down")
}

/// Fails with all that breaks the rule, one a line.
#[track_caller]
fn none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn files_are_short() {
    none(tidy::sources_too_long(&tree()));
}

#[test]
fn lines_are_short() {
    none(tidy::lines_too_long(&tree()));
}

#[test]
fn functions_are_short() {
    none(tidy::functions_too_long(&tree()));
}

#[test]
fn files_begin_with_what_they_are_for() {
    none(tidy::missing_headers(&tree()));
}

#[test]
fn banned_words_are_absent() {
    none(tidy::banned_words(&tree()));
}

#[test]
fn what_is_simulated_depends_on_its_inputs_alone() {
    none(tidy::chance_and_time(&tree()));
}

#[test]
fn modules_are_named_after_their_files() {
    none(tidy::misplaced_modules(&tree()));
}

#[test]
fn the_top_level_is_as_agreed() {
    none(tidy::foreign_entries(&tree()));
}

#[test]
fn every_example_is_tested() {
    none(tidy::untested_examples(&tree()));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = [
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--offline",
    ];
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let packages = tidy::packages(&String::from_utf8(output.stdout).unwrap()).unwrap();
    none(tidy::forbidden_edges(&packages));
}
