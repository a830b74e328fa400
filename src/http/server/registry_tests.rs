//! Who is let in, and who has to go.

use std::task::Waker;

use super::super::status::Phase;
use super::*;

impl Registry {
    pub(in crate::http::server) fn of_tests(max_connections: usize) -> Arc<Registry> {
        Arc::new(Registry {
            limits: TimeLimits::of_tests(),
            max_connections: NonZeroUsize::new(max_connections).unwrap(),
            epoch: Instant::now(),
            connections: Mutex::default(),
            moved: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }
}

fn registry(max_connections: usize) -> Arc<Registry> {
    Registry::of_tests(max_connections)
}

/// Waits for a place, as a connection does that has a request.
async fn admitted(registry: &Arc<Registry>) -> Registration {
    loop {
        if let Some(registration) = registry.enter() {
            return registration;
        }
        registry.make_room_and_wait(Need::Request).await;
    }
}

async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

fn asked_to_leave(tickets: &[Registration]) -> Vec<usize> {
    let asked = |registration: &Registration| registration.status.orders().has_make_room();
    (0..tickets.len())
        .filter(|index| asked(&tickets[*index]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn room_is_made_by_lingering_then_longest_idle_then_slow_heads_then_slow_transfers() {
    let registry = registry(9);
    let mut tickets = Vec::new();
    for _ in 0..9 {
        tickets.push(registry.enter().unwrap());
        pass(10).await;
    }
    tickets[0].status.note_read(1);
    tickets[1].status.enter(Phase::Busy);
    tickets[2].status.enter(Phase::Idle);
    tickets[4].status.enter(Phase::Linger);
    tickets[5].status.note_write_blocked();
    tickets[5].status.note_written(5_000);
    for body in &tickets[6..9] {
        body.status.begin_request(true);
        body.status.note_body_awaited();
    }
    tickets[6].status.note_read(2_000);
    tickets[7].status.note_read(1 << 20);
    pass(1_500).await;
    tickets[8].status.enter(Phase::Busy);
    tickets[8].status.note_body_awaited();
    pass(500).await;
    assert!(registry.enter().is_none());
    for expected in [vec![4], vec![3, 4], vec![2, 3, 4], vec![0, 2, 3, 4]] {
        assert!(registry.make_room(Need::Silent));
        assert_eq!(asked_to_leave(&tickets), expected);
    }
    assert!(
        !registry.make_room(Need::Silent),
        "no request is cut short for one that has sent nothing"
    );
    for expected in [vec![0, 2, 3, 4, 6], vec![0, 2, 3, 4, 5, 6]] {
        assert!(registry.make_room(Need::Request));
        assert_eq!(asked_to_leave(&tickets), expected);
    }
    assert!(
        !registry.make_room(Need::Request),
        "what is busy, fast or young stays"
    );
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_got_a_request_meanwhile_is_passed_over() {
    let registry = registry(2);
    let tickets = [registry.enter().unwrap(), registry.enter().unwrap()];
    assert!(
        registry.make_room(Need::Request),
        "both are put aside, and one is asked"
    );
    let [asked] = asked_to_leave(&tickets)[..] else {
        panic!("not one")
    };
    tickets[1 - asked].status.note_read(1);
    assert!(!registry.make_room(Need::Request));
    assert_eq!(asked_to_leave(&tickets), [asked]);
}

#[tokio::test(start_paused = true)]
async fn all_connections_are_looked_over_only_once_in_a_pause() {
    let registry = registry(900);
    let tickets: Vec<_> = (0..900).map(|_| registry.enter().unwrap()).collect();
    tickets
        .iter()
        .for_each(|registration| registration.status.enter(Phase::Busy));
    assert!(!registry.make_room(Need::Request));
    tickets[0].status.enter(Phase::Idle);
    pass(2).await;
    assert!(
        !registry.make_room(Need::Request),
        "within the pause nobody is looked for"
    );
    pass(1).await;
    assert!(registry.make_room(Need::Request));
}

#[tokio::test(start_paused = true)]
async fn the_sweep_tells_connections_over_a_limit_to_look() {
    let registry = registry(2);
    let idle = registry.enter().unwrap();
    let head = registry.enter().unwrap();
    head.status.note_read(1);
    let sweep = registry.sweep();
    let watch = tokio::time::timeout(Duration::from_millis(150), sweep);
    assert!(watch.await.is_err());
    assert!(head.status.orders().has_check());
    assert!(idle.status.orders().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_standstill_connections_get_a_period_to_read_what_came() {
    let registry = registry(1);
    let registration = registry.enter().unwrap();
    registration.status.note_read(1);
    let mut sweep = std::pin::pin!(registry.sweep());
    let mut poll = || {
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert!(sweep.as_mut().poll(&mut context).is_pending());
        registration.status.orders().has_check()
    };
    assert!(!poll());
    pass(3_000).await;
    assert!(!poll(), "spared once");
    pass(10).await;
    assert!(poll());
}

#[tokio::test(start_paused = true)]
async fn new_connections_are_born_with_the_order_to_drain() {
    let registry = registry(2);
    let old = registry.enter().unwrap();
    registry.drain();
    let new = registry.enter().unwrap();
    assert!(old.status.orders().has_drain() && new.status.orders().has_drain());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_gets_it_as_soon_as_someone_leaves() {
    let registry = registry(1);
    let registration = registry.enter().unwrap();
    registration.status.enter(Phase::Busy);
    let begun = Instant::now();
    let (_ticket, ()) = tokio::join!(admitted(&registry), async { drop(registration) });
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
#[tokio::test(start_paused = true)]
async fn when_one_stays_the_next_is_asked_at_once() {
    let registry = registry(2);
    let mut tickets = vec![registry.enter().unwrap(), registry.enter().unwrap()];
    let begun = Instant::now();
    let answer = async {
        let [stays] = asked_to_leave(&tickets)[..] else {
            panic!("not one")
        };
        tickets[stays].status.note_read(1);
        registry.note_refusal();
        let leaves = 1 - stays;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(tickets[leaves].status.orders().has_make_room());
        drop(tickets.remove(leaves));
    };
    let (_ticket, ()) = tokio::join!(admitted(&registry), answer);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_transfer_is_let_go_when_memory_is_short() {
    let registry = registry(3);
    let tickets: Vec<_> = (0..3).map(|_| registry.enter().unwrap()).collect();
    tickets[1].status.note_write_blocked();
    tickets[1].status.note_written(700);
    tickets[2].status.note_write_blocked();
    tickets[2].status.note_written(600);
    assert!(!registry.let_the_slowest_go(), "none is old enough");
    pass(1_000).await;
    for expected in [vec![2], vec![1, 2]] {
        assert!(registry.let_the_slowest_go());
        assert_eq!(asked_to_leave(&tickets), expected);
    }
    assert!(!registry.let_the_slowest_go(), "the idle one holds nothing");
}

#[tokio::test(start_paused = true)]
async fn the_sweep_measures_rates_over_one_window_after_the_other() {
    let registry = registry(1);
    let registration = registry.enter().unwrap();
    registration.status.begin_request(true);
    registration.status.note_body_awaited();
    let mut sweep = std::pin::pin!(registry.sweep());
    let mut step = async || {
        let _ = tokio::time::timeout(Duration::from_millis(10), sweep.as_mut()).await;
        registration.status.orders().has_check()
    };
    // 2 kB/s: twice the least rate of these tests.
    for _ in 0..50 {
        registration.status.note_read(20);
        assert!(!step().await);
    }
    // Nothing more: what is to its credit is not for ever.
    let mut steps = 0;
    while !step().await {
        steps += 1;
        assert!(steps < 200, "never told");
    }
    assert!(steps > 10, "{steps}");
}

#[tokio::test(start_paused = true)]
async fn guests_have_places_of_their_own_and_no_more() {
    let registry = registry(1);
    let regular = registry.enter().unwrap();
    let guests: Vec<_> = std::iter::from_fn(|| registry.enter_as_guest()).collect();
    assert_eq!(guests.len(), GUESTS);
    assert!(guests.iter().all(|guest| guest.status.is_guest()));
    drop(regular);
    let regular = registry.enter().unwrap();
    assert!(!regular.status.is_guest());
    drop(guests);
    assert!(registry.enter().is_none());
    assert!(registry.enter_as_guest().is_some());
}

#[tokio::test(start_paused = true)]
async fn after_a_storm_the_map_gives_its_room_back() {
    let registry = registry(20_000);
    let stays = registry.enter().unwrap();
    let storm: Vec<_> = (0..10_000).map(|_| registry.enter().unwrap()).collect();
    drop(storm);
    let capacity = registry.lock().open.capacity();
    assert!(capacity <= 4 * ROOM_KEPT, "{capacity}");
    assert!(!stays.status.is_guest());
}
