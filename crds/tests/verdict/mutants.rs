//! Valid documents with something wrong put in at random: what nobody thought of for the corpus.
//! `MILLRACE_MUTANTS` says how many, `MILLRACE_SEED` which.

use millrace_crds::{DEFAULT_NAMESPACE, check};
use serde_json::{Map, Value, json};

use crate::api_server::{client, disagreement};
use crate::corpus::{Case, cases};

/// Enough to meet every field a few times, few enough to be done in seconds.
const MUTANTS_DEFAULT: u64 = 200;

/// Values that somebody may write anywhere.
fn strange() -> Vec<Value> {
    let texts = [
        "",
        "a",
        "A",
        "a.b",
        "a_b",
        "-a",
        "*",
        "#",
        "a.*",
        "..",
        "é",
        "0",
        "10",
        "1.5",
        "-1",
        "1e3",
        "10Gi",
        "1Ki",
        "500m",
        "0.5",
        "1gi",
        "99999999999999999999",
        "30s",
        "1h30m",
        "1d",
        "-1s",
        "999999999h",
        "All",
        "Orphan",
        "Exists",
        "NoExecute",
        "true",
        "millrace:1",
        "x y",
        "a/b",
    ];
    let long = [
        "a".repeat(53),
        "a".repeat(64),
        "a".repeat(256),
        "ü".repeat(200),
    ];
    let numbers = json!([
        0,
        1,
        -1,
        2,
        3,
        256,
        257,
        100_001,
        1.5,
        1e30,
        i64::MAX,
        u64::MAX
    ]);
    let others =
        json!([null, true, false, [], {}, [null], [{}], { "name": "a" }, [1, 2], { "a": 1 }]);
    let mut all: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    all.extend(long.iter().map(|text| json!(text)));
    all.extend(numbers.as_array().into_iter().flatten().cloned());
    all.extend(others.as_array().into_iter().flatten().cloned());
    all
}

#[tokio::test]
async fn documents_made_wrong_at_random_get_the_same_verdict() {
    let Some(client) = client().await else { return };
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("MILLRACE_SEED", 1);
    let mut chance = Chance(seed);
    let strange = strange();
    let originals: Vec<Value> = cases()
        .iter()
        .filter(|case| case.errors.is_empty())
        .map(|case| check(&case.yaml, DEFAULT_NAMESPACE).objects.remove(0))
        .collect();
    let (mut wrong, mut accepted) = (Vec::new(), 0);
    let mutants = number("MILLRACE_MUTANTS", MUTANTS_DEFAULT);
    for i in 0..mutants {
        let mut object = chance.of(&originals).clone();
        for _ in 0..1 + chance.below(3) {
            mutate(&mut object, &mut chance, &strange);
        }
        let case = Case {
            name: format!("mutant {i} of seed {seed}: {object}"),
            yaml: object.to_string(),
            errors: Default::default(),
        };
        accepted += u64::from(check(&case.yaml, DEFAULT_NAMESPACE).is_accepted());
        wrong.extend(disagreement(&client, &case).await);
    }
    eprintln!("{mutants} mutants, {accepted} of them accepted");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Walks down to somewhere and changes what is there.
fn mutate(value: &mut Value, chance: &mut Chance, strange: &[Value]) {
    let stop = chance.below(4) == 0;
    match value {
        Value::Object(fields) if !stop && !fields.is_empty() => {
            let keys: Vec<String> = fields
                .keys()
                .filter(|key| may_change(key))
                .cloned()
                .collect();
            if keys.is_empty() {
                return;
            }
            let key = chance.of(&keys).clone();
            match chance.below(8) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(format!("{key}x"), chance.of(strange).clone())),
                _ => mutate(&mut fields[&key], chance, strange),
            }
        }
        Value::Array(items) if !stop && !items.is_empty() => {
            let at = chance.below(items.len());
            match chance.below(6) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => mutate(&mut items[at], chance, strange),
            }
        }
        // The resource itself stays one, of the kind and in the namespace that is asked about.
        Value::Object(fields) if fields.contains_key("apiVersion") => {
            fields.entry("spec").or_insert_with(|| Map::new().into());
        }
        other => *other = chance.of(strange).clone(),
    }
}

fn may_change(key: &str) -> bool {
    !matches!(
        key,
        "apiVersion" | "kind" | "namespace" | "metadata" | "finalizers"
    )
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(random).expect("31 bits") % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
