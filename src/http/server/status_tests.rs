//! A connection's way through its phases, and the transfers that it counts.

use std::time::Duration;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_passes_through_its_phases() {
    let status = ConnectionStatus::new(Clock::start(), 0, Admission::Regular, u64::MAX);
    tokio::time::advance(Duration::from_millis(50)).await;
    status.record_read(1);
    tokio::time::advance(Duration::from_millis(50)).await;
    status.record_read(1);
    let head = ConnectionSnapshot {
        phase: Phase::Head,
        since_ms: 50,
        stalled_since_ms: None,
        transfer: None,
    };
    assert_eq!(
        status.snapshot(),
        head,
        "a further byte does not prolong the head's time"
    );
    status.enter(Phase::Busy);
    status.record_read(1);
    assert_eq!(status.phase(), Phase::Busy);
    status.record_write_blocked();
    status.enter(Phase::Idle);
    tokio::time::advance(Duration::from_millis(20)).await;
    status.record_write_blocked();
    assert_eq!(status.snapshot().stalled_since_ms, Some(100));
    status.record_written(7);
    let taking = ConnectionSnapshot {
        phase: Phase::Idle,
        since_ms: 120,
        stalled_since_ms: None,
        transfer: Some(Transfer {
            since_ms: 100,
            window_began_ms: 100,
            moved: 7,
        }),
    };
    assert_eq!(status.snapshot(), taking, "some of the response was taken");
    status.record_flushed();
    let idle = ConnectionSnapshot {
        transfer: None,
        ..taking
    };
    assert_eq!(status.snapshot(), idle, "idle since the response was taken");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_late_is_measured_until_it_is_whole() {
    let status = ConnectionStatus::new(Clock::start(), 0, Admission::Regular, u64::MAX);
    status.begin_request(true);
    status.record_read(10);
    assert_eq!(status.snapshot().transfer, None, "it may be there already");
    tokio::time::advance(Duration::from_millis(50)).await;
    for _ in 0..2 {
        status.record_body_awaited();
        status.record_read(10);
    }
    let transfer = Transfer {
        since_ms: 50,
        window_began_ms: 50,
        moved: 20,
    };
    assert_eq!(status.snapshot().transfer, Some(transfer));
    status.begin_window(60, 5);
    let next = Transfer {
        window_began_ms: 60,
        moved: 5,
        ..transfer
    };
    assert_eq!(status.snapshot().transfer, Some(next));
    assert!(status.request_flags().has(RequestFlags::BODY_UNREAD));
    status.record_body_complete();
    assert_eq!(
        (status.phase(), status.request_flags()),
        (Phase::Busy, RequestFlags(0))
    );
    assert_eq!(status.snapshot().transfer, None);
}
