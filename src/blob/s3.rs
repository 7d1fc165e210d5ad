//! Any S3: the backend that outgrows one machine.
//!
//! ```text
//! new/ab/ab…    what was uploaded: whoever holds the ticket can still replace it
//! ab/ab…        what was sealed, by a copy that the store makes itself: nobody has a ticket for it
//! ```
//!
//! Invariants: the bytes of uploads and downloads never pass through here, but for those that [`Backend::read`] is asked
//! for; every call has an end; what the store says is told without keys and signatures.

use super::{
    Answer, Backend, BlobError, Bucket, Download, Facts, ObjectKey, Ticket, Upload, disposition,
    served_type, signed,
};
use crate::protocol::UnixMs;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use s3::creds::{Credentials, Rfc3339OffsetDateTime};
use s3::error::S3Error;
use s3::post_policy::{
    PostPolicy, PostPolicyChecksum, PostPolicyExpiration, PostPolicyField, PostPolicyValue,
};
use s3::serde_types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, CorsConfiguration, CorsRule,
    Expiration, LifecycleFilter, LifecycleRule,
};
use s3::{BucketConfiguration, Region};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Longest time of one call.
const CALL_MAX: Duration = Duration::from_secs(3);
/// What the keys of objects that are not sealed begin with.
const NEW: &str = "new/";
/// Days after which the store itself removes what was never sealed.
const NEW_DAYS: u32 = 2;
/// Longest that a URL may be good, s: by the rules of S3.
const URL_S_MAX: u64 = 7 * 24 * 3_600;
/// The hash as metadata, because not every store tells its checksums.
const META_SHA256: &str = "sha256";
/// For how long a browser need not ask the store again whether it may, s.
const CORS_S: u32 = 3_600;

/// Where the store is, and who we are there.
#[derive(Clone)]
pub struct S3Options {
    /// Where we find it: `https://host`.
    pub endpoint: String,
    /// Where browsers find it, if elsewhere.
    pub public_endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Our name.
    pub access_key: String,
    /// Our secret.
    pub secret_key: String,
    /// What the names of the buckets begin with.
    pub bucket_prefix: String,
    /// What the URLs of downloads begin with, instead of signed ones of the store.
    pub cdn_base_url: Option<String>,
    /// Origins of the pages that may upload; empty: all.
    pub origins: Vec<String>,
}

/// The store.
pub struct S3 {
    options: S3Options,
    credentials: Credentials,
    /// By the order of [`Bucket::ALL`]: as we reach it, and as browsers do.
    buckets: Vec<(Box<s3::Bucket>, Box<s3::Bucket>)>,
}

impl S3 {
    /// Of these options. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BlobError::Refused`]: what is wrong with them.
    pub fn new(options: S3Options) -> Result<S3, BlobError> {
        // What can be tried again its caller tries again, in its own time.
        s3::set_retries(0);
        let told = |error: S3Error| failed(&error);
        let (access, secret) = (&options.access_key, &options.secret_key);
        let credentials = Credentials::new(Some(access), Some(secret), None, None, None)
            .map_err(|error| BlobError::Refused(error.to_string()))?;
        let public = options.public_endpoint.as_ref();
        let public = public.unwrap_or(&options.endpoint).clone();
        let bucket = |name: &str, endpoint: &str| {
            let region = Region::Custom {
                region: options.region.clone(),
                endpoint: endpoint.to_owned(),
            };
            let bucket = s3::Bucket::new(name, region, credentials.clone())?;
            let bucket = bucket.with_request_timeout(CALL_MAX)?;
            Ok(match is_aws(endpoint) {
                true => bucket,
                // Whose names are no hosts.
                false => bucket.with_path_style(),
            })
        };
        let mut buckets = Vec::new();
        for it in Bucket::ALL {
            let name = format!("{}{}", options.bucket_prefix, it.name());
            let own = bucket(&name, &options.endpoint).map_err(told)?;
            let public = bucket(&name, &public).map_err(told)?;
            buckets.push((own, public));
        }
        Ok(S3 {
            options,
            credentials,
            buckets,
        })
    }

