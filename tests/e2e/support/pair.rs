//! Two people who talk all the while something bad is going on. Each exchange crosses from one
//! shard to the other and back, so that a shard that waits, spins or dies is noticed.

use super::server::Server;
use super::token::User;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Slow enough for the default limits of rate.
const PAUSE: Duration = Duration::from_millis(250);
/// What users are promised is 5 s; a busy machine gets three times that.
const EXCHANGE_MAX: Duration = Duration::from_secs(15);

/// Two people who talk.
pub struct Pair {
    stop: mpsc::Sender<()>,
    exchanges: mpsc::Receiver<Duration>,
    thread: JoinHandle<()>,
}

impl Pair {
    /// They begin to talk, and have done so once when this returns.
    pub fn start(server: &Server) -> Pair {
        let (ada, bob) = (User::new("Pair Ada"), User::new("Pair Bob"));
        let mut bob_client = server.connect_on(1, &bob);
        let mut ada_client = server.connect_on(0, &ada);
        let room = ada_client.direct(&bob);
        let (stop, stopped) = mpsc::channel();
        let (done, exchanges) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut last = false;
            loop {
                let began = Instant::now();
                let asked = ada_client.send(room, "How is it?");
                bob_client.wait_for_seq(room, asked);
                let answered = bob_client.send(room, "All is well.");
                assert_eq!(answered, asked + 1, "nobody else is in the room");
                ada_client.wait_for_seq(room, answered);
                let took = began.elapsed();
                assert!(took < EXCHANGE_MAX, "an exchange took {took:?}");
                let _nobody_counts = done.send(took);
                if last {
                    return;
                }
                // One more after the end of what was bad.
                last = stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout);
            }
        });
        let pair = Pair {
            stop,
            exchanges,
            thread,
        };
        pair.talk(1);
        pair
    }

    /// Returns after so many further exchanges.
    pub fn talk(&self, exchanges: usize) {
        for _ in 0..exchanges {
            let exchange = self.exchanges.recv_timeout(2 * EXCHANGE_MAX);
            exchange.expect("they talk");
        }
    }

    /// They talk once more, undisturbed, and part.
    pub fn stop(self) {
        self.stop.send(()).expect("they talk");
        self.thread.join().expect("they could talk all the while");
    }
}
