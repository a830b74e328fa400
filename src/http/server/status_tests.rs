//! Standings, limits and stamps.

use super::*;

#[test]
fn each_phase_has_its_own_limit() {
    let table = [
        (Phase::Idle, None, 999, None),
        (Phase::Idle, None, 1_000, Some(Limit::KeepAlive)),
        (Phase::Head, None, 99, None),
        (Phase::Head, None, 100, Some(Limit::Header)),
        (Phase::Busy, None, u64::MAX, None),
        (Phase::Linger, None, 199, None),
        (Phase::Linger, None, 200, Some(Limit::Linger)),
        // While a response waits to be taken, that alone counts.
        (Phase::Idle, Some(900), 1_199, None),
        (Phase::Idle, Some(900), 1_200, Some(Limit::Write)),
        (Phase::Busy, Some(0), 299, None),
        (Phase::Busy, Some(0), 300, Some(Limit::Write)),
        (Phase::Head, Some(900), 1_000, None),
    ];
    for (phase, stalled_since_ms, now_ms, expected) in table {
        let snapshot = Snapshot {
            phase,
            since_ms: 0,
            stalled_since_ms,
            transfer: None,
        };
        assert_eq!(
            TimeLimits::of_tests().exceeded(snapshot, now_ms),
            expected,
            "{snapshot:?} at {now_ms}"
        );
    }
}

#[test]
fn a_stamp_from_the_future_is_no_limit_passed() {
    let snapshot = Snapshot {
        phase: Phase::Head,
        since_ms: 500,
        stalled_since_ms: None,
        transfer: None,
    };
    assert_eq!(TimeLimits::of_tests().exceeded(snapshot, 10), None);
}

#[test]
fn the_sweep_is_a_tenth_of_the_shortest_limit_within_bounds() {
    let period = |header_ms| {
        TimeLimits {
            header_ms,
            ..TimeLimits::of_tests()
        }
        .period()
        .as_millis()
    };
    assert_eq!((period(1), period(200), period(300_000)), (10, 20, 30));
    let long = TimeLimits {
        header_ms: 60_000,
        keep_alive_ms: 75_000,
        write_ms: 60_000,
        ..TimeLimits::of_tests()
    };
    assert_eq!(long.period(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_passes_through_its_phases() {
    let state = ConnectionStatus::new(Instant::now(), 0, false);
    tokio::time::advance(Duration::from_millis(50)).await;
    state.note_read(1);
    tokio::time::advance(Duration::from_millis(50)).await;
    state.note_read(1);
    let head = Snapshot {
        phase: Phase::Head,
        since_ms: 50,
        stalled_since_ms: None,
        transfer: None,
    };
    assert_eq!(
        state.snapshot(),
        head,
        "a further byte does not prolong the head's time"
    );
    state.enter(Phase::Busy);
    state.note_read(1);
    assert_eq!(state.phase(), Phase::Busy);
    state.note_write_blocked();
    state.enter(Phase::Idle);
    tokio::time::advance(Duration::from_millis(20)).await;
    state.note_write_blocked();
    assert_eq!(state.snapshot().stalled_since_ms, Some(100));
    state.note_written(7);
    let taking = Snapshot {
        phase: Phase::Idle,
        since_ms: 120,
        stalled_since_ms: None,
        transfer: Some(Transfer {
            since_ms: 100,
            window_ms: 100,
            moved: 7,
        }),
    };
    assert_eq!(state.snapshot(), taking, "some of the response was taken");
    state.note_flushed();
    let idle = Snapshot {
        transfer: None,
        ..taking
    };
    assert_eq!(state.snapshot(), idle, "idle since the response was taken");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_late_is_measured_until_it_is_whole() {
    let state = ConnectionStatus::new(Instant::now(), 0, false);
    state.begin_request(true);
    state.note_read(10);
    assert_eq!(state.snapshot().transfer, None, "it may be there already");
    tokio::time::advance(Duration::from_millis(50)).await;
    for _ in 0..2 {
        state.note_body_awaited();
        state.note_read(10);
    }
    let transfer = Transfer {
        since_ms: 50,
        window_ms: 50,
        moved: 20,
    };
    assert_eq!(state.snapshot().transfer, Some(transfer));
    state.begin_window(60, 5);
    let next = Transfer {
        window_ms: 60,
        moved: 5,
        ..transfer
    };
    assert_eq!(state.snapshot().transfer, Some(next));
    assert!(state.marks().has(Marks::UNREAD));
    state.note_body_whole();
    assert_eq!((state.phase(), state.marks()), (Phase::Busy, Marks(0)));
    assert_eq!(state.snapshot().transfer, None);
}

#[test]
fn what_moves_below_the_least_rate_is_over_a_limit() {
    for (phase, moved, now_ms, expected) in [
        (Phase::Body, 0, 99, None),
        (Phase::Body, 99, 100, Some(Limit::LeastRate)),
        (Phase::Body, 100, 100, None),
        (Phase::Idle, 99, 100, Some(Limit::LeastRate)),
        (Phase::Idle, 100, 100, None),
    ] {
        let snapshot = Snapshot {
            phase,
            since_ms: 0,
            stalled_since_ms: None,
            transfer: Some(Transfer {
                since_ms: 0,
                window_ms: 0,
                moved,
            }),
        };
        let limits = TimeLimits::of_tests();
        assert_eq!(limits.exceeded(snapshot, now_ms), expected, "{snapshot:?}");
    }
}
