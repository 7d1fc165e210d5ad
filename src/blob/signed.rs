//! What the folder's tickets and URLs bind, and their signatures: HMAC-SHA256 over everything that they say.
//!
//! Invariants: nothing of a request is believed before its signature is right, which is compared in constant time;
//! `Expired` is said only of what is right otherwise; no two different sets of values are signed as the same bytes.

use super::{Bucket, Download, ObjectKey, Shown, Upload};
use crate::protocol::UnixMs;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use std::collections::BTreeMap;

/// Fields of the form, beside `key` and `Content-Type`, which an object store has as well.
const SIZE: &str = "x-file-size";
const SHA256: &str = "x-file-sha256";
const EXPIRES: &str = "x-file-expires";
const SIGNATURE: &str = "x-file-signature";

/// Signs, and checks what it signed.
pub struct Signer(hmac::Key);

/// Why a ticket or a URL is not good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotGood {
    /// It is not of ours, or was changed.
    Forged,
    /// It was good.
    Expired,
}

/// What a good ticket lets somebody upload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Where to.
    pub bucket: Bucket,
    /// As what.
    pub key: ObjectKey,
    /// As what type.
    pub content_type: String,
    /// Its bytes.
    pub size: u64,
    /// Their hash.
    pub sha256: Option<[u8; 32]>,
}

/// What a URL says behind its path.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Deserialize)]
pub struct Query {
    /// As what type it is given out.
    #[serde(rename = "type", default)]
    pub content_type: String,
    /// Under which name.
    #[serde(default)]
    pub name: String,
    /// `1`: to be shown in the page.
    #[serde(default)]
    pub inline: String,
    /// Until when, ms since 1970.
    #[serde(default)]
    pub expires: String,
    /// The signature, in hexadecimal.
    #[serde(default)]
    pub signature: String,
}

/// What a good URL lets somebody fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permitted {
    /// As what type.
    pub content_type: String,
    /// How it is treated.
    pub shown: Shown,
    /// Until when.
    pub expires_at: UnixMs,
}

impl Signer {
    /// With this secret of 32 random bytes.
    pub fn new(secret: &[u8; 32]) -> Signer {
        Signer(hmac::Key::new(HMAC_SHA256, secret))
    }

    /// Each part with its length before it, so that no two lists are the same bytes.
    fn context(&self, parts: &[&str]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        context
    }

    fn is_signed(&self, parts: &[&str], signature: &str) -> bool {
        let own = self.context(parts).sign();
        let given = unhex::<32>(signature);
        given.is_some_and(|given| {
            aws_lc_rs::constant_time::verify_slices_are_equal(own.as_ref(), &given).is_ok()
        })
    }

