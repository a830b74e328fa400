//! Rate limits for log lines about frequent events.

use std::time::Duration;
use tokio::time::Instant;

/// Admits one line in a period, and counts the lines in between.
#[derive(Debug)]
pub(crate) struct Throttle {
    pause: Duration,
    last: Option<Instant>,
    withheld: u64,
}

impl Throttle {
    /// A throttle that admits one line in `pause`.
    pub(crate) fn once_in(pause: Duration) -> Throttle {
        Throttle {
            pause,
            last: None,
            withheld: 0,
        }
    }

    /// The number of lines withheld since the last one, if the next may be logged now.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < self.pause) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.withheld))
    }
}

/// A throttle for each code.
#[derive(Debug)]
pub(crate) struct ThrottleByCode {
    pause: Duration,
    /// A list, because there are only some ten codes.
    codes: Vec<(&'static str, Throttle)>,
}

impl ThrottleByCode {
    /// A throttle that admits one line of each code in `pause`.
    pub(crate) fn once_in(pause: Duration) -> ThrottleByCode {
        ThrottleByCode {
            pause,
            codes: Vec::new(),
        }
    }

    /// The number of lines of this code withheld since the last one, if the next may be logged now.
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
