//! Tests of the picture and its drawing, on screens in memory.

use super::super::screen::draw;
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use std::time::Duration;

fn process(number: u32, working: Option<f64>) -> ProcessRow {
    ProcessRow {
        process: u64::from(number),
        pid: 4000 + number,
        state: if working.is_some() { "busy" } else { "idle" }.to_owned(),
        request_id: working.map(|_| format!("5f3a9c01-{number}")),
        working_seconds: working,
        served: 100 + u64::from(number),
        restarts: 2,
        resident_bytes: Some(12_345_678),
        cpu_seconds: Some(8.0),
        age_seconds: 80.0,
        last_stderr_seconds: None,
    }
}

/// A reading of a worker of so many processes, or at one that does not tell them.
pub(in crate::commands::top) fn reading_of(
    total: u64,
    processes: Option<Vec<ProcessRow>>,
) -> Reading {
    let stats = format!(
        r#"{{"version":"0.2.0","ready":true,"uptime_seconds":81.2,"demand":5.2,"busy_ratio":0.81,
        "queue":{{"length":2,"limit":1024,"oldest_seconds":0.013}},
        "processes":{{"up":4,"busy":3,"starting":0,"limit":4,"capacity":4}},
        "requests":{{"active":3,"total":{total},"failed":12}}}}"#
    );
    let stats = serde_json::from_str(&stats).unwrap();
    Reading {
        at: Instant::now(),
        stats,
        processes,
    }
}

/// The screen as text, and the colours of its lines' first cells.
fn screen(picture: &Picture, width: u16, height: u16, now: Instant) -> (Vec<String>, Vec<Color>) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, picture, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    let lines = (0..height).map(|y| line(y).trim_end().to_owned()).collect();
    let colours = (0..height).map(|y| buffer[(0, y)].fg).collect();
    (lines, colours)
}

#[test]
fn one_process_is_drawn_in_eighty_and_two_hundred_columns() {
    let picture = Picture::new(reading_of(18234, Some(vec![process(3, Some(1.25))])));
    let head = [
        "faas-worker 0.2.0, ready, up 1m21s, by time at work",
        "requests -/s, 3 active, 12 failed of 18234; queue 2/1024, oldest 13ms",
        "busy [||||||||||||||||    ] 81%; processes 3 busy, 4 up, 0 starting, at most 4",
    ];
    for (width, table) in [
        (
            80,
            [
                "PROCESS     PID STATE    WORKING REQUEST            SERVED  MEMORY   CPU%    AGE",
                "      3    4003 busy        1.2s 5f3a9c01-3            103   11.8M   10.0  1m20s",
            ],
        ),
        (
            200,
            [
                "PROCESS     PID STATE    WORKING REQUEST            SERVED RESTARTS  MEMORY   CPU%    AGE LAST STDERR",
                "      3    4003 busy        1.2s 5f3a9c01-3            103        2   11.8M   10.0  1m20s           -",
            ],
        ),
    ] {
        let (lines, colours) = screen(&picture, width, 7, picture.last.at);
        let end = ["", "q ends, s sorts, p pauses"];
        let expected = [&head[..], &table, &end].concat();
        assert_eq!(lines, expected, "{width}");
        assert_eq!(colours[4], Color::Yellow);
    }
}

#[test]
fn a_hung_process_of_64_is_on_top_and_red() {
    let mut all: Vec<ProcessRow> = (0..64).map(|number| process(number, None)).collect();
    all[40] = process(40, Some(75.0));
    all[50] = process(50, Some(0.2));
    let picture = Picture::new(reading_of(1, Some(all)));
    for width in [80, 200] {
        let (lines, colours) = screen(&picture, width, 24, picture.last.at);
        assert!(
            lines[4].starts_with("     40    4040 busy       1m15s"),
            "{lines:?}"
        );
        assert!(lines[5].starts_with("     50    4050 busy"), "{lines:?}");
        assert!(
            lines[6].starts_with("      0    4000 idle           -"),
            "{lines:?}"
        );
        assert_eq!(colours[4..6], [Color::Red, Color::Reset]);
        assert_eq!(lines[22], "and 46 more");
    }
}

#[test]
fn a_worker_without_an_admin_address_has_a_head_and_a_hint() {
    let picture = Picture::new(reading_of(1, None));
    let lines = picture.lines(80, 24, picture.last.at);
    assert_eq!(lines.len(), 4);
    assert!(lines[3].0.contains("--admin"));
}

#[test]
fn a_worker_that_is_gone_leaves_its_last_picture() {
    let mut picture = Picture::new(reading_of(1, Some(vec![process(3, None)])));
    let start = picture.last.at;
    let after = |seconds| start + Duration::from_secs(seconds);
    let line = |picture: &Picture, now| picture.lines(80, 24, now)[3].clone();
    picture.take(Err("refused".to_owned()), after(1));
    picture.take(Err("timed\nout".to_owned()), after(2));
    let gone = ("gone for 4.0s: timed?out".to_owned(), Tone::Alarm);
    assert_eq!(line(&picture, after(5)), gone);
    picture.take(Ok(reading_of(2, None)), after(6));
    assert!(line(&picture, after(6)).0.contains("--admin"));
}

#[test]
fn rates_are_of_the_time_between_two_samples() {
    let mut picture = Picture::new(reading_of(100, Some(vec![process(3, None)])));
    let mut next = reading_of(150, Some(vec![process(3, None), process(4, None)]));
    next.at = picture.last.at + Duration::from_secs(2);
    let processes = next.processes.as_mut().unwrap();
    processes[0].cpu_seconds = Some(9.0);
    picture.take(Ok(next), Instant::now());
    assert_eq!(picture.requests_per_second(), Some(25.0));
    let shares: Vec<_> = picture
        .last
        .processes
        .iter()
        .flatten()
        .map(|one| picture.cpu(one))
        .collect();
    assert_eq!(shares, [Some(50.0), Some(10.0)]);
}

#[test]
fn a_paused_picture_stays() {
    let mut picture = Picture::new(reading_of(1, None));
    picture.paused = true;
    picture.take(Ok(reading_of(2, None)), Instant::now());
    assert_eq!(picture.last.stats.requests.total, 1);
}

#[test]
fn processes_are_sorted_by_each_choice() {
    let mut all: Vec<ProcessRow> = (1..=3).map(|number| process(number, None)).collect();
    all[1].working_seconds = Some(1.0);
    all[2].resident_bytes = Some(99_999_999);
    all[0].cpu_seconds = None;
    all[1].cpu_seconds = Some(70.0);
    let mut picture = Picture::new(reading_of(1, None));
    for (sort, expected) in [
        (Sort::Working, [2, 1, 3]),
        (Sort::Memory, [3, 1, 2]),
        (Sort::Cpu, [2, 3, 1]),
        (Sort::Served, [3, 2, 1]),
        (Sort::Process, [1, 2, 3]),
    ] {
        assert_eq!(picture.sort, sort);
        let order: Vec<_> = picture
            .sorted(&all)
            .iter()
            .map(|(one, _)| one.process)
            .collect();
        assert_eq!(order, expected, "{sort:?}");
        picture.sort = sort.next();
    }
    assert_eq!(picture.sort, Sort::Working);
}
