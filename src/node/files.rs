//! Where a node keeps files: an object store, or a folder of its own.

use super::Failure;
use crate::api::FileParts;
use crate::api::store_client::StoreClient;
use crate::api::uploads::{UploadLimits, Uploads};
use crate::blob::local::{Folder, Local};
use crate::blob::s3::{S3, S3Options};
use crate::blob::{Blob, BlobError};
use crate::chat::port::Store;
use crate::chat::port::files::UploadQuota;
use crate::config::storage::{ObjectStore, Storage};
use crate::config::{Config, Database, Mode, Origins};
use crate::doctor::{Finding, Verdict};
use std::sync::Arc;

/// Files of messages.
pub(super) fn uploads_of(config: &Config, store: &Arc<dyn Store>, files: &FileParts) -> Uploads {
    let limits = UploadLimits {
        image_bytes: config.uploads.image_bytes,
        file_bytes: config.uploads.file_bytes,
        voice_bytes: config.uploads.voice_bytes,
        quota: UploadQuota {
            uploads: config.uploads.per_day,
            bytes: config.uploads.bytes_per_day,
        },
    };
    Uploads::new(
        StoreClient::new(store.clone()),
        files.blob.clone(),
        limits,
        files.counts.clone(),
    )
}

/// Where files are kept.
pub(super) fn file_parts(config: &Config) -> Result<FileParts, Failure> {
    let origins = config.storage.origins();
    let (blob, folder) = match &config.storage.s3 {
        Some(store) => (object_store(config, store).map_err(Failure::Files)?, None),
        None => match Folder::open(&config.data_dir, config.storage.public_url.as_deref()) {
            Ok(folder) => {
                if !config.redis_urls.is_empty() {
                    tell_of_own_files(config);
                }
                let folder = Arc::new(folder);
                (Blob::new(Arc::new(Local(folder.clone()))), Some(folder))
            }
            // All but files works: with PostgreSQL nothing else may need that folder.
            Err(error) => {
                tracing::warn!(%error, "the data folder cannot be written: there are no files");
                (Blob::nowhere(error.to_string()), None)
            }
        },
    };
    Ok(FileParts {
        blob,
        folder,
        origins,
        counts: Arc::default(),
    })
}

/// Says at the start of a node that has others beside it that they do not find its files.
fn tell_of_own_files(config: &Config) {
    let (folder, mend) = (config.data_dir.display(), Storage::OWN_FILES_MEND);
    match config.mode {
        Mode::Production => tracing::warn!(%folder, mend, "files are kept on this node alone"),
        Mode::Development => tracing::info!(%folder, mend, "files are kept on this node alone"),
    }
}

fn object_store(config: &Config, store: &ObjectStore) -> Result<Blob, BlobError> {
    let options = S3Options {
        endpoint: store.endpoint.clone(),
        public_endpoint: store.public_endpoint.clone(),
        region: store.region.clone(),
        access_key: store.access_key.expose_text().to_owned(),
        secret_key: store.secret_key.expose_text().to_owned(),
        bucket_prefix: store.bucket_prefix.clone(),
        cdn_base_url: store.cdn_base_url.clone(),
        origins: match &config.origins {
            Origins::SameHostOrLoopback => Vec::new(),
            Origins::Listed(list) => list.clone(),
        },
    };
    Ok(Blob::new(Arc::new(S3::new(options)?)))
}

/// Makes and configures the place where files are kept; what was done, a line each.
///
/// # Errors
/// Why not.
pub fn storage_init(config: &Config) -> Result<String, String> {
    let blob = match &config.storage.s3 {
        Some(store) => object_store(config, store),
        None => match Folder::open(&config.data_dir, None) {
            Ok(folder) => Ok(Blob::new(Arc::new(Local(Arc::new(folder))))),
            Err(error) => Err(BlobError::Refused(error.to_string())),
        },
    };
    let done = blob.and_then(|blob| on_this_thread(async move { blob.init().await }));
    done.map(|done| done.join("\n"))
        .map_err(|error| error.to_string())
}

/// What `doctor` says of files. Nothing is made.
pub fn files_finding(config: &Config) -> Finding {
    let finding = |verdict, found, mend| Finding {
        check: "files",
        verdict,
        found,
        mend,
    };
    let Some(store) = &config.storage.s3 else {
        let found = format!("kept on this node, in {}", config.data_dir.display());
        return match &config.database {
            Database::Sqlite(_) => finding(Verdict::Ok, found, None),
            Database::Postgres(_) => {
                let mend = Some(Storage::OWN_FILES_MEND.to_owned());
                finding(Verdict::Warn, found, mend)
            }
        };
    };
    let checked = object_store(config, store)
        .and_then(|blob| on_this_thread(async move { blob.check().await }));
    match checked {
        Ok(found) => finding(Verdict::Ok, found, None),
        Err(error) => {
            let mend = "see CAFFIS_S3_…; `caffis-chat storage init` makes the buckets".to_owned();
            finding(Verdict::Fail, error.to_string(), Some(mend))
        }
    }
}

/// Waits for it, where no node runs.
fn on_this_thread<T>(work: impl Future<Output = Result<T, BlobError>>) -> Result<T, BlobError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(BlobError::Unavailable(error.to_string())),
    }
}
