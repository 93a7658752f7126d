//! How long the transport waits before it tries again.

use std::time::Duration;

use crate::transport::mqtt::worker::Pauses;

const LONGEST: Duration = Duration::from_secs(30);

pub(super) fn full(attempt: u32) -> Duration {
    Duration::from_millis(100 << attempt.min(16)).min(LONGEST)
}

#[test]
fn pauses_grow_to_their_limit_and_differ() {
    let pauses = |client: &str| {
        let mut pauses = Pauses::of(client);
        (0..40).map(|_| pauses.behind(Duration::ZERO)).collect::<Vec<_>>()
    };
    for (attempt, pause) in (0..).zip(pauses("a")) {
        assert!(pause <= full(attempt) && pause >= full(attempt) / 2, "{attempt}: {pause:?}");
    }
    assert_ne!(pauses("a"), pauses("b"));
}

#[test]
fn connections_that_end_soon_are_followed_by_longer_and_longer_pauses() {
    // Just below what is steady.
    let mut pauses = Pauses::of("a");
    let last = (0..12).map(|_| pauses.behind(Duration::from_millis(4_999))).last();
    assert!(last >= Some(LONGEST / 2), "{last:?}");
    // Two clients of one id: each holds for the pause of the other.
    let (mut one, mut other) = (Pauses::of("a"), Pauses::of("b"));
    let mut pause = Duration::ZERO;
    for _ in 0..12 {
        pause = other.behind(one.behind(pause));
    }
    assert!(pause >= LONGEST / 2, "{pause:?}");
}

#[test]
fn a_steady_connection_begins_again_with_the_shortest_pause() {
    let mut pauses = Pauses::of("a");
    pauses.behind(Duration::ZERO);
    assert!(pauses.behind(Duration::from_secs(5)) <= full(0));
    let last = (0..12).map(|_| pauses.behind(Duration::ZERO)).last();
    // Behind a long pause it takes longer to be steady.
    assert!(last >= Some(LONGEST / 2) && pauses.behind(LONGEST) >= LONGEST / 2);
    assert!(pauses.behind(3 * LONGEST) <= full(0));
}
