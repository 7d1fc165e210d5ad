//! Files of messages: who may bring one, whether it is what was declared, where it is fetched from, and what is to be
//! removed. Between the store, which knows what there is and decides, and the place where the bytes are.
//!
//! Invariants: a shard is never waited for, and asks without waiting; each question is answered once, within
//! [`limits::FILES_MS_MAX`], whatever the place of the bytes does; how many are under way is bounded. Nothing of what
//! is to be done is kept in memory: a ticket, what was seen of a file and what is to be removed stand in the store.

use super::requests::now;
use super::store_client::StoreClient;
use super::upload_counts::UploadCounts;
use crate::blob::{Blob, BlobError, Download, Facts, ObjectKey, Shown};
use crate::chat::port::files::{
    Files, FilesAnswer, FilesAsk, FilesDone, FilesRefusal, FilesTold, NamedUploads, NewFile,
    Upload, UploadAnswer, UploadCall, UploadQuota, UploadState,
};
use crate::chat::port::{StoreAnswer, StoreCall, StoreError};
use crate::limits;
use crate::protocol::upload::{AttachmentUrl, AttachmentUrlsTold, UploadKind, UploadTicket};
use crate::protocol::{ErrorCode, UnixMs, UploadId, UserId, media};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Questions of all shards that may wait to be taken.
const WAITING_MAX: usize = 1_024;
/// Questions under way at once for which nobody but the store is asked; the others wait.
const QUICK_MAX: usize = 32;
/// The same of looks at what was brought, which wait for wherever that is.
const LOOKS_MAX: usize = 64;
/// Longest time of a question: before the shard gives it up.
const ANSWER_MAX: Duration = Duration::from_millis(limits::FILES_MS_MAX - 500);
/// Longest wait for the store.
const STORE_MAX: Duration = Duration::from_secs(3);
/// How often it is looked for uploads to remove.
const REMOVE_EVERY: Duration = Duration::from_secs(2);
/// Longest wait after removing failed: twice as long each time.
const REMOVE_RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// Uploads that are removed at a time, in less than their lease.
const REMOVED_AT_ONCE: usize = 32;

/// What users may bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadLimits {
    /// Bytes of an image.
    pub image_bytes: u64,
    /// Bytes of a file.
    pub file_bytes: u64,
    /// Bytes of a voice note.
    pub voice_bytes: u64,
    /// Of one user in a day.
    pub quota: UploadQuota,
}

impl UploadLimits {
    fn bytes(&self, kind: UploadKind) -> u64 {
        match kind {
            UploadKind::Image => self.image_bytes,
            UploadKind::File => self.file_bytes,
            UploadKind::Voice => self.voice_bytes,
        }
    }
}

/// Where shards ask.
#[derive(Clone, Debug)]
pub struct FilesDoor(mpsc::Sender<Question>);

/// What shards asked and nobody took yet.
#[derive(Debug)]
pub struct FilesInbox(mpsc::Receiver<Question>);

struct Question {
    ask: FilesAsk,
    done: FilesDone,
    asked: Instant,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Question")
            .field(&self.ask)
            .finish_non_exhaustive()
    }
}

/// Both ends of the way from the shards to [`Uploads::run`].
pub fn way() -> (FilesDoor, FilesInbox) {
    let (door, inbox) = mpsc::channel(WAITING_MAX);
    (FilesDoor(door), FilesInbox(inbox))
}

impl Files for FilesDoor {
    fn ask(&self, ask: FilesAsk, done: FilesDone) {
        if let Err(refused) = self.0.try_send(Question {
            ask,
            done,
            asked: Instant::now(),
        }) {
            let message = "too many files are asked for";
            let refusal = FilesRefusal::new(ErrorCode::Overloaded, message);
            (refused.into_inner().done)(Err(refusal));
        }
    }
}

/// Why a step of ours did not come to its end.
#[derive(Debug)]
enum Failure {
    Refused(FilesRefusal),
    Store(StoreError),
    Blob(BlobError),
}

