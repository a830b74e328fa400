use super::*;
use crate::pool::tests::{Woken, call, pool_for};

const IDLE: Load = Load {
    in_flight: 0,
    has_replied: true,
};

/// An idle process that waits for a request.
fn waiting(shared: &Arc<Shared>, woken: &Arc<Woken>) -> Member {
    let mut member = Member::join(Arc::clone(shared), None);
    assert!(ask(&mut member, woken).is_pending());
    member
}

fn ask(member: &mut Member, woken: &Arc<Woken>) -> Poll<Call> {
    let waker = Arc::clone(woken).into();
    member.poll_take(&mut Context::from_waker(&waker), IDLE)
}

#[test]
fn a_process_that_leaves_when_it_was_woken_passes_the_request_on() {
    let pool = pool_for(1);
    let wakes: [Arc<Woken>; 2] = Default::default();
    let [mut first, mut second] = [0, 1].map(|index| waiting(&pool.shared, &wakes[index]));
    let _answered = call(&pool).unwrap();
    assert!(wakes[1].is_set(), "the most recently used is asked first");
    assert!(!wakes[0].is_set(), "and no other");
    second.leave();
    assert!(wakes[0].is_set());
    assert!(ask(&mut first, &wakes[0]).is_ready());
}

#[test]
fn a_process_that_left_is_asked_no_more() {
    let pool = pool_for(1);
    let wakes: [Arc<Woken>; 2] = Default::default();
    let [mut first, second] = [0, 1].map(|index| waiting(&pool.shared, &wakes[index]));
    drop(second);
    let _answered = call(&pool).unwrap();
    assert!(wakes[0].is_set());
    assert!(ask(&mut first, &wakes[0]).is_ready());
}