    fn own(&self, bucket: Bucket) -> &s3::Bucket {
        &self.buckets[bucket as usize].0
    }

    fn public(&self, bucket: Bucket) -> &s3::Bucket {
        &self.buckets[bucket as usize].1
    }

    async fn facts(&self, bucket: Bucket, key: &str) -> Result<Option<Facts>, BlobError> {
        let Some((head, _)) = found(self.own(bucket).head_object(key).await)? else {
            return Ok(None);
        };
        let size = head.content_length.and_then(|it| u64::try_from(it).ok());
        let sha256 = head.metadata.as_ref().and_then(|it| it.get(META_SHA256));
        Ok(Some(Facts {
            size: size.ok_or_else(|| BlobError::Refused("it tells no size".to_owned()))?,
            content_type: head.content_type.unwrap_or_default(),
            sha256: sha256.and_then(|it| signed::unhex(it)),
        }))
    }

    async fn sealed(&self, bucket: Bucket, key: &ObjectKey) -> Result<Option<Facts>, BlobError> {
        // First of all: what is sealed must not be made anew of what was uploaded since.
        if let Some(facts) = self.facts(bucket, key.as_str()).await? {
            return Ok(Some(facts));
        }
        let new = format!("{NEW}{key}");
        let copied = self.own(bucket).copy_object_internal(&new, key.as_str());
        if found(copied.await)?.is_none() {
            return Ok(None);
        }
        let facts = self.facts(bucket, key.as_str()).await?;
        // What stays when this fails, the store removes by itself.
        if let Err(error) = removed(self.own(bucket).delete_object(&new).await) {
            tracing::debug!(%error, "an upload that was sealed stays for some days");
        }
        Ok(facts)
    }

    async fn policy(&self, upload: &Upload) -> Result<Ticket, S3Error> {
        let exact = |text: String| PostPolicyValue::Exact(Cow::from(text));
        let size = u32::try_from(upload.size).map_err(std::io::Error::other)?;
        let expires = i128::from(upload.expires_at.0) * 1_000_000;
        let expires = OffsetDateTime::from_unix_timestamp_nanos(expires);
        let expires = expires.map_err(std::io::Error::other)?;
        let expires = PostPolicyExpiration::ExpiresAt(Rfc3339OffsetDateTime(expires));
        let mut policy = PostPolicy::new(expires)
            .condition(PostPolicyField::Key, exact(format!("{NEW}{}", upload.key)))?
            .condition(
                PostPolicyField::ContentType,
                exact(upload.content_type.clone()),
            )?
            .condition(
                PostPolicyField::ContentDisposition,
                exact(disposition(&upload.shown, &upload.content_type)),
            )?
            .condition(
                PostPolicyField::ContentLengthRange,
                PostPolicyValue::Range(size, size),
            )?;
        if let Some(sha256) = &upload.sha256 {
            let checksum = PostPolicyField::AmzChecksumAlgorithm(PostPolicyChecksum::SHA256);
            let meta = PostPolicyField::AmzMeta(Cow::from(META_SHA256));
            policy = policy
                .condition(checksum, exact(STANDARD.encode(sha256)))?
                .condition(meta, exact(signed::hex(sha256)))?;
        }
        let post = self.public(upload.bucket).presign_post(policy).await?;
        let mut fields: BTreeMap<_, _> = post.fields.into_iter().collect();
        // Each is named in the policy, and the bucket by the URL.
        fields.remove("bucket");
        if upload.sha256.is_some() {
            fields.insert("x-amz-checksum-algorithm".to_owned(), "SHA256".to_owned());
        }
        Ok(Ticket {
            // Without the slash one store breaks down at what browsers ask before an upload with progress.
            url: format!("{}/", post.url.trim_end_matches('/')),
            fields,
            expires_at: upload.expires_at,
        })
    }

