//! Holds `PROMISES.md` and the rules in `mutations` to each other and to the tests that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rules of all files, as one text.
fn rules() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutations");
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect()
}

/// All texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of each line of a table but its head.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    lines.map(|line| {
        line.split(" | ")
            .map(|c| c.trim_matches(['|', ' ']))
            .collect()
    })
}

/// The values of a key of the rules, which have one of them a line, or a list.
fn values(list: &str, key: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut is_inside = false;
    for line in list.lines() {
        is_inside =
            line.starts_with(&format!("{key} = ")) || (is_inside && line.starts_with("    \""));
        if is_inside {
            values.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    values
}

/// The sources in which a test of this name may be, by its modules.
fn sources_of(test: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules: Vec<&str> = test.split("::").collect();
    match modules.as_slice() {
        ["it", module, _] => vec![root.join(format!("tests/{module}.rs"))],
        ["lib", modules @ .., "tests", _] => {
            let path = root.join("src").join(modules.join("/"));
            let name = path.display();
            ["", "/mod", "/tests", "_tests"]
                .iter()
                .map(|end| PathBuf::from(format!("{name}{end}.rs")))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn exists(test: &str) -> bool {
    let function = format!("fn {}(", test.rsplit("::").next().unwrap_or_default());
    sources_of(test).iter().any(|path| {
        let source = std::fs::read_to_string(path).unwrap_or_default();
        source.contains(&function)
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let table = read("tests/PROMISES.md");
    let list = rules();
    let named = quoted(&table).filter(|word| word.starts_with("it::") || word.starts_with("lib::"));
    let mut named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert!(named.len() > 100, "only {} tests are named", named.len());
    named.extend(values(&list, "tests"));
    let missing: Vec<&String> = named.iter().filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_row_and_every_promise_is_there_once_and_has_a_test() {
    let table = read("tests/PROMISES.md");
    let counts = [
        ('A', 8),
        ('B', 16),
        ('C', 16),
        ('D', 7),
        ('E', 11),
        ('F', 5),
        ('G', 6),
    ];
    let mut wanted: Vec<String> = (1..=14).map(|promise| promise.to_string()).collect();
    for (letter, count) in counts {
        wanted.extend((1..=count).map(|number| format!("{letter}{number}")));
    }
    for id in &wanted {
        let found: Vec<_> = rows(&table).filter(|row| row[0] == id).collect();
        assert_eq!(found.len(), 1, "{id}");
        let has_test = found[0][2].contains('`');
        assert!(
            has_test || found[0][3].starts_with("pending"),
            "{id} has no test"
        );
    }
}

#[test]
fn every_mutation_is_of_a_promise_and_every_promise_has_its_own() {
    let table = read("tests/PROMISES.md");
    let list = rules();
    let names: BTreeSet<String> = values(&list, "name").into_iter().collect();
    let mut told = BTreeSet::new();
    for row in rows(&table).filter(|row| row[0].parse::<u32>().is_ok()) {
        let of_row: Vec<&str> = quoted(row[3]).collect();
        assert!(
            !of_row.is_empty(),
            "promise {} has no rule taken out",
            row[0]
        );
        told.extend(of_row.into_iter().map(str::to_owned));
    }
    let unknown: Vec<&String> = told.difference(&names).collect();
    let untold: Vec<&String> = names.difference(&told).collect();
    assert!(
        unknown.is_empty() && untold.is_empty(),
        "{unknown:?} {untold:?}"
    );
    for promise in values(&list, "promise") {
        for id in promise.split(' ') {
            assert!(rows(&table).any(|row| row[0] == id), "{id}");
        }
    }
}
