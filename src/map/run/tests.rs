use super::*;
use crate::answer::Outcome;
use crate::config::map::{Halt, InputForm, Resume, ShowProgress};
use crate::map::lines::RawLine;
use crate::map::output::{Files, Sink};
use crate::map::stderr::Stderr;
use crate::pool::tests::pool_for;

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn config() -> MapConfig {
    MapConfig {
        inputs: Vec::new(),
        output: None,
        form: InputForm::Text,
        with_input: false,
        raw: false,
        unordered: false,
        window: Some(count(100)),
        least_window: count(1),
        most_window: count(100),
        window_bytes: 1000,
        longest_line: 10_000,
        attempts: count(1),
        halt: Halt::Never,
        job_log: Some("log".into()),
        resume: Resume::No,
        progress: ShowProgress::Never,
        exit_zero: false,
    }
}

/// The output and the progress of a run that writes nowhere.
fn nowhere() -> (Output, Progress) {
    let file = std::fs::File::options().write(true).open("/dev/null");
    let output = Sink {
        name: "nowhere".to_owned(),
        file: file.unwrap(),
    };
    let files = Files {
        output,
        job_log: None,
    };
    let teller = Stderr::start().unwrap().teller();
    let progress = Progress::new(ShowProgress::Never, false, None, teller.clone());
    (Output::start(files, teller).unwrap(), progress)
}

fn line(length: usize) -> InputLine {
    let text = RawLine::Whole(vec![b'x'; length].into());
    InputLine::new(1, text, &InputForm::Text, 10_000)
}

fn done(outcome: Outcome) -> Done {
    Done {
        line: line(1),
        outcome,
        called: Instant::now(),
        times: None,
    }
}

fn no_input() -> Input {
    let (_, batches) = mpsc::channel(1);
    Input {
        batches,
        size: None,
    }
}

fn patience() -> Patience {
    Patience::new(count(1))
}

#[tokio::test]
async fn items_in_hand_are_bounded_by_their_number_and_by_their_bytes() {
    let (pool, budget) = (pool_for(100), MemoryBudget::new(u64::MAX));
    for (window, length, expected) in [
        (100, 300, 4),
        (3, 300, 3),
        (100, 1000, 1),
        // An item that is longer than all that may be in hand is in hand alone.
        (100, 3000, 1),
        (100, 1, 20),
    ] {
        let config = MapConfig {
            window: Some(count(window)),
            ..config()
        };
        let (output, progress) = nowhere();
        let mut run = Run::new(&config, &output, progress);
        run.read_lines.extend((0..20).map(|_| line(length)));
        let mut items = Window::new(&pool, &budget, false, patience());
        run.fill(&mut items, &mut no_input());
        assert_eq!(items.len(), expected, "{window} {length}");
    }
}