    async fn url(&self, download: &Download) -> Result<String, BlobError> {
        let key = download.key.as_str();
        if let Some(base) = &self.options.cdn_base_url {
            let bucket = self.own(download.bucket).name();
            return Ok(format!("{base}/{bucket}/{key}"));
        }
        let left = download
            .expires_at
            .0
            .saturating_sub(now().0)
            .div_ceil(1_000);
        let left = u32::try_from(left.clamp(1, URL_S_MAX)).unwrap_or(1);
        let content_type = served_type(&download.content_type);
        let query = HashMap::from([
            ("response-content-type".to_owned(), content_type.to_owned()),
            (
                "response-content-disposition".to_owned(),
                disposition(&download.shown, content_type),
            ),
        ]);
        let bucket = self.public(download.bucket);
        let url = bucket.presign_get(key, left, Some(query)).await;
        url.map_err(|error| failed(&error))
    }

    async fn configure(&self, bucket: Bucket) -> Result<Vec<String>, BlobError> {
        let own = self.own(bucket);
        let name = own.name();
        let mut told = Vec::new();
        if found(
            own.list_page(NEW.to_owned(), None, None, None, Some(1))
                .await,
        )?
        .is_some()
        {
            told.push(format!("{name} is there"));
        } else {
            let made = s3::Bucket::create_with_path_style(
                &name,
                self.region_to_make_in(),
                self.credentials.clone(),
                BucketConfiguration::default(),
            );
            made.await.map_err(|error| failed(&error))?;
            told.push(format!("{name} was made, private"));
        }
        let cors = self.cors();
        let is_there = own
            .get_bucket_cors("")
            .await
            .is_ok_and(|there| there == cors);
        if !is_there {
            let set = own.put_bucket_cors("", &cors).await;
            set.map_err(|error| failed(&error))?;
            told.push(format!(
                "{name}: pages may upload to it and fetch from it (CORS)"
            ));
        }
        let there = own.get_bucket_lifecycle().await;
        let has_rule = |it: &LifecycleRule| it.id.as_deref() == Some(RULE);
        if !there.is_ok_and(|there| there.rules.iter().any(has_rule)) {
            let rules = BucketLifecycleConfiguration::new(vec![unfinished_rule()]);
            match own.put_bucket_lifecycle(rules).await {
                Ok(_) => told.push(format!(
                    "{name}: what is not finished is removed after {NEW_DAYS} days (lifecycle)"
                )),
                // Not every store has rules; without them some rubbish stays.
                Err(error) => told.push(format!(
                    "{name}: the store takes no lifecycle rule ({}); uploads that were never used stay",
                    failed(&error)
                )),
            }
        }
        Ok(told)
    }

    /// Amazon wants to be told where to make a bucket, but for one region, which must not be told: the crate knows.
    fn region_to_make_in(&self) -> Region {
        let (region, endpoint) = (&self.options.region, &self.options.endpoint);
        match region.parse() {
            Ok(known) if is_aws(endpoint) && !matches!(known, Region::Custom { .. }) => known,
            _ => Region::Custom {
                region: region.clone(),
                endpoint: endpoint.clone(),
            },
        }
    }

    fn cors(&self) -> CorsConfiguration {
        let text = |items: &[&str]| items.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let origins = match self.options.origins.is_empty() {
            true => text(&["*"]),
            false => self.options.origins.clone(),
        };
        CorsConfiguration::new(vec![CorsRule::new(
            Some(text(&["*"])),
            text(&["POST", "GET", "HEAD"]),
            origins,
            Some(text(&["ETag", "Content-Range", "Content-Disposition"])),
            Some(RULE.to_owned()),
            Some(CORS_S),
        )])
    }
}

/// The name of our rules.
const RULE: &str = "caffis-chat";

fn unfinished_rule() -> LifecycleRule {
    LifecycleRule::builder("Enabled")
        .id(RULE)
        .filter(LifecycleFilter::new(
            None,
            None,
            None,
            Some(NEW.to_owned()),
            None,
        ))
        .expiration(Expiration::new(None, Some(NEW_DAYS), None))
        .abort_incomplete_multipart_upload(AbortIncompleteMultipartUpload::new(Some(1)))
        .build()
}

