//! Files as every backend decides and keeps them: the row of a message says of which kind it is and what its files
//! are, in one value that messages without files do not have.
//!
//! The column `kind` of such a message is `text` all the same: the version before reads it as a message of a person.

use super::common::{from_json, to_json};
use crate::chat::port::Refusal;
use crate::chat::port::files::{self, SentFile, SentFiles, Upload, UploadState};
use crate::protocol::upload::UploadKind;
use crate::protocol::view::{Attachment, MessageKind};
use serde::{Deserialize, Serialize};

/// `attachments` of the row of a message.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub kind: UploadKind,
    /// None: the message was deleted.
    pub files: Vec<Attachment>,
}

/// Of what kind a message is and what its files are, by what its row keeps.
pub(super) fn kept(
    kind: MessageKind,
    json: Option<&str>,
) -> Result<(MessageKind, Vec<Attachment>), String> {
    match json {
        None => Ok((kind, Vec::new())),
        Some(json) => {
            let kept: Kept = from_json(json)?;
            Ok((kept.kind.into(), kept.files))
        }
    }
}

/// What the row of a message of this kind with these files keeps; messages of text keep nothing.
pub(super) fn to_keep(kind: MessageKind, files: &[Attachment]) -> Result<Option<String>, String> {
    let kind = match kind {
        MessageKind::Image => UploadKind::Image,
        MessageKind::File => UploadKind::File,
        MessageKind::Voice => UploadKind::Voice,
        MessageKind::Text | MessageKind::System => return Ok(None),
    };
    let files = files.to_vec();
    to_json(&Kept { kind, files }).map(Some)
}

/// A file of a message, of what is known of the upload and what its sender says.
pub(super) fn attachment(upload: &Upload, file: &SentFile) -> Attachment {
    Attachment {
        upload_id: upload.id,
        name: upload.name.clone(),
        size: upload.size,
        content_type: upload.content_type.clone(),
        width: file.width,
        height: file.height,
        duration_ms: file.duration_ms,
        placeholder: file.placeholder.clone(),
    }
}

/// An upload that its sender wants to use, and whether its time has come.
pub(super) struct Wanted {
    pub upload: Upload,
    pub is_expired: bool,
    pub is_due: bool,
}

/// What the files of a message are, of those of its uploads that are its sender's for this room; the first that may
/// not be used decides.
pub(super) fn usable(files: &SentFiles, found: &[Wanted]) -> Result<Vec<Attachment>, Refusal> {
    let usable_one = |file: &SentFile| {
        let wanted = found.iter().find(|it| it.upload.id == file.upload);
        let Some(wanted) = wanted else {
            return Err(files::no_upload());
        };
        if wanted.upload.kind != files.kind {
            return Err(files::another_kind());
        }
        let state = match wanted.is_due {
            true => UploadState::Removed,
            false => wanted.upload.state,
        };
        match state.refusal(wanted.is_expired) {
            Some(refusal) => Err(refusal),
            None => Ok(attachment(&wanted.upload, file)),
        }
    };
    files.files.iter().map(usable_one).collect()
}

/// Bytes that files take in a page.
pub(super) fn files_bytes(files: &[Attachment]) -> usize {
    let bytes = |file: &Attachment| {
        file.name.len() + file.placeholder.as_ref().map_or(0, String::len) + FILE_BYTES
    };
    files.iter().map(bytes).sum()
}

/// What stands around the name and the placeholder.
const FILE_BYTES: usize = 250;
