//! A load of requests none of which may fail.

use super::{Connection, eventually};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Clients that send one request after another, each of which must be answered with 200.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(address: SocketAddr, clients: usize) -> Load {
        let (stop, answered) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let clients = (0..clients)
            .map(|_| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                std::thread::spawn(move || {
                    let mut connection = Connection::open(address).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let response = connection.post("load").unwrap();
                        assert_eq!(response.status, 200, "{}", response.text());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Load {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until this many more requests have been answered.
    pub(crate) fn wait_for(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        eventually("the load goes on", || {
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Ends the load; none of it may have failed.
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}