/// Amazon's own: each bucket is a host there.
fn is_aws(endpoint: &str) -> bool {
    let host = endpoint.split("://").last().unwrap_or_default();
    let host = host.split([':', '/']).next().unwrap_or_default();
    host.ends_with(".amazonaws.com")
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.map_or(0, |since| since.as_millis() as u64))
}

/// What the store said, in its own code: its text may hold what was signed.
fn failed(error: &S3Error) -> BlobError {
    match error {
        S3Error::HttpFailWithBody(status, body) => {
            let code = body.split("<Code>").nth(1);
            let code = code.and_then(|it| it.split("</Code>").next());
            let code: String = code
                .unwrap_or("no code")
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(80)
                .collect();
            let told = format!("the object store answers {status} {code}");
            match status {
                408 | 429 | 500.. => BlobError::Unavailable(told),
                _ => BlobError::Refused(told),
            }
        }
        S3Error::Reqwest(error) if error.is_timeout() => {
            BlobError::Unavailable("the object store does not answer in time".to_owned())
        }
        S3Error::Reqwest(error) if error.is_builder() => {
            BlobError::Refused("the object store's address is none".to_owned())
        }
        S3Error::Reqwest(_) | S3Error::Io(_) => {
            BlobError::Unavailable("the object store cannot be reached".to_owned())
        }
        other => BlobError::Refused(format!("the object store is not understood: {other}")),
    }
}

/// What was found; `None`: nothing was.
fn found<T>(result: Result<T, S3Error>) -> Result<Option<T>, BlobError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(S3Error::HttpFailWithBody(404, _)) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

fn removed<T>(result: Result<T, S3Error>) -> Result<(), BlobError> {
    found(result).map(|_| ())
}

impl Backend for S3 {
    fn ticket<'a>(&'a self, upload: &'a Upload) -> Answer<'a, Ticket> {
        Box::pin(async move {
            let ticket = self.policy(upload).await;
            ticket.map_err(|error| failed(&error))
        })
    }

    fn seal<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        Box::pin(self.sealed(bucket, key))
    }

    fn head<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        Box::pin(self.facts(bucket, key.as_str()))
    }

    fn read<'a>(
        &'a self,
        bucket: Bucket,
        key: &'a ObjectKey,
        offset: u64,
        bytes: usize,
    ) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let Some(last) = (bytes as u64).checked_sub(1) else {
                return Ok(Some(Vec::new()));
            };
            let last = offset.saturating_add(last);
            let own = self.own(bucket);
            match own.get_object_range(key.as_str(), offset, Some(last)).await {
                // Behind its end.
                Err(S3Error::HttpFailWithBody(416, _)) => Ok(Some(Vec::new())),
                result => Ok(found(result)?.map(|data| {
                    let mut read = data.to_vec();
                    read.truncate(bytes);
                    read
                })),
            }
        })
    }

    fn download_url<'a>(&'a self, download: &'a Download) -> Answer<'a, String> {
        Box::pin(self.url(download))
    }

    fn delete<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, ()> {
        Box::pin(async move {
            let own = self.own(bucket);
            removed(own.delete_object(format!("{NEW}{key}")).await)?;
            removed(own.delete_object(key.as_str()).await)
        })
    }

    fn init(&self) -> Answer<'_, Vec<String>> {
        Box::pin(async move {
            let mut told = Vec::new();
            for bucket in Bucket::ALL {
                told.extend(self.configure(bucket).await?);
            }
            Ok(told)
        })
    }

    fn check(&self) -> Answer<'_, String> {
        Box::pin(async move {
            for bucket in Bucket::ALL {
                let own = self.own(bucket);
                let page = own.list_page(NEW.to_owned(), None, None, None, Some(1));
                if found(page.await)?.is_none() {
                    let problem = format!("the object store has no bucket {}", own.name());
                    return Err(BlobError::Refused(problem));
                }
            }
            let endpoint = &self.options.endpoint;
            Ok(format!("files are kept in the object store at {endpoint}"))
        })
    }
}