#[tokio::test]
async fn a_signal_leaves_over_an_item_whose_process_it_ended_and_in_order_all_behind_it() {
    let died = || Err(RequestFailure::Exited("SIGTERM".into()));
    let well = || Ok("{\"result\":1}".into());
    for (stage, has_log, unordered, is_halted, expected) in [
        (Stage::Draining, true, false, false, [false, true, true]),
        (Stage::Draining, true, true, false, [false, true, false]),
        (Stage::Serving, true, false, false, [false; 3]),
        (Stage::Draining, false, false, false, [false; 3]),
        (Stage::Draining, true, false, true, [false; 3]),
    ] {
        let config = MapConfig {
            job_log: has_log.then(|| "log".into()),
            unordered,
            ..config()
        };
        let (output, progress) = nowhere();
        let mut run = Run::new(&config, &output, progress);
        run.is_halted = is_halted;
        let shutdown = Shutdown::default();
        shutdown.advance(stage);
        let is_left_over =
            [well(), died(), well()].map(|outcome| run.is_left_over(&done(outcome), &shutdown));
        let told = format!("{stage:?} {has_log} {unordered} {is_halted}");
        assert_eq!(is_left_over, expected, "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_a_run_with_items_in_hand() {
    let (pool, budget) = (pool_for(100), MemoryBudget::new(u64::MAX));
    let (config, shutdown) = (config(), Shutdown::default());
    let (output, progress) = nowhere();
    let mut run = Run::new(&config, &output, progress);
    let mut window = Window::new(&pool, &budget, false, patience());
    window.push(line(1));
    shutdown.advance(Stage::Draining);
    // As if a process had it.
    run.has_stopped_reading = true;
    run.reads_on = false;
    let mut input = no_input();
    let working = run.work(&pool, &mut window, &mut input, &shutdown);
    let signal = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shutdown.advance(Stage::Killing);
    };
    let ended = timeout(Duration::from_secs(9), async {
        tokio::join!(working, signal).0
    });
    assert_eq!(ended.await, Ok(BatchEnd::Killed));
    // Also where items end one after the other, and nothing is waited for.
    let end = run.begin_items(&pool, &mut window, &mut input, &shutdown);
    assert_eq!(end, Some(BatchEnd::Killed));
}

/// A terminal and systemd send a signal to a process and to the worker; whichever is first.
#[tokio::test(start_paused = true)]
async fn a_death_by_a_signal_to_both_is_told_from_others_by_a_short_wait() {
    let millis = Duration::from_millis;
    for (why, has_log, told_after, waited) in [
        ("SIGTERM", true, Some(millis(150)), millis(150)),
        ("SIGINT", true, None, SIGNALS_COME_WITHIN),
        ("SIGSEGV", true, None, Duration::ZERO),
        // Without a job log no run goes on with what this one leaves over.
        ("SIGTERM", false, None, Duration::ZERO),
    ] {
        let config = MapConfig {
            job_log: has_log.then(|| "log".into()),
            ..config()
        };
        let (output, progress) = nowhere();
        let run = Run::new(&config, &output, progress);
        let shutdown = Shutdown::default();
        let signal = async {
            if let Some(after) = told_after {
                tokio::time::sleep(after).await;
                shutdown.advance(Stage::Draining);
            }
        };
        let done = [done(Err(RequestFailure::Exited(why.into())))];
        let begun = tokio::time::Instant::now();
        tokio::join!(run.wait_for_signal(&done, &shutdown), signal);
        assert_eq!(begun.elapsed(), waited, "{why} {has_log}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_item_is_looked_at_while_too_much_is_unwritten() {
    let (pool, budget) = (pool_for(100), MemoryBudget::new(u64::MAX));
    let (config, shutdown) = (config(), Shutdown::default());
    for (unwritten, ended) in [(MOST_UNWRITTEN - 1, 1), (MOST_UNWRITTEN, 0)] {
        let (output, progress) = nowhere();
        let mut run = Run::new(&config, &output, progress);
        // A reader that takes nothing.
        let (lines, _reader) = mpsc::channel(1);
        lines.try_send(Lines::default()).unwrap();
        run.output = lines;
        run.unwritten.replies = vec![b'x'; unwritten];
        let mut window = Window::new(&pool, &budget, false, patience());
        // No text, so that no process gets the item: it ends as soon as it is looked at.
        let text = RawLine::Whole(vec![0xff].into());
        window.push(InputLine::new(1, text, &InputForm::Text, 10_000));
        let mut input = no_input();
        let working = run.work(&pool, &mut window, &mut input, &shutdown);
        let _ = timeout(Duration::from_secs(1), working).await;
        assert_eq!(run.counts.ended(), ended, "{unwritten}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_process_got_the_signal_before_the_worker_is_left_over() {
    let (pool, budget) = (pool_for(100), MemoryBudget::new(u64::MAX));
    let (config, shutdown) = (config(), Shutdown::default());
    let (output, progress) = nowhere();
    let mut run = Run::new(&config, &output, progress);
    let mut window = Window::new(&pool, &budget, false, patience());
    // As if a process had ended with it.
    let mut item = line(1);
    item.payload = Err(RequestFailure::Exited("SIGTERM".into()));
    window.push(item);
    let mut input = no_input();
    let working = run.work(&pool, &mut window, &mut input, &shutdown);
    let signal = async {
        tokio::time::sleep(SIGNALS_COME_WITHIN / 2).await;
        shutdown.advance(Stage::Draining);
    };
    let (end, ()) = tokio::join!(working, signal);
    assert_eq!(end, BatchEnd::Whole);
    assert_eq!((run.counts.ended(), run.unfinished), (0, 1));
}
