//! A shard as the control plane asks it: one question, one awaited answer.

use super::Serves;
use super::problem::Problem;
use crate::chat::port::{ServiceAnswer, ServiceAsk, ServiceAsked};
use crate::protocol::ErrorCode;
use std::time::Duration;
use tokio::sync::oneshot;

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// Too many questions are waiting: this one was not asked.
    Full,
    /// None came in time. What was asked for may be done all the same.
    Late,
}

impl Unanswered {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Unanswered::Full => "too many questions are waiting",
            Unanswered::Late => "no answer in time",
        }
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Problem {
        let code = match unanswered {
            Unanswered::Full => ErrorCode::Overloaded,
            Unanswered::Late => ErrorCode::Unavailable,
        };
        Problem::new(code, unanswered.text())
    }
}

/// Asks a shard and waits for so long.
///
/// # Errors
/// [`Unanswered`].
pub async fn ask_shard(
    serves: &Serves,
    max: Duration,
    shard: u16,
    ask: ServiceAsk,
) -> Result<ServiceAnswer, Unanswered> {
    let (sender, receiver) = oneshot::channel();
    let asked = ServiceAsked {
        ask,
        done: Box::new(move |answer| {
            // Nobody waits any more: the answer came too late.
            let _late = sender.send(answer);
        }),
    };
    if !serves(shard, asked) {
        return Err(Unanswered::Full);
    }
    match tokio::time::timeout(max, receiver).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Unanswered::Late),
    }
}
