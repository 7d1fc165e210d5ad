//! What users may bring, as the settings say.

use super::parse_number;
use super::settings::Gathered;
use crate::limits;

/// What users may bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uploads {
    /// Bytes of an image.
    pub image_bytes: u64,
    /// Bytes of a file.
    pub file_bytes: u64,
    /// Bytes of a voice note.
    pub voice_bytes: u64,
    /// Uploads of one user in 24 h.
    pub per_day: u32,
    /// Bytes of the uploads of one user in 24 h.
    pub bytes_per_day: u64,
}

impl Uploads {
    pub(super) fn take(raw: &mut Gathered) -> Uploads {
        let bytes = || parse_number(1, limits::UPLOAD_BYTES_MAX);
        Uploads {
            image_bytes: raw.take("upload_image_bytes", limits::IMAGE_BYTES_MAX, bytes()),
            file_bytes: raw.take("upload_file_bytes", limits::FILE_BYTES_MAX, bytes()),
            voice_bytes: raw.take("upload_voice_bytes", limits::VOICE_BYTES_MAX, bytes()),
            per_day: raw.take(
                "uploads_per_day",
                limits::UPLOADS_PER_DAY,
                parse_number(0, 1_000_000),
            ),
            bytes_per_day: raw.take(
                "upload_bytes_per_day",
                limits::UPLOAD_BYTES_PER_DAY,
                parse_number(0, 1 << 50),
            ),
        }
    }
}
