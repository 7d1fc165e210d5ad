//! Where the bytes of an upload lie: the bucket that goes with its kind, and its key in there.

use std::fmt;

/// A bucket; each kind of upload has its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Bucket {
    /// Uploads of the kind `image`.
    Images,
    /// Uploads of the kind `file`.
    Files,
    /// Uploads of the kind `voice`.
    Voice,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Bucket; 3] = [Bucket::Images, Bucket::Files, Bucket::Voice];

    /// Its name, in an object store and in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Bucket::Images => "chat-images",
            Bucket::Files => "chat-files",
            Bucket::Voice => "chat-voice",
        }
    }

    /// The bucket of this name.
    pub fn named(name: &str) -> Option<Bucket> {
        Bucket::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// The key of an object: `ab/` and 32 hexadecimal digits that begin with the same two, so that no folder of it
/// grows without bounds. Nobody can guess it, and no path but this one can be written with it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ObjectKey(String);

/// Digits behind the slash.
const DIGITS: usize = 32;

impl ObjectKey {
    /// The key of these random bytes.
    pub fn new(random: [u8; DIGITS / 2]) -> ObjectKey {
        let digits = u128::from_be_bytes(random);
        ObjectKey(format!("{:02x}/{digits:032x}", random[0]))
    }

    /// A key as it was written by [`ObjectKey::as_str`]; `None` for everything else.
    pub fn parse(text: &str) -> Option<ObjectKey> {
        let (folder, digits) = text.split_once('/')?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = folder.len() == 2
            && digits.len() == DIGITS
            && digits.starts_with(folder)
            && digits.bytes().all(is_digit);
        fits.then(|| ObjectKey(text.to_owned()))
    }

    /// As it stands in the store, in an object store and in a URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_else_is_one() {
        let key = ObjectKey::new([0x0a; 16]);
        assert_eq!(key.as_str(), "0a/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a");
        assert_eq!(ObjectKey::parse(key.as_str()), Some(key));
        for text in [
            "",
            "/",
            "0a",
            "0a/",
            "../0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
            "0b/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
            "0A/0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A",
            "0a/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0",
            "0a/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0",
            "0a/0a0a0a0a0a0a0a0a/a0a0a0a0a0a0a0a",
            "0a/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a..",
        ] {
            assert_eq!(ObjectKey::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_bucket_is_found_by_its_name() {
        for bucket in Bucket::ALL {
            assert_eq!(Bucket::named(bucket.name()), Some(bucket));
        }
        assert_eq!(Bucket::named("chat-secrets"), None);
    }
}
