//! Where files are kept, as the settings say.

use super::settings::Gathered;
use super::{Secret, is_origin, parse_origin, parse_prefix, parse_token, parse_url};

/// Where files are kept.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The object store; `None`: a folder in the data folder.
    pub s3: Option<ObjectStore>,
    /// Where this service is, as others see it: `https://host`.
    pub public_url: Option<String>,
}

/// An object store.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    /// Where we find it: `https://host`.
    pub endpoint: String,
    /// Where browsers find it, if elsewhere.
    pub public_endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Our name there.
    pub access_key: Secret,
    /// Our secret there.
    pub secret_key: Secret,
    /// What the names of the buckets begin with.
    pub bucket_prefix: String,
    /// What the URLs of downloads begin with, instead of signed ones of the store.
    pub cdn_base_url: Option<String>,
}

impl Storage {
    /// What to do about files that lie on one node of several.
    pub const OWN_FILES_MEND: &str = "other nodes do not find them; set CAFFIS_S3_ENDPOINT, or give all nodes one CAFFIS_DATA_DIR";

    /// The origins where pages upload to and fetch from, beside this server's own.
    pub fn origins(&self) -> Vec<String> {
        let Some(s3) = &self.s3 else {
            return self.public_url.iter().cloned().collect();
        };
        let endpoint = s3.public_endpoint.as_ref().unwrap_or(&s3.endpoint);
        let mut origins = vec![endpoint.clone()];
        // Where each bucket is a host.
        if let Some((scheme, host)) = endpoint.split_once("://") {
            let is_aws = host.ends_with(".amazonaws.com");
            origins.extend(is_aws.then(|| format!("{scheme}://*.{host}")));
        }
        if let Some(url) = &s3.cdn_base_url {
            // Behind the scheme, up to the path.
            let end = url.split('/').take(3).map(str::len).sum::<usize>() + 2;
            origins.extend(url.get(..end).map(str::to_owned));
        }
        origins
    }

    pub(super) fn take(raw: &mut Gathered) -> Storage {
        let endpoint = raw.take("s3_endpoint", None, parse_origin);
        let public_endpoint = raw.take("s3_public_endpoint", None, parse_origin);
        let region = raw.take("s3_region", "us-east-1".to_owned(), parse_prefix);
        let access_key = raw.take("s3_access_key", None, parse_token);
        let secret_key = raw.take("s3_secret_key", None, parse_token);
        let bucket_prefix = raw.take("s3_bucket_prefix", String::new(), parse_bucket_prefix);
        let cdn_base_url = raw.take("cdn_base_url", None, parse_base_url);
        let public_url = raw.take("public_url", None, parse_origin);
        let only_with_s3 = [
            ("s3_public_endpoint", public_endpoint.is_some()),
            ("s3_access_key", access_key.is_some()),
            ("s3_secret_key", secret_key.is_some()),
            ("cdn_base_url", cdn_base_url.is_some()),
        ];
        let s3 = match (endpoint, access_key, secret_key) {
            (None, ..) => {
                let given = only_with_s3.into_iter().filter(|(_, given)| *given);
                raw.problems.extend(given.map(|(name, _)| {
                    format!("{name} is of no use without s3_endpoint (CAFFIS_S3_ENDPOINT)")
                }));
                None
            }
            (Some(endpoint), Some(access_key), Some(secret_key)) => Some(ObjectStore {
                endpoint,
                public_endpoint,
                region,
                access_key,
                secret_key,
                bucket_prefix,
                cdn_base_url,
            }),
            (Some(_), ..) => {
                raw.problems.push(
                    "s3_endpoint needs CAFFIS_S3_ACCESS_KEY and CAFFIS_S3_SECRET_KEY".to_owned(),
                );
                None
            }
        };
        Storage { s3, public_url }
    }
}

fn parse_bucket_prefix(text: &str) -> Result<String, String> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let begins = text.bytes().next().is_none_or(|byte| byte != b'-');
    match text.len() <= 40 && begins && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("up to 40 lower-case letters, digits and dashes, such as myapp-".to_owned()),
    }
}

fn parse_base_url(text: &str) -> Result<Option<String>, String> {
    let text = text.trim_end_matches('/');
    let expected = || "https://HOST or https://HOST/PATH".to_owned();
    let parsed = parse_url(text).map_err(|_| expected())?;
    let origin = text.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    match is_origin(&origin.to_ascii_lowercase()) && !text.contains(['?', ';', ',', '\'', '*']) {
        true => Ok(parsed),
        false => Err(expected()),
    }
}
