//! Where processes start: a path, looked up anew at each start, as releases are put in place by
//! moving a link.

use crate::support::{
    Builder, Scratch, Worker, assert_error, assert_result, eventually, processes, rust_example,
};
use rustix::process::Signal;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Releases of a handler that answers with the number of its release, and a link to one of them.
struct Releases(Scratch);

impl Releases {
    fn new() -> Releases {
        let releases = Releases(Scratch::new());
        for number in 1..=3 {
            releases.add(number);
        }
        releases.link(&releases.0.path("1"), "current");
        releases
    }

    fn add(&self, number: u32) {
        let script = format!(
            "#!/bin/sh\nprintf '{{\"ready\":true}}\\n'\nwhile IFS= read -r line; do \
             printf '{{\"result\":\"%s in %s\"}}\\n' {number} \"${{PWD##*/}}\"; done\n"
        );
        std::fs::create_dir(self.0.path(&number.to_string())).unwrap();
        self.0.file(&format!("{number}/handler.sh"), 0o755, script);
    }

    /// Makes or moves a link, in one step as deployments do.
    fn link(&self, target: &str, name: &str) {
        let new = self.0.path("new");
        symlink(target, &new).unwrap();
        std::fs::rename(new, self.0.path(name)).unwrap();
    }

    fn current(&self) -> String {
        self.0.path("current")
    }

    /// A worker that was started in the folder that the link means, by way of the link.
    fn worker(&self) -> Builder {
        Builder::new(vec!["./handler.sh".to_owned()])
            .option("--processes", "1")
            .directory(self.current())
            .environment("PWD", &self.current())
    }
}

#[track_caller]
fn wait_for(worker: &Worker, answer: &str) {
    eventually(&format!("answers {answer:?}"), || {
        let response = worker.post("which");
        assert_eq!(response.status, 200, "{}", response.text());
        (response.json()["result"] == answer).then_some(())
    });
}

#[test]
fn a_link_that_was_moved_is_followed_by_the_next_start_and_the_next_reload() {
    let releases = Releases::new();
    let worker = releases.worker().start();
    assert_result(&worker.post("which"), "1 in current");
    worker
        .log
        .wait_for(&["processes start in", &releases.0.path("1")]);
    releases.link(&releases.0.path("2"), "current");
    assert_result(&worker.post("which"), "1 in current");
    let old = worker.wait_for_processes(1)[0];
    processes::signal(old, Signal::KILL);
    worker
        .log
        .wait_for(&["processes start in", &releases.0.path("2")]);
    worker.wait_for_starts(2);
    assert_result(&worker.post("which"), "2 in current");
    releases.link(&releases.0.path("3"), "current");
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
    assert_result(&worker.post("which"), "3 in current");
}

/// A release may be put in place of the old one's folder, too.
#[test]
fn a_folder_that_took_the_place_of_the_working_directory_is_the_one_that_counts() {
    let releases = Releases::new();
    let home = releases.0.path("1");
    let worker = Builder::new(vec!["./handler.sh".to_owned()])
        .option("--processes", "1")
        .directory(&home)
        .environment("PWD", &home)
        .start();
    assert_result(&worker.post("which"), "1 in 1");
    std::fs::rename(&home, releases.0.path("old")).unwrap();
    std::fs::rename(releases.0.path("2"), &home).unwrap();
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
    assert_result(&worker.post("which"), "2 in 1");
}

/// A `PWD` that names another folder is left over from the parent of the worker.
#[test]
fn the_working_directory_counts_where_pwd_means_another() {
    let releases = Releases::new();
    for pwd in [releases.0.path("2"), "current".to_owned(), String::new()] {
        let worker = releases.worker().environment("PWD", &pwd).start();
        let answer = worker.post("which").json()["result"].clone();
        assert!(answer.as_str().unwrap().starts_with("1 in"), "{answer}");
    }
}

#[test]
fn the_chosen_folder_is_where_processes_start_and_relative_commands_are_looked_for() {
    let releases = Releases::new();
    let elsewhere = Builder::new(vec!["./handler.sh".to_owned()])
        .option("--processes", "1")
        .directory("/")
        .environment("PWD", "/");
    let worker = elsewhere
        .clone()
        .option("--chdir", &releases.current())
        .start();
    assert_result(&worker.post("which"), "1 in current");
    releases.link(&releases.0.path("2"), "current");
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
    assert_result(&worker.post("which"), "2 in current");
    // By the variable, and relative to where the worker is started.
    let worker = elsewhere
        .directory(releases.0.directory())
        .environment("PWD", &releases.0.directory().display().to_string())
        .environment("FAAS_CHDIR", "3")
        .start();
    assert_result(&worker.post("which"), "3 in 3");
}

#[test]
fn a_folder_that_cannot_be_entered_is_named() {
    let releases = Releases::new();
    let output = releases
        .worker()
        .option("--chdir", "/no/such/folder")
        .output();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("--chdir (FAAS_CHDIR)") && said.contains("/no/such/folder"),
        "{said}"
    );
    // A folder that disappears later fails the next starts with the reason, and is found again.
    let worker = releases.worker().start();
    assert_result(&worker.post("which"), "1 in current");
    std::fs::remove_file(releases.current()).unwrap();
    processes::signal(worker.wait_for_processes(1)[0], Signal::KILL);
    worker.log.wait_for(&[
        "directory to start in cannot be entered",
        &releases.current(),
    ]);
    assert_error(&worker.post("which"), 503, "handler_unavailable", "no");
    releases.link(&releases.0.path("2"), "current");
    eventually("it starts again", || {
        let response = worker.post("which");
        (response.status == 200).then(|| assert_result(&response, "2 in current"))
    });
}

