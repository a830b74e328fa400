//! The Dockerfile beside a new handler.

use super::languages::{Image, LanguageTemplate};

/// The image that the function ends in, unless its language has one of its own.
const DEBIAN: &str = "debian:bookworm-slim";

/// The text of the Dockerfile: the runtime of the language, the worker by one line, the handler.
pub(super) fn text(language: &LanguageTemplate) -> String {
    let LanguageTemplate { file, build, .. } = language;
    let packages = language.packages.join(" ");
    let install = format!(
        "RUN apt-get update && apt-get install --yes --no-install-recommends {packages} \\\n    \
         && rm -rf /var/lib/apt/lists/*\n"
    );
    let build = build.unwrap_or_default();
    let program = language.command.trim_start_matches("./");
    let (before, base, handler) = match language.image {
        Image::Debian if packages.is_empty() => {
            (String::new(), DEBIAN, format!("COPY {file} ./\n"))
        }
        Image::Debian => (String::new(), DEBIAN, format!("{install}COPY {file} ./\n")),
        Image::Other(image) => (String::new(), image, format!("COPY {file} ./\n")),
        Image::DebianAfterBuild => (
            format!(
                "FROM {DEBIAN} AS build\n{install}WORKDIR /src\nCOPY {file} ./\nRUN {build}\n\n"
            ),
            DEBIAN,
            format!("COPY --from=build /src/{program} ./\n"),
        ),
        Image::RustAfterBuild => (
            format!(
                "FROM rust:1-slim-bookworm AS build\nWORKDIR /src\nCOPY Cargo.toml ./\n\
                 COPY src src\nRUN {build}\n\n"
            ),
            DEBIAN,
            format!("COPY --from=build /src/{program} ./{program}\n"),
        ),
    };
    let handler_function = language.command;
    format!(
        "# docker build -t reading .\n\
         # docker run --rm -p 127.0.0.1:8000:8000 -e FAAS_ALLOW_HOST=localhost reading\n\
         {before}\
         FROM {base}\n\
         COPY --from=faas-worker /usr/local/bin/faas-worker /usr/local/bin/\n\
         WORKDIR /app\n\
         {handler}\
         # A number, so that a platform can see that it is not root.\n\
         USER 65532:65532\n\
         # A balancer sends requests for a moment after the worker was told to stop.\n\
         ENV HOST=0.0.0.0 PORT=8000 FAAS_DRAIN_DELAY=2s\n\
         ENV HANDLER_FUNCTION=\"{handler_function}\"\n\
         EXPOSE 8000\n\
         HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \\\n    \
         CMD [\"faas-worker\", \"health\", \"--ready\"]\n\
         ENTRYPOINT [\"faas-worker\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::new::language;

    #[test]
    fn a_language_with_packages_gets_them_into_the_image() {
        let text = text(language("awk").unwrap());
        assert!(text.contains("FROM debian:bookworm-slim\nCOPY --from=faas-worker"));
        assert!(text.contains("--no-install-recommends gawk \\\n    && rm"));
        assert!(text.contains("COPY reading.awk ./\n"));
        assert!(text.contains("ENV HANDLER_FUNCTION=\"gawk -f reading.awk\"\n"));
    }

    #[test]
    fn what_builds_a_program_stays_out_of_its_image() {
        for (name, copied) in [
            ("go", "COPY --from=build /src/reading ./\n"),
            (
                "rust",
                "COPY --from=build /src/target/release/reading ./target/release/reading\n",
            ),
        ] {
            let text = text(language(name).unwrap());
            let (build, image) = text.split_once("\n\n").unwrap();
            assert!(build.contains("AS build\n"), "{build}");
            assert!(image.starts_with("FROM debian:bookworm-slim\n"), "{image}");
            assert!(image.contains(copied), "{image}");
            assert!(!image.contains("apt-get"), "{image}");
        }
    }
}
