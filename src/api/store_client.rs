//! The store as the control plane asks it: one question, one awaited answer.

use crate::chat::port::{ReplySink, Store, StoreAnswer, StoreCall, StoreError, StoreReply};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Longest wait for an answer. A later one is dropped, and a write may stand all the same.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks the store.
#[derive(Clone)]
pub struct StoreClient(Arc<dyn Store>);

/// Where the one answer of a call goes.
struct OneReply(Mutex<Option<oneshot::Sender<StoreReply>>>);

impl ReplySink for OneReply {
    fn reply(&self, reply: StoreReply) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody waits any more: the answer came too late.
            let _late = sender.send(reply);
        }
    }
}

impl StoreClient {
    /// Asks this store.
    pub fn new(store: Arc<dyn Store>) -> StoreClient {
        StoreClient(store)
    }

    /// Asks and waits, up to [`ANSWER_MAX`].
    ///
    /// # Errors
    /// The store's own, or [`StoreError::Unavailable`] when the answer did not come in time.
    pub async fn call(&self, call: StoreCall) -> Result<StoreAnswer, StoreError> {
        self.call_within(ANSWER_MAX, call).await
    }

    /// Asks and waits for so long.
    ///
    /// # Errors
    /// The store's own, or [`StoreError::Unavailable`] when the answer did not come in time.
    pub async fn call_within(
        &self,
        max: Duration,
        call: StoreCall,
    ) -> Result<StoreAnswer, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let sink: Arc<dyn ReplySink> = Arc::new(OneReply(Mutex::new(Some(sender))));
        self.0.submit(0, call, &sink);
        drop(sink);
        match tokio::time::timeout(max, receiver).await {
            Ok(Ok(reply)) => reply.result,
            Ok(Err(_)) => Err(StoreError::Unavailable("gave no answer".to_owned())),
            Err(_) => Err(StoreError::Unavailable("gave no answer in time".to_owned())),
        }
    }
}
