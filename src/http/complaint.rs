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
}
