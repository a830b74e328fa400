//! Which connections get a place, and which are asked to close.

use std::task::Waker;

use super::super::snapshot::Phase;
use super::*;

impl Registry {
    pub(in crate::http::server) fn of_tests(max_connections: usize) -> Arc<Registry> {
        let max_connections = NonZeroUsize::new(max_connections).unwrap();
        Registry::with_limits(TimeLimits::of_tests(), max_connections, false)
    }
}

fn registry(max_connections: usize) -> Arc<Registry> {
    Registry::of_tests(max_connections)
}

/// Waits for a place, as a connection with a request does.
async fn registered(registry: &Arc<Registry>) -> Registration {
    loop {
        if let Some(registration) = registry.register() {
            return registration;
        }
        registry.close_one_and_wait(Newcomer::WithRequest).await;
    }
}

async fn advance(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

fn asked_to_close(registrations: &[Registration]) -> Vec<usize> {
    let asked = |registration: &Registration| registration.status.orders().has_give_way();
    (0..registrations.len())
        .filter(|index| asked(&registrations[*index]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn room_is_made_by_lingering_then_longest_idle_then_slow_heads_then_slow_transfers() {
    let registry = registry(9);
    let mut registrations = Vec::new();
    for _ in 0..9 {
        registrations.push(registry.register().unwrap());
        advance(10).await;
    }
    registrations[0].status.record_read(1);
    registrations[1].status.enter(Phase::Busy);
    registrations[2].status.enter(Phase::Idle);
    registrations[4].status.enter(Phase::Linger);
    registrations[5].status.record_write_blocked();
    registrations[5].status.record_written(5_000);
    for body in &registrations[6..9] {
        body.status.begin_request(true);
        body.status.record_body_awaited();
    }
    registrations[6].status.record_read(2_000);
    registrations[7].status.record_read(1 << 20);
    advance(1_500).await;
    registrations[8].status.enter(Phase::Busy);
    registrations[8].status.record_body_awaited();
    advance(500).await;
    assert!(registry.register().is_none());
    for expected in [vec![4], vec![3, 4], vec![2, 3, 4], vec![0, 2, 3, 4]] {
        assert!(registry.close_one(Newcomer::Silent));
        assert_eq!(asked_to_close(&registrations), expected);
    }
    assert!(
        !registry.close_one(Newcomer::Silent),
        "no request is cut short for one that has sent nothing"
    );
    for expected in [vec![0, 2, 3, 4, 6], vec![0, 2, 3, 4, 5, 6]] {
        assert!(registry.close_one(Newcomer::WithRequest));
        assert_eq!(asked_to_close(&registrations), expected);
    }
    assert!(
        !registry.close_one(Newcomer::WithRequest),
        "busy, fast or young connections stay"
    );
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_got_a_request_meanwhile_is_passed_over() {
    let registry = registry(2);
    let registrations = [registry.register().unwrap(), registry.register().unwrap()];
    assert!(
        registry.close_one(Newcomer::WithRequest),
        "both are put aside, and one is asked"
    );
    let [asked] = asked_to_close(&registrations)[..] else {
        panic!("not one")
    };
    registrations[1 - asked].status.record_read(1);
    assert!(!registry.close_one(Newcomer::WithRequest));
    assert_eq!(asked_to_close(&registrations), [asked]);
}

#[tokio::test(start_paused = true)]
async fn all_connections_are_ranked_only_once_in_a_pause() {
    let registry = registry(900);
    let registrations: Vec<_> = (0..900).map(|_| registry.register().unwrap()).collect();
    registrations
        .iter()
        .for_each(|registration| registration.status.enter(Phase::Busy));
    assert!(!registry.close_one(Newcomer::WithRequest));
    registrations[0].status.enter(Phase::Idle);
    advance(2).await;
    assert!(
        !registry.close_one(Newcomer::WithRequest),
        "no connection is asked within the pause"
    );
    advance(1).await;
    assert!(registry.close_one(Newcomer::WithRequest));
}

#[tokio::test(start_paused = true)]
async fn the_sweep_tells_connections_over_a_limit_to_look() {
    let registry = registry(2);
    let idle = registry.register().unwrap();
    let head = registry.register().unwrap();
    head.status.record_read(1);
    let sweep = registry.sweep();
    let swept = tokio::time::timeout(Duration::from_millis(150), sweep);
    assert!(swept.await.is_err());
    assert!(head.status.orders().has_check_limits());
    assert!(idle.status.orders().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_standstill_connections_get_a_period_to_read_what_came() {
    let registry = registry(1);
    let registration = registry.register().unwrap();
    registration.status.record_read(1);
    let mut sweep = std::pin::pin!(registry.sweep());
    let mut poll = || {
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert!(sweep.as_mut().poll(&mut context).is_pending());
        registration.status.orders().has_check_limits()
    };
    assert!(!poll());
    advance(3_000).await;
    assert!(!poll(), "spared once");
    advance(10).await;
    assert!(poll());
}

#[tokio::test(start_paused = true)]
async fn new_connections_start_with_the_order_to_drain() {
    let registry = registry(2);
    let old = registry.register().unwrap();
    registry.announce_close();
    let new = registry.register().unwrap();
    assert!(old.status.orders().has_announce_close() && new.status.orders().has_announce_close());
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_a_place_as_soon_as_a_connection_closes() {
    let registry = registry(1);
    let registration = registry.register().unwrap();
    registration.status.enter(Phase::Busy);
    let begun = Instant::now();
    let (_registration, ()) = tokio::join!(registered(&registry), async { drop(registration) });
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
#[tokio::test(start_paused = true)]
async fn when_a_connection_stays_open_the_next_is_asked_at_once() {
    let registry = registry(2);
    let mut registrations = vec![registry.register().unwrap(), registry.register().unwrap()];
    let begun = Instant::now();
    let answer = async {
        let [stays] = asked_to_close(&registrations)[..] else {
            panic!("not one")
        };
        registrations[stays].status.record_read(1);
        registry.record_stays_open();
        let leaves = 1 - stays;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(registrations[leaves].status.orders().has_give_way());
        drop(registrations.remove(leaves));
    };
    let (_registration, ()) = tokio::join!(registered(&registry), answer);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_transfer_is_asked_to_close_when_memory_is_short() {
    let registry = registry(3);
    let registrations: Vec<_> = (0..3).map(|_| registry.register().unwrap()).collect();
    registrations[1].status.record_write_blocked();
    registrations[1].status.record_written(700);
    registrations[2].status.record_write_blocked();
    registrations[2].status.record_written(600);
    assert!(!registry.ask_slowest_to_close(), "none is old enough");
    advance(1_000).await;
    for expected in [vec![2], vec![1, 2]] {
        assert!(registry.ask_slowest_to_close());
        assert_eq!(asked_to_close(&registrations), expected);
    }
    assert!(
        !registry.ask_slowest_to_close(),
        "the idle one holds nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn the_sweep_measures_rates_over_one_window_after_the_other() {
    let registry = registry(1);
    let registration = registry.register().unwrap();
    registration.status.begin_request(true);
    registration.status.record_body_awaited();
    let mut sweep = std::pin::pin!(registry.sweep());
    let mut step = async || {
        let _ = tokio::time::timeout(Duration::from_millis(10), sweep.as_mut()).await;
        registration.status.orders().has_check_limits()
    };
    // 2 kB/s: twice the least rate of these tests.
    for _ in 0..50 {
        registration.status.record_read(20);
        assert!(!step().await);
    }
    // The client stops: its credit does not last.
    let mut steps = 0;
    while !step().await {
        steps += 1;
        assert!(steps < 200, "never told");
    }
    assert!(steps > 10, "{steps}");
}

#[tokio::test(start_paused = true)]
async fn health_checks_have_places_of_their_own_and_no_more() {
    let registry = registry(1);
    let regular = registry.register().unwrap();
    let health_checks: Vec<_> = std::iter::from_fn(|| registry.register_health_check()).collect();
    assert_eq!(health_checks.len(), MAX_HEALTH_CHECKS);
    assert!(
        health_checks
            .iter()
            .all(|guest| guest.status.is_for_health_check())
    );
    drop(regular);
    let regular = registry.register().unwrap();
    assert!(!regular.status.is_for_health_check());
    drop(health_checks);
    assert!(registry.register().is_none());
    assert!(registry.register_health_check().is_some());
}

#[tokio::test(start_paused = true)]
async fn after_a_storm_the_map_gives_its_room_back() {
    let registry = registry(20_000);
    let stays = registry.register().unwrap();
    let storm: Vec<_> = (0..10_000).map(|_| registry.register().unwrap()).collect();
    drop(storm);
    let capacity = registry.lock().open.capacity();
    assert!(capacity <= 4 * MIN_CAPACITY, "{capacity}");
    assert!(!stays.status.is_for_health_check());
}
