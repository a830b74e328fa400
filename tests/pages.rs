//! The README and the pages in docs: settings as `--help` has them, and links that lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::Builder;

const README: &str = include_str!("../README.md");

/// Each long flag of `--help` with the text behind it, up to the next flag.
fn flags_of_help() -> BTreeMap<String, String> {
    let output = Builder::new(Vec::new()).bare().flag("--help").output();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, options) = help.split_once("\nOptions:\n").unwrap();
    let mut flags = BTreeMap::new();
    let mut current = String::new();
    for line in options.lines() {
        let is_flag = line.starts_with("  -") || line.starts_with("      --");
        if let Some(at) = line.find("--").filter(|_| is_flag) {
            let name = line[at..].chars();
            current = name
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
        }
        // Where a line is wrapped in the middle of `[default: …]`.
        let text = flags.entry(current.clone()).or_insert_with(String::new);
        *text += line.trim();
        text.push(' ');
    }
    flags.remove("");
    flags
}

/// The value of `[env: …]` or `[default: …]` in a flag's help.
fn bracketed<'a>(help: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = help.split_once(&format!("[{name}: "))?;
    rest.split_once(']').map(|(value, _)| value)
}

/// The first two columns and the third of the README's table of settings, by flag.
fn settings_of_readme() -> BTreeMap<String, (String, String)> {
    let (_, section) = README.split_once("\n## Settings\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `--"));
    let count = rows.clone().count();
    let settings: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let flag = cells[1].trim_start_matches('`');
            let flag = flag.chars();
            let flag = flag.take_while(|c| c.is_ascii_lowercase() || *c == '-');
            let variable = cells[2].trim_matches('`').to_owned();
            (flag.collect(), (variable, cells[3].to_owned()))
        })
        .collect();
    assert_eq!(settings.len(), count, "a setting has one row");
    settings
}

#[test]
fn the_settings_of_the_readme_are_those_of_the_help() {
    let (help, readme) = (flags_of_help(), settings_of_readme());
    let not_settings = ["--help", "--version"];
    let of_help: BTreeSet<&String> = help
        .keys()
        .filter(|flag| !not_settings.contains(&flag.as_str()))
        .collect();
    assert_eq!(of_help, readme.keys().collect());
    for (flag, (variable, default)) in &readme {
        let text = &help[flag];
        assert_eq!(bracketed(text, "env"), Some(variable.as_str()), "{flag}");
        let said = bracketed(text, "default").unwrap_or("");
        if said.is_empty() {
            let is_none = ["", "false", "off"].contains(&default.as_str());
            assert!(is_none, "{flag}: README {default}, --help has no default");
        } else if said.contains(' ') {
            // Defaults that depend on the machine are put in words: their numbers are the same.
            assert_eq!(
                numbers(default),
                numbers(said),
                "{flag}: README, and --help"
            );
        } else {
            let first = default.split([',', ';']).next().unwrap();
            assert_eq!(first, said, "{flag}: README, and --help");
        }
    }
}

/// The words with a digit, `8MiB` for one.
fn numbers(text: &str) -> Vec<&str> {
    let words = text.split([' ', ',', ';']);
    words
        .filter(|word| word.contains(char::is_numeric))
        .collect()
}

/// The Markdown pages of the project.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["docs", "docs/deploy", ".github", "tests"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

/// The anchors of a page's headings, as the code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let headings = text.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        line.starts_with('#') && !is_code
    });
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_within_the_project_leads_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', ' ']).next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let is_there = file.exists();
            let has_anchor = || {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                anchor.is_empty() || anchors(&text).contains(anchor)
            };
            if !is_there || !has_anchor() {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// The rows of a page's tables, by cell.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
}

/// `scripts/bench.sh --publish` writes the figures into docs/performance.md alone.
#[test]
fn the_figures_of_the_readme_are_the_published_ones() {
    let performance = include_str!("../docs/performance.md");
    let (_, section) = README.split_once("\n## How fast it is\n").unwrap();
    let is_goal = |cells: &Vec<&str>| cells.len() == 3 && cells[0] != "what";
    let mut count = 0;
    for cells in rows(section).filter(is_goal) {
        let what = cells[0];
        let published = rows(performance).find(|published| published[0] == what);
        let published = published.unwrap_or_else(|| panic!("not published: {what}"));
        assert_eq!(cells[1..], published[1..3], "{what}");
        count += 1;
    }
    assert!((1..=10).contains(&count), "{count} figures");
}

/// The README has, of each language, the usual way against the fastest server, as published; and
/// once more where that server is measured under another load.
#[test]
fn the_servers_of_the_readme_are_the_published_ones() {
    let performance = include_str!("../docs/performance.md");
    let (_, section) = README.split_once("\n## How fast it is\n").unwrap();
    let is_pair = |cells: &Vec<&str>| cells.len() == 7 && cells[0] != "language";
    let mut expected: Vec<Vec<&str>> = Vec::new();
    for cells in rows(performance).filter(is_pair) {
        let usual = expected.iter().find(|other| other[0] == cells[0]);
        let is_usual = usual.is_none_or(|usual| cells[1].starts_with(&format!("{},", usual[1])));
        if is_usual && cells[2].ends_with(" (fastest)") {
            expected.push(cells);
        }
    }
    assert!(expected.len() >= 5, "not every language is published");
    assert_eq!(rows(section).filter(is_pair).collect::<Vec<_>>(), expected);
    let is_known = |cells: Vec<&str>| matches!(cells.len(), 3 | 7);
    assert!(rows(section).all(is_known), "a table that is not compared");
}

#[test]
fn every_page_of_docs_is_named_in_the_readme() {
    // The root itself may be a folder of that name.
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for page in pages() {
        if page.parent() == Some(docs.as_path()) {
            let name = page.file_name().unwrap().to_str().unwrap();
            assert!(README.contains(&format!("](docs/{name})")), "{name}");
        }
    }
    assert!(
        README.lines().count() <= 450,
        "the README is too long to be read"
    );
}

/// The table of rules in docs/design.md leads to files that are there, and to items in them.
#[test]
fn the_table_of_rules_leads_to_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/design.md")).unwrap();
    let (_, table) = page.split_once("## Where each rule stands").unwrap();
    let mut source = String::new();
    let mut items = 0;
    // Every second piece stands between backticks.
    for name in table.split('`').skip(1).step_by(2) {
        if name.starts_with("src/") {
            let path = root.join(name);
            assert!(path.exists(), "{name}");
            source = std::fs::read_to_string(path).unwrap_or_default();
        } else if !name.starts_with('/') {
            assert!(source.contains(name), "{name}");
            items += 1;
        }
    }
    assert!(items > 15, "{items}");
}