#[test]
fn a_moved_link_is_a_change_for_a_watch() {
    let releases = Releases::new();
    let watched = [
        releases.worker().flag("--reload"),
        releases
            .worker()
            .flag(&format!("--reload={}", releases.current())),
        // The folder is watched by what the command names.
        releases
            .worker()
            .flag(&format!("--reload={}", releases.0.path("3"))),
    ];
    for builder in watched {
        releases.link(&releases.0.path("1"), "current");
        let worker = builder.start();
        wait_for(&worker, "1 in current");
        releases.link(&releases.0.path("2"), "current");
        wait_for(&worker, "2 in current");
        // An edit in the new folder counts too.
        releases.0.file(
            "2/handler.sh",
            0o755,
            std::fs::read(releases.0.path("1/handler.sh")).unwrap(),
        );
        wait_for(&worker, "1 in current");
        std::fs::remove_dir_all(releases.0.path("2")).unwrap();
        releases.add(2);
    }
}

/// As the kubelet updates a ConfigMap that is mounted.
#[test]
fn a_config_map_that_is_updated_is_a_change_for_a_watch() {
    let releases = Releases::new();
    for (number, name) in [("1", "..2026_01"), ("2", "..2026_02")] {
        std::fs::rename(releases.0.path(number), releases.0.path(name)).unwrap();
    }
    releases.link("..2026_01", "..data");
    releases.link("..data/handler.sh", "handler.sh");
    let mount = releases.0.directory().display().to_string();
    let worker = Builder::new(vec!["sh".to_owned(), format!("{mount}/handler.sh")])
        .option("--processes", "1")
        .directory("/")
        .environment("PWD", "/")
        .flag(&format!("--reload={mount}"))
        .start();
    wait_for(&worker, "1 in ");
    releases.link("..2026_02", "..data");
    wait_for(&worker, "2 in ");
    worker
        .log
        .wait_for(&["files have changed", &format!("{mount}/handler.sh")]);
}

fn inotify_watches(pid: u32) -> usize {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    texts.map(|text| text.matches("inotify wd:").count()).sum()
}

/// A link to `/usr` brought 18,082 watches, and a thread that answered nothing for five seconds.
#[test]
fn links_to_folders_elsewhere_are_not_watched() {
    let releases = Releases::new();
    let worker = releases.worker().flag("--reload");
    releases.link("/usr", "1/usr");
    releases.link(".", "1/loop");
    std::fs::create_dir_all(releases.0.path("1/node_modules/a/b/c")).unwrap();
    let worker = worker.start();
    worker.wait_until_ready();
    let watches = inotify_watches(worker.pid());
    assert!((1..=10).contains(&watches), "{watches} watches");
}

/// A program whose writer keeps it open long after its last write, as a slow copy does.
#[test]
fn a_program_that_is_being_written_is_waited_for() {
    let scratch = Scratch::new();
    let program = std::fs::read(rust_example("careless")).unwrap();
    let handler = scratch.file("handler", 0o755, &program);
    let worker = Builder::new(vec![handler.clone()])
        .option("--processes", "1")
        .flag(&format!("--reload={}", scratch.path("")))
        .start();
    worker.wait_until_ready();
    for (held, fails) in [
        (Duration::from_millis(400), false),
        (Duration::from_secs(4), true),
    ] {
        let reloads = || worker.log.text().matches("reload done").count();
        // The end of the last write may have begun one more.
        eventually("no reload is under way", || {
            let log = worker.log.text();
            let count = |text| log.matches(text).count();
            let over = count("reload done") + count("reload failed") + count("starting over");
            (count("reload begun") == over).then_some(())
        });
        let before = reloads();
        let begun = std::time::Instant::now();
        let writer = replace_slowly(&handler, &program);
        worker.log.wait_for(&["files have changed", &handler]);
        if fails {
            worker.log.wait_for(&["is being written"]);
        }
        std::thread::sleep(held.saturating_sub(begun.elapsed()));
        assert_eq!(reloads(), before, "it cannot be executed yet");
        let failures = worker.log.text().matches("is being written").count();
        assert_eq!(failures > 0, fails, "it is waited for, and not for ever");
        drop(writer);
        eventually("the new one serves", || (reloads() > before).then_some(()));
        assert_result(&worker.post("x"), "x");
        worker.wait_for_processes(1);
    }
}

/// Puts a new file in the place of the handler; gives the file, still open for writing.
fn replace_slowly(handler: &str, program: &[u8]) -> std::fs::File {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::remove_file(handler).unwrap();
    let mut options = std::fs::File::options();
    let mut writer = options
        .create_new(true)
        .write(true)
        .mode(0o755)
        .open(handler)
        .unwrap();
    for piece in program.chunks(program.len() / 4 + 1) {
        writer.write_all(piece).unwrap();
    }
    writer
}
