//! The languages of `faas-worker new`: the file of each, and how it is built and run.

/// A language, with its handler from `examples/`.
#[derive(Debug)]
pub(super) struct LanguageTemplate {
    /// The word on the command line.
    pub(super) name: &'static str,
    /// Other words for it.
    aliases: &'static [&'static str],
    /// The language in full.
    pub(super) title: &'static str,
    /// Path of the handler in the directory.
    pub(super) file: &'static str,
    /// The handler itself.
    pub(super) source: &'static str,
    /// Path and text of the file that tells the language's own tool how to build.
    pub(super) manifest: Option<(&'static str, &'static str)>,
    /// The command that builds it, if it must be built.
    pub(super) build: Option<&'static str>,
    /// The command that runs it, split into words as a shell does.
    pub(super) command: &'static str,
    /// Packages of Debian that build or run it.
    pub(super) packages: &'static [&'static str],
    /// The runtime of the command, where Debian has no package of it.
    pub(super) runtime: Option<&'static str>,
    /// Where the image of the function comes from.
    pub(super) image: Image,
}

/// The image of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    /// Debian, with the packages.
    Debian,
    /// Debian; the packages are needed for the build alone.
    DebianAfterBuild,
    /// Another image, which has the language.
    Other(&'static str),
    /// Rust's image for the build, Debian for the program.
    RustAfterBuild,
}

/// A language that needs neither a build nor a package.
const PLAIN: LanguageTemplate = LanguageTemplate {
    name: "",
    aliases: &[],
    title: "",
    file: "",
    source: "",
    manifest: None,
    build: None,
    command: "",
    packages: &[],
    runtime: None,
    image: Image::Debian,
};

macro_rules! example {
    ($path:literal) => {
        include_str!(concat!("../../../examples/", $path))
    };
}