    /// The fields of a ticket.
    pub fn fields(&self, upload: &Upload) -> BTreeMap<String, String> {
        let size = upload.size.to_string();
        let sha256 = upload.sha256.map(|it| hex(&it));
        let expires = upload.expires_at.0.to_string();
        let parts = upload_parts(
            upload.bucket,
            upload.key.as_str(),
            &upload.content_type,
            &size,
            sha256.as_deref(),
            &expires,
        );
        let signature = hex(self.context(&parts).sign().as_ref());
        let mut fields: BTreeMap<_, _> = [
            ("key", upload.key.as_str().to_owned()),
            ("Content-Type", upload.content_type.clone()),
            (SIZE, size.clone()),
            (EXPIRES, expires.clone()),
            (SIGNATURE, signature),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if let Some(sha256) = &sha256 {
            fields.insert(SHA256.to_owned(), sha256.clone());
        }
        fields
    }

    /// What the fields of a form let somebody upload to this bucket now.
    ///
    /// # Errors
    /// [`NotGood`].
    pub fn check_fields(
        &self,
        bucket: Bucket,
        fields: &BTreeMap<String, String>,
        now: UnixMs,
    ) -> Result<Expected, NotGood> {
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let (key, content_type) = (field("key"), field("Content-Type"));
        let (size, expires) = (field(SIZE), field(EXPIRES));
        let sha256 = fields.get(SHA256).map(String::as_str);
        let parts = upload_parts(bucket, key, content_type, size, sha256, expires);
        if !self.is_signed(&parts, field(SIGNATURE)) {
            return Err(NotGood::Forged);
        }
        // It is signed, so it is what we wrote; only a key that another program has could sign other things.
        let read = || {
            let sha256 = sha256.map(unhex::<32>);
            let expected = Expected {
                bucket,
                key: ObjectKey::parse(key)?,
                content_type: content_type.to_owned(),
                size: size.parse().ok()?,
                sha256: match sha256 {
                    None => None,
                    Some(sha256) => Some(sha256?),
                },
            };
            Some((expected, expires.parse::<u64>().ok()?))
        };
        let (expected, expires) = read().ok_or(NotGood::Forged)?;
        match now.0 < expires {
            true => Ok(expected),
            false => Err(NotGood::Expired),
        }
    }

    /// The query of a URL.
    pub fn query(&self, download: &Download) -> String {
        let inline = if download.shown.inline { "1" } else { "0" };
        let expires = download.expires_at.0.to_string();
        let parts = download_parts(
            download.bucket,
            &download.key,
            &download.content_type,
            &download.shown.name,
            inline,
            &expires,
        );
        let signature = hex(self.context(&parts).sign().as_ref());
        format!(
            "type={}&name={}&inline={inline}&expires={expires}&signature={signature}",
            percent_encoded(&download.content_type),
            percent_encoded(&download.shown.name),
        )
    }

    /// What a URL lets somebody fetch now.
    ///
    /// # Errors
    /// [`NotGood`].
    pub fn check_query(
        &self,
        bucket: Bucket,
        key: &ObjectKey,
        query: &Query,
        now: UnixMs,
    ) -> Result<Permitted, NotGood> {
        let parts = download_parts(
            bucket,
            key,
            &query.content_type,
            &query.name,
            &query.inline,
            &query.expires,
        );
        if !self.is_signed(&parts, &query.signature) {
            return Err(NotGood::Forged);
        }
        let expires: u64 = query.expires.parse().map_err(|_| NotGood::Forged)?;
        if now.0 >= expires {
            return Err(NotGood::Expired);
        }
        Ok(Permitted {
            content_type: query.content_type.clone(),
            shown: Shown {
                name: query.name.clone(),
                inline: query.inline == "1",
            },
            expires_at: UnixMs(expires),
        })
    }
}

fn upload_parts<'a>(
    bucket: Bucket,
    key: &'a str,
    content_type: &'a str,
    size: &'a str,
    sha256: Option<&'a str>,
    expires: &'a str,
) -> [&'a str; 7] {
    // An empty hash is none that can be written, so it stands for there being none.
    let sha256 = sha256.unwrap_or_default();
    [
        "POST",
        bucket.name(),
        key,
        content_type,
        size,
        sha256,
        expires,
    ]
}

fn download_parts<'a>(
    bucket: Bucket,
    key: &'a ObjectKey,
    content_type: &'a str,
    name: &'a str,
    inline: &'a str,
    expires: &'a str,
) -> [&'a str; 7] {
    [
        "GET",
        bucket.name(),
        key.as_str(),
        content_type,
        name,
        inline,
        expires,
    ]
}

