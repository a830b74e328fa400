//! Log lines about what may happen very often: not more than one in a while.

use std::time::Duration;
use tokio::time::Instant;

/// Tells when to log again.
#[derive(Debug)]
pub(crate) struct Throttle {
    pause: Duration,
    last: Option<Instant>,
    withheld: u64,
}

impl Throttle {
    /// One line in this time at most.
    pub(crate) fn once_in(pause: Duration) -> Throttle {
        Throttle {
            pause,
            last: None,
            withheld: 0,
        }
    }

    /// How many were left out since the last line, if it is time for another.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < self.pause) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.withheld))
    }
}

/// The same for several things that are told apart by a code.
#[derive(Debug)]
pub(crate) struct ThrottleByCode {
    pause: Duration,
    /// Few enough to look through.
    codes: Vec<(&'static str, Throttle)>,
}

impl ThrottleByCode {
    /// One line in this time for each code at most.
    pub(crate) fn once_in(pause: Duration) -> ThrottleByCode {
        ThrottleByCode {
            pause,
            codes: Vec::new(),
        }
    }

    /// How many of this code were left out since the last line about one, if it is time for another.
    pub(crate) fn admit(&mut self, code: &'static str) -> Option<u64> {
        if let Some((_, throttle)) = self.codes.iter_mut().find(|(name, _)| *name == code) {
            return throttle.admit();
        }
        let mut throttle = Throttle::once_in(self.pause);
        let admitted = throttle.admit();
        self.codes.push((code, throttle));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_tells_how_many_were_left_out() {
        let mut throttle = Throttle::once_in(Duration::from_secs(1));
        assert_eq!(throttle.admit(), Some(0));
        assert_eq!((throttle.admit(), throttle.admit()), (None, None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(throttle.admit(), Some(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(throttle.admit(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_code_does_not_hide_another() {
        let mut throttle = ThrottleByCode::once_in(Duration::from_secs(1));
        assert_eq!(throttle.admit("overloaded"), Some(0));
        assert_eq!(throttle.admit("overloaded"), None);
        assert_eq!(throttle.admit("forbidden"), Some(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(throttle.admit("overloaded"), Some(1));
        assert_eq!(throttle.admit("forbidden"), Some(0));
    }
}