impl From<FilesRefusal> for Failure {
    fn from(refusal: FilesRefusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Failure {
        Failure::Blob(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

/// Files of messages.
#[derive(Clone)]
pub struct Uploads {
    store: StoreClient,
    blob: Blob,
    limits: UploadLimits,
    counts: Arc<UploadCounts>,
}

impl Uploads {
    /// In this store, with their bytes at this place.
    pub fn new(
        store: StoreClient,
        blob: Blob,
        limits: UploadLimits,
        counts: Arc<UploadCounts>,
    ) -> Uploads {
        Uploads {
            store,
            blob,
            limits,
            counts,
        }
    }

    /// For ever: answers the shards.
    pub async fn run(self, mut inbox: FilesInbox) {
        let quick = Arc::new(Semaphore::new(QUICK_MAX));
        let looks = Arc::new(Semaphore::new(LOOKS_MAX));
        // As many tasks as the shards have questions, which they bound.
        while let Some(Question { ask, done, asked }) = inbox.0.recv().await {
            let places = match ask {
                FilesAsk::Check(_) => looks.clone(),
                FilesAsk::Create(_) | FilesAsk::Urls(_) => quick.clone(),
            };
            let own = self.clone();
            tokio::spawn(async move {
                let is_ticket = matches!(ask, FilesAsk::Create(_));
                let answer = tokio::time::timeout_at(asked + ANSWER_MAX, async {
                    // It is never closed.
                    let _place = places.acquire().await.ok();
                    own.answer(ask).await
                });
                let answer = answer.await.unwrap_or_else(|_| {
                    tracing::warn!("files cannot be reached in time");
                    let away = "the files cannot be reached now; retry with the same id";
                    Err(FilesRefusal::new(ErrorCode::Unavailable, away))
                });
                if let (true, Err(refusal)) = (is_ticket, &answer) {
                    own.counts.no_ticket(refusal.code);
                }
                done(answer);
            });
        }
    }

    async fn answer(&self, ask: FilesAsk) -> FilesAnswer {
        let told = match ask {
            FilesAsk::Create(file) => self.create(file).await.map(FilesTold::Ticket),
            FilesAsk::Urls(named) => self.urls(named).await.map(FilesTold::Urls),
            FilesAsk::Check(named) => self.check(named).await.map(|()| FilesTold::Checked),
        };
        told.map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal,
            Failure::Store(StoreError::Overloaded) => {
                FilesRefusal::new(ErrorCode::Overloaded, "the store is busy")
            }
            Failure::Store(StoreError::Unavailable(error)) => {
                tracing::warn!(error, "the store does not answer about files");
                let message = "the store does not answer; retry with the same id";
                FilesRefusal::new(ErrorCode::Unavailable, message)
            }
            Failure::Blob(error) => {
                tracing::warn!(%error, "files cannot be reached");
                let message = "the files cannot be reached now; retry with the same id";
                FilesRefusal::new(ErrorCode::Unavailable, message)
            }
        })
    }

    async fn create(&self, file: NewFile) -> Result<UploadTicket, Failure> {
        if file.size > self.limits.bytes(file.kind) {
            let message = "`size` is more than is taken of this kind";
            return Err(FilesRefusal::new(ErrorCode::TooLarge, message).into());
        }
        let id = UploadId(uuid::Uuid::new_v4());
        let key = ObjectKey::new(*uuid::Uuid::new_v4().as_bytes());
        let call = UploadCall::Create {
            id,
            key: key.clone(),
            file: file.clone(),
            quota: self.limits.quota,
        };
        let expires_at = match self.call(call).await? {
            UploadAnswer::Created(created) => created?,
            other => return Err(confused(&other)),
        };
        let upload = crate::blob::Upload {
            bucket: file.kind.bucket(),
            key,
            content_type: file.content_type.to_owned(),
            size: file.size,
            sha256: file.sha256,
            shown: shown(file.name, file.kind),
            expires_at,
        };
        let ticket = self.blob.ticket(&upload).await?;
        self.counts.ticket(file.size);
        Ok(UploadTicket {
            upload_id: id,
            method: "POST",
            url: ticket.url,
            fields: ticket.fields,
            expires_at: ticket.expires_at,
        })
    }

    async fn urls(&self, named: NamedUploads) -> Result<AttachmentUrlsTold, Failure> {
        let asked = named.uploads.clone();
        let uploads = match self.call(UploadCall::Shown(named)).await? {
            UploadAnswer::Shown(shown) => shown.map_err(FilesRefusal::from)?,
            other => return Err(confused(&other)),
        };
        let missing = |id: &UploadId| !uploads.iter().any(|upload| upload.id == *id);
        let missing = asked.into_iter().filter(missing).collect();
        let expires_at = UnixMs(now().0 + limits::FILE_URL_MS);
        let mut urls = Vec::with_capacity(uploads.len());
        for upload in uploads {
            let download = Download {
                bucket: upload.kind.bucket(),
                key: upload.key,
                content_type: upload.content_type,
                shown: shown(upload.name, upload.kind),
                expires_at,
            };
            urls.push(AttachmentUrl {
                upload_id: upload.id,
                url: self.blob.download_url(&download).await?,
                expires_at,
            });
        }
        Ok(AttachmentUrlsTold { urls, missing })
    }

    /// Looks at those that were not looked at, and keeps what it saw.
    async fn check(&self, named: NamedUploads) -> Result<(), Failure> {
        let uploads = match self.call(UploadCall::Own(named)).await? {
            UploadAnswer::Own(uploads) => uploads,
            other => return Err(confused(&other)),
        };
        let mut looks = JoinSet::new();
        for upload in uploads {
            if upload.state == UploadState::Created {
                let (blob, counts) = (self.blob.clone(), self.counts.clone());
                looks.spawn(async move {
                    let looked = look(&blob, &upload).await;
                    match &looked {
                        Ok(state) => counts.look(*state),
                        Err(_) => counts.no_look(),
                    }
                    Ok::<_, BlobError>(looked?.map(|state| (upload.id, state)))
                });
            }
        }
        let mut seen = Vec::new();
        while let Some(looked) = looks.join_next().await {
            // One that panicked is as one that did not answer.
            let looked = looked.map_err(|error| BlobError::Unavailable(error.to_string()))?;
            seen.extend(looked?);
        }
        if !seen.is_empty() {
            self.call(UploadCall::Seen(seen)).await?;
        }
        Ok(())
    }

    async fn call(&self, call: UploadCall) -> Result<UploadAnswer, StoreError> {
        let call = StoreCall::Uploads(Box::new(call));
        match self.store.call_within(STORE_MAX, call).await? {
            StoreAnswer::Uploads(answer) => Ok(*answer),
            _ => Err(StoreError::Unavailable("another answer".to_owned())),
        }
    }

    /// For ever: removes what nobody uses.
    pub async fn remove_unused(self) {
        let mut retry = REMOVE_EVERY;
        loop {
            match self.remove(None).await {
                Ok(0) => retry = REMOVE_EVERY,
                Ok(_) => {
                    retry = REMOVE_EVERY;
                    continue;
                }
                Err(text) => {
                    // Where files are kept is told of below; the store tells of itself.
                    tracing::debug!(error = text, "unused files are removed later");
                    retry = (retry * 2).min(REMOVE_RETRY_MAX);
                }
            }
            tokio::time::sleep(retry).await;
        }
    }

    /// Removes some of what is to be removed, of this user or of anybody; how many.
    ///
    /// # Errors
    /// Why not; it may be done again.
    pub(super) async fn remove(&self, owner: Option<UserId>) -> Result<usize, String> {
        let call = UploadCall::ToRemove {
            owner,
            limit: REMOVED_AT_ONCE,
        };
        let uploads = match self.call(call).await {
            Ok(UploadAnswer::ToRemove(uploads)) => uploads,
            other => return Err(format!("no uploads to remove are told: {other:?}")),
        };
        let mut removed = Vec::with_capacity(uploads.len());
        let mut failed = None;
        for upload in &uploads {
            let object = (upload.kind.bucket(), &upload.key);
            match self.blob.delete([object]).await {
                Ok(()) => removed.push(upload.id),
                Err(error) => {
                    tracing::warn!(%error, "files are removed later");
                    failed = Some(error.to_string());
                    break;
                }
            }
        }
        let count = removed.len();
        self.counts.removed(count, failed.is_none());
        if count > 0 {
            match self.call(UploadCall::Removed(removed)).await {
                Ok(UploadAnswer::Removed) => (),
                other => return Err(format!("what was removed is not noted: {other:?}")),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(count),
        }
    }
}

fn confused(answer: &UploadAnswer) -> Failure {
    Failure::Store(StoreError::Unavailable(format!(
        "another answer: {answer:?}"
    )))
}

/// Images and voice notes are shown in the conversation, files are saved.
fn shown(name: String, kind: UploadKind) -> Shown {
    Shown {
        name,
        inline: kind != UploadKind::File,
    }
}

/// What was brought, taken out of its bringer's hands; `None`: nothing yet.
async fn look(blob: &Blob, upload: &Upload) -> Result<Option<UploadState>, BlobError> {
    let bucket = upload.kind.bucket();
    let Some(facts) = blob.seal(bucket, &upload.key).await? else {
        return Ok(None);
    };
    let first = (blob.read(bucket, &upload.key, 0, limits::SNIFFED_BYTES)).await?;
    Ok(first.map(|first| judged(upload, &facts, &first)))
}

/// Whether what was brought is what was declared.
fn judged(upload: &Upload, facts: &Facts, first: &[u8]) -> UploadState {
    let is_other_hash = upload
        .sha256
        .zip(facts.sha256)
        .is_some_and(|(declared, own)| declared != own);
    if facts.size > upload.size {
        UploadState::TooLarge
    } else if facts.size < upload.size
        || facts.content_type != upload.content_type
        || is_other_hash
        || !media::begins_as(&upload.content_type, first)
    {
        UploadState::Wrong
    } else {
        UploadState::Checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_is_compared_with_what_was_declared() {
        let upload = Upload {
            id: UploadId(uuid::Uuid::from_u128(1)),
            kind: UploadKind::Image,
            key: ObjectKey::new([1; 16]),
            name: "a.png".to_owned(),
            size: 100,
            content_type: "image/png".to_owned(),
            sha256: Some([7; 32]),
            state: UploadState::Created,
            message_seq: None,
        };
        let facts = |size, content_type: &str, sha256| Facts {
            size,
            content_type: content_type.to_owned(),
            sha256,
        };
        let png = b"\x89PNG\r\n\x1a\n";
        for (facts, first, expected) in [
            (
                facts(100, "image/png", Some([7; 32])),
                &png[..],
                UploadState::Checked,
            ),
            (
                facts(100, "image/png", None),
                &png[..],
                UploadState::Checked,
            ),
            (
                facts(101, "image/png", None),
                &png[..],
                UploadState::TooLarge,
            ),
            (facts(99, "image/png", None), &png[..], UploadState::Wrong),
            (facts(100, "image/gif", None), &png[..], UploadState::Wrong),
            (
                facts(100, "image/png", Some([8; 32])),
                &png[..],
                UploadState::Wrong,
            ),
            (
                facts(100, "image/png", None),
                &b"GIF89a"[..],
                UploadState::Wrong,
            ),
            (
                facts(100, "image/png", None),
                &b"<html>"[..],
                UploadState::Wrong,
            ),
        ] {
            assert_eq!(judged(&upload, &facts, first), expected, "{facts:?}");
        }
    }
}
