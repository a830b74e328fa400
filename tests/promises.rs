//! Compares `PROMISES.md` with the rules in `mutations`, and both with the tests that exist.

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

/// A promise or a fault: a heading such as `### A1. The command is missing`, and the list below it.
struct Section {
    id: String,
    items: Vec<String>,
    is_pending: bool,
}

impl Section {
    fn is_promise(&self) -> bool {
        self.id.parse::<u32>().is_ok()
    }

    fn tests(&self) -> impl Iterator<Item = &String> {
        let items = self.items.iter();
        items.filter(|item| item.starts_with("it::") || item.starts_with("lib::"))
    }

    fn rules(&self) -> impl Iterator<Item = &String> {
        self.items.iter().filter(|item| !item.contains([':', ' ']))
    }
}

/// The sections that have a number.
fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in read("tests/PROMISES.md").lines() {
        if line.starts_with('#') {
            let id = line.trim_start_matches(['#', ' ']).split_once(". ");
            sections.push(Section {
                id: id.map_or("", |(id, _)| id).to_owned(),
                items: Vec::new(),
                is_pending: false,
            });
        } else if let (Some(section), Some(item)) = (sections.last_mut(), line.strip_prefix("- ")) {
            section.items.push(item.replace('`', ""));
        } else if let Some(section) = sections.last_mut() {
            section.is_pending |= line.starts_with("Pending: ");
        }
    }
    sections.retain(|section| !section.id.is_empty());
    sections
}

/// The values of a key of the rules: one on its line, or a list over several lines.
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
    let sections = sections();
    let mut named: BTreeSet<String> = sections.iter().flat_map(Section::tests).cloned().collect();
    assert!(named.len() > 100, "only {} tests are named", named.len());
    named.extend(values(&rules(), "tests"));
    let missing: Vec<&String> = named.iter().filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_promise_and_every_fault_is_there_once_and_has_a_test() {
    let counts = [
        ('A', 8),
        ('B', 16),
        ('C', 16),
        ('D', 7),
        ('E', 11),
        ('F', 5),
        ('G', 6),
    ];
    let mut wanted: Vec<String> = (1..=17).map(|promise| promise.to_string()).collect();
    for (letter, count) in counts {
        wanted.extend((1..=count).map(|number| format!("{letter}{number}")));
    }
    let sections = sections();
    let ids: Vec<&str> = sections.iter().map(|section| section.id.as_str()).collect();
    assert_eq!(ids, wanted);
    for section in &sections {
        let has_test = section.tests().next().is_some();
        assert!(has_test || section.is_pending, "{} has no test", section.id);
    }
}

#[test]
fn every_rule_is_of_a_promise_and_every_promise_has_its_own() {
    let list = rules();
    let names: BTreeSet<String> = values(&list, "name").into_iter().collect();
    let sections = sections();
    let mut told = BTreeSet::new();
    for section in sections.iter().filter(|section| section.is_promise()) {
        let count = section.rules().count();
        assert!(count > 0, "promise {} has no rule taken out", section.id);
        told.extend(section.rules().cloned());
    }
    let unknown: Vec<&String> = told.difference(&names).collect();
    let untold: Vec<&String> = names.difference(&told).collect();
    assert!(
        unknown.is_empty() && untold.is_empty(),
        "{unknown:?} {untold:?}"
    );
    for promise in values(&list, "promise") {
        for id in promise.split(' ') {
            assert!(sections.iter().any(|section| section.id == id), "{id}");
        }
    }
}

#[test]
fn no_line_of_the_page_is_too_long_to_be_read() {
    let page = read("tests/PROMISES.md");
    let long = page.lines().find(|line| line.chars().count() > 150);
    assert_eq!(long, None);
}
