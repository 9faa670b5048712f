//! The wire protocols only grow. `golden/v1.txt`, `golden/peer-v1.txt` and
//! `golden/membership-v1.txt` list every call, field
//! and number there ever was: a line that vanishes or changes breaks clients, or nodes of another
//! version, in the field and fails; a new one is added by running with `MILLRACE_GOLDEN=write`,
//! which never removes a line.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

/// A protocol and the list of what it has.
struct Protocol {
    package: &'static str,
    descriptors: &'static [u8],
    golden: &'static str,
}

const PUBLIC: Protocol = Protocol {
    package: "millrace.v1",
    descriptors: millrace_proto::DESCRIPTOR_SET,
    golden: "tests/golden/v1.txt",
};
const PEER: Protocol = Protocol {
    package: "millrace.peer.v1",
    descriptors: millrace_proto::peer::DESCRIPTOR_SET,
    golden: "tests/golden/peer-v1.txt",
};

const MEMBERSHIP: Protocol = Protocol {
    package: "millrace.membership.v1",
    descriptors: millrace_proto::membership::DESCRIPTOR_SET,
    golden: "tests/golden/membership-v1.txt",
};

#[test]
fn no_call_field_or_number_that_clients_use_ever_vanishes() {
    compare(&PUBLIC);
}

#[test]
fn no_call_field_or_number_that_nodes_of_another_version_use_ever_vanishes() {
    compare(&PEER);
    compare(&MEMBERSHIP);
}

fn compare(protocol: &Protocol) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(protocol.golden);
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let golden: BTreeSet<&str> = golden.lines().filter(|line| !line.is_empty()).collect();
    let lines = described(protocol);
    let now: BTreeSet<&str> = lines.iter().map(String::as_str).collect();

    let vanished: Vec<_> = golden.difference(&now).collect();
    assert!(
        vanished.is_empty(),
        "others in the field use these:\n{vanished:#?}"
    );
    if env::var_os("MILLRACE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    let added: Vec<_> = now.difference(&golden).collect();
    assert!(
        added.is_empty(),
        "new; `MILLRACE_GOLDEN=write cargo test -p millrace-proto` adds them for ever:\n{added:#?}"
    );
}

#[test]
fn the_descriptors_have_all_that_they_import() {
    for protocol in [PUBLIC, PEER, MEMBERSHIP] {
        let set = FileDescriptorSet::decode(protocol.descriptors).unwrap();
        let names: BTreeSet<&str> = set.file.iter().map(|file| file.name()).collect();
        for file in &set.file {
            for import in &file.dependency {
                assert!(names.contains(import.as_str()), "{import} is missing");
            }
        }
    }
}

/// One line for each call, field, reserved number and enum value, sorted.
fn described(protocol: &Protocol) -> Vec<String> {
    let package = protocol.package;
    let set = FileDescriptorSet::decode(protocol.descriptors).unwrap();
    let mut lines = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == package) {
        for service in &file.service {
            calls(package, service, &mut lines);
        }
        for message in &file.message_type {
            fields(package, message, &mut lines);
        }
        for one in &file.enum_type {
            values(package, one, &mut lines);
        }
    }
    lines.sort();
    lines
}

fn calls(package: &str, service: &ServiceDescriptorProto, lines: &mut Vec<String>) {
    for call in &service.method {
        let stream = |streams: bool| if streams { "stream " } else { "" };
        lines.push(format!(
            "rpc {package}.{}/{} ({}{}) -> ({}{})",
            service.name(),
            call.name(),
            stream(call.client_streaming()),
            call.input_type(),
            stream(call.server_streaming()),
            call.output_type(),
        ));
    }
}

fn fields(parent: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{parent}.{}", message.name());
    for field in &message.field {
        lines.push(format!("field {name} {}", shape(message, field)));
    }
    for range in &message.reserved_range {
        lines.push(format!(
            "reserved {name} {}..{}",
            range.start(),
            range.end()
        ));
    }
    for reserved in &message.reserved_name {
        lines.push(format!("reserved {name} {reserved}"));
    }
    for nested in &message.nested_type {
        fields(&name, nested, lines);
    }
    for one in &message.enum_type {
        values(&name, one, lines);
    }
}

fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Optional | Label::Required if field.proto3_optional() => "optional ",
        Label::Optional | Label::Required => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().to_owned(),
        scalar => scalar.as_str_name().to_owned(),
    };
    let oneof = field
        .oneof_index
        .filter(|_| !field.proto3_optional())
        .and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?))
        .map(|oneof| format!(" in {}", oneof.name()))
        .unwrap_or_default();
    format!("{} = {} {label}{kind}{oneof}", field.name(), field.number())
}

fn values(parent: &str, one: &EnumDescriptorProto, lines: &mut Vec<String>) {
    for value in &one.value {
        let (name, number) = (value.name(), value.number());
        lines.push(format!("value {parent}.{} {name} = {number}", one.name()));
    }
    for range in &one.reserved_range {
        lines.push(format!(
            "reserved {parent}.{} {}..={}",
            one.name(),
            range.start(),
            range.end()
        ));
    }
}
