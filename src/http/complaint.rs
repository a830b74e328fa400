//! Log lines about what may happen very often: not more than one in a while.

use std::time::Duration;
use tokio::time::Instant;

/// Tells when to log again.
#[derive(Debug)]
pub(super) struct Complaint {
    pause: Duration,
    last: Option<Instant>,
    withheld: u64,
}

impl Complaint {
    /// One line in this time at most.
    pub(super) fn once_in(pause: Duration) -> Complaint {
        Complaint {
            pause,
            last: None,
            withheld: 0,
        }
    }

    /// How many were left out since the last line, if it is time for another.
    pub(super) fn due(&mut self) -> Option<u64> {
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
pub(super) struct Complaints {
    pause: Duration,
    /// Few enough to look through.
    codes: Vec<(&'static str, Complaint)>,
}

impl Complaints {
    /// One line in this time for each code at most.
    pub(super) fn once_in(pause: Duration) -> Complaints {
        Complaints {
            pause,
            codes: Vec::new(),
        }
    }

    /// How many of this code were left out since the last line about one, if it is time for another.
    pub(super) fn due(&mut self, code: &'static str) -> Option<u64> {
        if let Some((_, complaint)) = self.codes.iter_mut().find(|(name, _)| *name == code) {
            return complaint.due();
        }
        let mut complaint = Complaint::once_in(self.pause);
        let due = complaint.due();
        self.codes.push((code, complaint));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_tells_how_many_were_left_out() {
        let mut complaint = Complaint::once_in(Duration::from_secs(1));
        assert_eq!(complaint.due(), Some(0));
        assert_eq!((complaint.due(), complaint.due()), (None, None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(complaint.due(), Some(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(complaint.due(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_code_does_not_hide_another() {
        let mut complaints = Complaints::once_in(Duration::from_secs(1));
        assert_eq!(complaints.due("overloaded"), Some(0));
        assert_eq!(complaints.due("overloaded"), None);
        assert_eq!(complaints.due("forbidden"), Some(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(complaints.due("overloaded"), Some(1));
        assert_eq!(complaints.due("forbidden"), Some(0));
    }
}
