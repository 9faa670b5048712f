//! `docs/errors.md` lists exactly the reasons there are, with the right gRPC code.

use std::fs;
use std::path::Path;

use millrace_types::ErrorCode;
use tonic::Code;

#[test]
fn the_documentation_lists_every_reason_with_its_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<(String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 6, "a row has four cells: {row}");
            assert!(
                (cells[3].starts_with("not applied") || cells[3] == "unknown")
                    && !cells[4].is_empty(),
                "{row}"
            );
            (cells[1].replace('`', ""), cells[2].replace('`', ""))
        })
        .collect();

    let known: Vec<_> = ErrorCode::ALL
        .into_iter()
        .map(|code| {
            (
                code.reason().to_owned(),
                upper_snake(Code::from_i32(code.grpc_code())),
            )
        })
        .collect();
    assert_eq!(documented, known);
}

/// `NotFound` as the gRPC documentation writes it.
fn upper_snake(code: Code) -> String {
    let mut text = String::new();
    for (at, letter) in format!("{code:?}").chars().enumerate() {
        if at > 0 && letter.is_uppercase() {
            text.push('_');
        }
        text.extend(letter.to_uppercase());
    }
    text
}