/// In hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// From hexadecimal digits in lower case, exactly so many bytes.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (place, [high, low]) in bytes.iter_mut().zip(pairs) {
        *place = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// As it stands in a query (RFC 3986).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn upload() -> Upload {
        Upload {
            bucket: Bucket::Images,
            key: ObjectKey::new([7; 16]),
            content_type: "image/png".to_owned(),
            size: 12,
            sha256: Some([9; 32]),
            shown: Shown {
                name: "a.png".to_owned(),
                inline: true,
            },
            expires_at: UnixMs(NOW.0 + 1),
        }
    }

    #[test]
    fn a_ticket_is_good_as_it_was_signed_until_it_expires() {
        let signer = Signer::new(&[1; 32]);
        for sha256 in [None, Some([9; 32])] {
            let upload = Upload { sha256, ..upload() };
            let fields = signer.fields(&upload);
            let expected = signer.check_fields(Bucket::Images, &fields, NOW);
            let expected = expected.expect("good");
            assert_eq!(
                (expected.key, expected.size, expected.sha256),
                (upload.key, 12, sha256)
            );
            let late = signer.check_fields(Bucket::Images, &fields, UnixMs(NOW.0 + 1));
            assert_eq!(late, Err(NotGood::Expired));
        }
    }

    #[test]
    fn a_ticket_of_which_anything_was_changed_is_not_good() {
        let signer = Signer::new(&[1; 32]);
        let good = signer.fields(&upload());
        let check = |fields: &_| signer.check_fields(Bucket::Images, fields, NOW);
        assert!(check(&good).is_ok());
        for name in good.keys() {
            let mut fields = good.clone();
            fields.remove(name);
            assert_eq!(check(&fields), Err(NotGood::Forged), "without {name}");
            for value in [
                "",
                "0",
                "1",
                "13",
                "image/gif",
                "08/08080808080808080808080808080808",
            ] {
                fields.insert(name.clone(), value.to_owned());
                assert_eq!(check(&fields), Err(NotGood::Forged), "{name}={value}");
            }
        }
        let elsewhere = signer.check_fields(Bucket::Files, &good, NOW);
        assert_eq!(elsewhere, Err(NotGood::Forged));
        let other = Signer::new(&[2; 32]);
        assert_eq!(
            other.check_fields(Bucket::Images, &good, NOW),
            Err(NotGood::Forged)
        );
    }

    #[test]
    fn a_url_is_good_for_what_it_was_signed_for() {
        let signer = Signer::new(&[1; 32]);
        let download = Download {
            bucket: Bucket::Images,
            key: ObjectKey::new([7; 16]),
            content_type: "image/png".to_owned(),
            shown: Shown {
                name: "Größe & Gewicht.png".to_owned(),
                inline: true,
            },
            expires_at: UnixMs(NOW.0 + 1),
        };
        let text = signer.query(&download);
        assert!(text.is_ascii(), "{text}");
        let signature = text.rsplit_once('=').expect("a signature").1.to_owned();
        let good = Query {
            content_type: "image/png".to_owned(),
            name: download.shown.name.clone(),
            inline: "1".to_owned(),
            expires: (NOW.0 + 1).to_string(),
            signature,
        };
        let check = |query: &Query| signer.check_query(Bucket::Images, &download.key, query, NOW);
        let permitted = check(&good).expect("good");
        assert_eq!(permitted.shown, download.shown);
        let late = signer.check_query(Bucket::Images, &download.key, &good, UnixMs(NOW.0 + 1));
        assert_eq!(late, Err(NotGood::Expired));
        let other = ObjectKey::new([8; 16]);
        let other = signer.check_query(Bucket::Images, &other, &good, NOW);
        assert_eq!(other, Err(NotGood::Forged));
        let changes: [fn(&mut Query); 5] = [
            |query| query.content_type = "text/html".to_owned(),
            |query| query.name.push('x'),
            |query| query.inline = "0".to_owned(),
            |query| query.expires.push('0'),
            |query| query.signature = "0".repeat(64),
        ];
        for change in changes {
            let mut query = good.clone();
            change(&mut query);
            assert_eq!(check(&query), Err(NotGood::Forged), "{query:?}");
        }
    }

    #[test]
    fn a_ticket_is_no_url_and_a_url_no_ticket() {
        let signer = Signer::new(&[1; 32]);
        let same = ["chat-images", "a", "b", "c", "d", "e"];
        let post: Vec<_> = ["POST"].into_iter().chain(same).collect();
        let get: Vec<_> = ["GET"].into_iter().chain(same).collect();
        let tag = |parts: &[&str]| signer.context(parts).sign().as_ref().to_vec();
        assert_ne!(tag(&post), tag(&get));
        assert_ne!(tag(&["ab", "c"]), tag(&["a", "bc"]));
    }

    #[test]
    fn digits_are_read_as_they_were_written() {
        let bytes = [0x00, 0x7f, 0xff];
        assert_eq!(unhex::<3>(&hex(&bytes)), Some(bytes));
        for text in ["", "00", "007fFF", "007ff", "007fff00", "0x7fff"] {
            assert_eq!(unhex::<3>(text), None, "{text}");
        }
    }
}