/// All languages, in the order of the list.
pub(super) const LANGUAGES: &[LanguageTemplate] = &[
    LanguageTemplate {
        name: "sh",
        aliases: &["shell", "posix"],
        title: "POSIX shell",
        file: "reading.sh",
        source: example!("shell/reading.sh"),
        command: "sh reading.sh",
        ..PLAIN
    },
    LanguageTemplate {
        name: "bash",
        title: "bash",
        file: "reading.bash",
        source: example!("shell/reading.bash"),
        command: "bash reading.bash",
        ..PLAIN
    },
    LanguageTemplate {
        name: "awk",
        aliases: &["gawk"],
        title: "awk (GNU awk)",
        file: "reading.awk",
        source: example!("awk/reading.awk"),
        command: "gawk -f reading.awk",
        packages: &["gawk"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "jq",
        title: "jq",
        file: "reading.jq",
        source: example!("jq/reading.jq"),
        command: "jq --unbuffered -ncf reading.jq",
        packages: &["jq"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "python",
        aliases: &["py", "python3"],
        title: "Python",
        file: "reading.py",
        source: example!("python/reading.py"),
        command: "python3 reading.py",
        packages: &["python3"],
        image: Image::Other("python:3-slim-bookworm"),
        ..PLAIN
    },
    LanguageTemplate {
        name: "python-async",
        aliases: &["asyncio"],
        title: "Python with asyncio",
        file: "reading_async.py",
        source: example!("python/reading_async.py"),
        command: "python3 reading_async.py",
        packages: &["python3"],
        image: Image::Other("python:3-slim-bookworm"),
        ..PLAIN
    },
    LanguageTemplate {
        name: "javascript",
        aliases: &["js", "node", "nodejs"],
        title: "JavaScript (Node)",
        file: "reading.js",
        source: example!("javascript/reading.js"),
        command: "node reading.js",
        packages: &["nodejs"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "typescript",
        aliases: &["ts"],
        title: "TypeScript (Node 22.6 or later, without a build)",
        file: "reading.mts",
        source: example!("typescript/reading.mts"),
        command: "node --experimental-strip-types reading.mts",
        runtime: Some("Node 22.6 or later"),
        image: Image::Other("node:22-slim"),
        ..PLAIN
    },
    LanguageTemplate {
        name: "ruby",
        aliases: &["rb"],
        title: "Ruby",
        file: "reading.rb",
        source: example!("ruby/reading.rb"),
        command: "ruby reading.rb",
        packages: &["ruby"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "php",
        title: "PHP",
        file: "reading.php",
        source: example!("php/reading.php"),
        command: "php reading.php",
        packages: &["php-cli"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "perl",
        aliases: &["pl"],
        title: "Perl",
        file: "reading.pl",
        source: example!("perl/reading.pl"),
        command: "perl reading.pl",
        packages: &["perl"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "lua",
        title: "Lua",
        file: "reading.lua",
        source: example!("lua/reading.lua"),
        command: "lua5.4 reading.lua",
        packages: &["lua5.4", "lua-dkjson"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "r",
        title: "R",
        file: "reading.R",
        source: example!("r/reading.R"),
        command: "Rscript reading.R",
        packages: &["r-base-core", "r-cran-jsonlite"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "go",
        aliases: &["golang"],
        title: "Go",
        file: "reading.go",
        source: example!("go/reading.go"),
        build: Some("go build reading.go"),
        command: "./reading",
        packages: &["golang-go"],
        image: Image::DebianAfterBuild,
        ..PLAIN
    },
    LanguageTemplate {
        name: "java",
        title: "Java",
        file: "Reading.java",
        source: example!("java/Reading.java"),
        command: "java -cp /usr/share/java/gson.jar Reading.java",
        packages: &["default-jdk-headless", "libgoogle-gson-java"],
        ..PLAIN
    },
    LanguageTemplate {
        name: "c",
        title: "C",
        file: "reading.c",
        source: example!("c/reading.c"),
        build: Some("cc -O2 -o reading reading.c"),
        command: "./reading",
        packages: &["gcc", "libc6-dev"],
        image: Image::DebianAfterBuild,
        ..PLAIN
    },
    LanguageTemplate {
        name: "rust",
        aliases: &["rs"],
        title: "Rust",
        file: "src/main.rs",
        source: example!("rust/reading.rs"),
        manifest: Some(("Cargo.toml", RUST_MANIFEST)),
        build: Some("cargo build --release"),
        command: "target/release/reading",
        image: Image::RustAfterBuild,
        ..PLAIN
    },
];

const RUST_MANIFEST: &str = concat!(
    "[package]\n\
     name = \"reading\"\n\
     version = \"0.1.0\"\n\
     edition = \"2024\"\n\
     \n\
     [dependencies]\n\
     # From a checkout of faas-worker: add path = \"...\", the folder of the checkout.\n\
     faas-worker = { version = \"",
    env!("CARGO_PKG_VERSION"),
    "\", default-features = false, features = [\"handler\"] }\n\
     serde = { version = \"1\", features = [\"derive\"] }\n"
);

/// The language of this name or alias, in any case.
pub(super) fn language(word: &str) -> Option<&'static LanguageTemplate> {
    let word = word.to_lowercase();
    LANGUAGES
        .iter()
        .find(|language| language.name == word || language.aliases.contains(&&*word))
}

/// The language whose name or alias differs from the word only by a typing error.
pub(super) fn closest(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    let distances = LANGUAGES.iter().flat_map(|language| {
        let names = language.aliases.iter().copied().chain([language.name]);
        let word = &word;
        names.filter_map(move |name| {
            let distance = strsim::damerau_levenshtein(name, word);
            // In a name of two letters, any difference is another name.
            (distance <= (name.len() / 3).min(2)).then_some((distance, language.name))
        })
    });
    Some(distances.min_by_key(|(distance, _)| *distance)?.1)
}

/// The names of all languages.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    LANGUAGES.iter().map(|language| language.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_language_is_told() {
        for (word, meant) in [
            ("pyton", Some("python")),
            ("Pyhton", Some("python")),
            ("pythno3", Some("python")),
            ("cobol", None),
            ("q", None),
            ("", None),
        ] {
            assert_eq!(closest(word), meant, "{word}");
        }
    }

    #[test]
    fn each_word_means_one_language() {
        let mut words: Vec<&str> = LANGUAGES
            .iter()
            .flat_map(|language| language.aliases.iter().copied().chain([language.name]))
            .collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
        for word in words {
            assert!(language(&word.to_uppercase()).is_some(), "{word}");
        }
    }
}
