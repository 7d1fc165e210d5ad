//! Which types of files are taken, and whether first bytes are of the type that was declared.
//!
//! A type is taken only if it stands in [`TYPES`], and a file only if it begins as its type does: so nobody gets as
//! an image what is a page or a program. What is behind the first bytes nobody looks at; it is given out as what it
//! was declared, never as what somebody might take it for.

use super::upload::UploadKind;

/// Of what a file begins with, and thereby what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begins {
    Jpeg,
    Png,
    Gif,
    /// A RIFF of this form.
    Riff([u8; 4]),
    /// An ISO base media file that says to be of one of these brands.
    Iso(&'static [&'static [u8; 4]]),
    /// Matroska of the kind that browsers make.
    Webm,
    Ogg,
    Mp3,
    Aac,
    Pdf,
    /// Also what is a ZIP inside: the documents of today's office programs.
    Zip,
    /// The documents of yesterday's.
    Ole,
    Gzip,
    SevenZip,
    /// Text in UTF-8 without control characters.
    Text,
}

const AVIF: Begins = Begins::Iso(&[b"avif", b"avis", b"mif1", b"msf1"]);
const HEIC: Begins = Begins::Iso(&[
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
]);
const MP4: Begins = Begins::Iso(&[
    b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41",
    b"mp42", b"mp71", b"avc1", b"dash", b"M4A ", b"M4V ", b"mmp4",
]);

/// A type and which kinds of uploads may be of it.
struct Type {
    name: &'static str,
    begins: Begins,
    /// May be an image or a voice note, beside a file.
    also: Option<UploadKind>,
}

const fn file(name: &'static str, begins: Begins) -> Type {
    Type {
        name,
        begins,
        also: None,
    }
}

const fn image(name: &'static str, begins: Begins) -> Type {
    Type {
        name,
        begins,
        also: Some(UploadKind::Image),
    }
}

const fn voice(name: &'static str, begins: Begins) -> Type {
    Type {
        name,
        begins,
        also: Some(UploadKind::Voice),
    }
}

/// All that are taken. Nothing that a browser would run: no HTML, no SVG.
const TYPES: &[Type] = &[
    image("image/jpeg", Begins::Jpeg),
    image("image/png", Begins::Png),
    image("image/gif", Begins::Gif),
    image("image/webp", Begins::Riff(*b"WEBP")),
    image("image/avif", AVIF),
    image("image/heic", HEIC),
    image("image/heif", HEIC),
    voice("audio/ogg", Begins::Ogg),
    voice("audio/webm", Begins::Webm),
    voice("audio/mp4", MP4),
    voice("audio/mpeg", Begins::Mp3),
    voice("audio/aac", Begins::Aac),
    voice("audio/wav", Begins::Riff(*b"WAVE")),
    file("video/mp4", MP4),
    file("video/webm", Begins::Webm),
    file("video/quicktime", Begins::Iso(&[b"qt  "])),
    file("application/pdf", Begins::Pdf),
    file("application/zip", Begins::Zip),
    file("application/gzip", Begins::Gzip),
    file("application/x-7z-compressed", Begins::SevenZip),
    file("application/epub+zip", Begins::Zip),
    file(
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        Begins::Zip,
    ),
    file(
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        Begins::Zip,
    ),
    file(
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        Begins::Zip,
    ),
    file("application/vnd.oasis.opendocument.text", Begins::Zip),
    file(
        "application/vnd.oasis.opendocument.spreadsheet",
        Begins::Zip,
    ),
    file(
        "application/vnd.oasis.opendocument.presentation",
        Begins::Zip,
    ),
    file("application/msword", Begins::Ole),
    file("application/vnd.ms-excel", Begins::Ole),
    file("application/vnd.ms-powerpoint", Begins::Ole),
    file("text/plain", Begins::Text),
    file("text/csv", Begins::Text),
    file("text/markdown", Begins::Text),
    file("text/calendar", Begins::Text),
    file("application/json", Begins::Text),
];

/// The type of this name that an upload of this kind may be of, as it is written from then on: without parameters,
/// in lower case.
pub fn accepted(kind: UploadKind, content_type: &str) -> Option<&'static str> {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    TYPES
        .iter()
        .filter(|it| kind == UploadKind::File || it.also == Some(kind))
        .find(|it| it.name.eq_ignore_ascii_case(name))
        .map(|it| it.name)
}

/// Whether a file of this type may begin with these bytes, of which there are [`crate::limits::SNIFFED_BYTES`] unless
/// it is shorter.
pub fn begins_as(content_type: &str, first: &[u8]) -> bool {
    let found = TYPES.iter().find(|it| it.name == content_type);
    found.is_some_and(|it| it.begins.fits(first))
}

impl Begins {
    fn fits(self, first: &[u8]) -> bool {
        match self {
            Begins::Jpeg => first.starts_with(&[0xff, 0xd8, 0xff]),
            Begins::Png => first.starts_with(b"\x89PNG\r\n\x1a\n"),
            Begins::Gif => first.starts_with(b"GIF87a") || first.starts_with(b"GIF89a"),
            Begins::Riff(form) => first.starts_with(b"RIFF") && first.get(8..12) == Some(&form),
            Begins::Iso(brands) => is_iso(first, brands),
            Begins::Webm => {
                // The header names its kind of document within its first bytes.
                let head = &first[..first.len().min(128)];
                head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3])
                    && head.windows(7).any(|it| it == b"\x42\x82\x84webm")
            }
            Begins::Ogg => first.starts_with(b"OggS"),
            Begins::Mp3 => {
                first.starts_with(b"ID3")
                    // A frame of MPEG-1 or -2, layer III.
                    || matches!(first, [0xff, second, ..] if matches!(second & 0xfe, 0xfa | 0xf2 | 0xe2))
            }
            // A frame with ADTS header.
            Begins::Aac => matches!(first, [0xff, second, ..] if second & 0xf6 == 0xf0),
            Begins::Pdf => first.starts_with(b"%PDF-"),
            Begins::Zip => first.starts_with(b"PK\x03\x04") || first.starts_with(b"PK\x05\x06"),
            Begins::Ole => first.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
            Begins::Gzip => first.starts_with(&[0x1f, 0x8b, 8]),
            Begins::SevenZip => first.starts_with(b"7z\xbc\xaf\x27\x1c"),
            Begins::Text => is_text(first),
        }
    }
}

/// `ftyp` as the first box, of one of these brands, be it one that it is only compatible with.
fn is_iso(first: &[u8], brands: &[&[u8; 4]]) -> bool {
    let Some((length, rest)) = first.split_first_chunk::<4>() else {
        return false;
    };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(own) = rest.strip_prefix(b"ftyp") else {
        return false;
    };
    let own = &own[..own.len().min(length.saturating_sub(8))];
    // The brand, its version, and those that it is compatible with.
    let mut named = own.chunks_exact(4).enumerate().filter(|(at, _)| *at != 1);
    named.any(|(_, name)| brands.iter().any(|brand| *brand == name))
}

fn is_text(first: &[u8]) -> bool {
    let text = match str::from_utf8(first) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => {
            str::from_utf8(&first[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty()
        && text
            .chars()
            .all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{c}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How files of each type begin.
    const SAMPLES: &[(&str, &[u8])] = &[
        ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("image/gif", b"GIF89a\x01\0\x01\0"),
        ("image/webp", b"RIFF\x24\0\0\0WEBPVP8 "),
        ("image/avif", b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf"),
        ("image/heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
        ("audio/ogg", b"OggS\0\x02\0\0\0\0\0\0\0\0"),
        (
            "audio/webm",
            b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm",
        ),
        ("audio/mp4", b"\0\0\0\x1cftypiso5\0\0\x02\0iso5iso6mp41"),
        ("audio/mpeg", b"\xff\xfb\x90\x64"),
        ("audio/aac", b"\xff\xf1\x50\x80"),
        ("audio/wav", b"RIFF\x24\0\0\0WAVEfmt "),
        ("video/quicktime", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("application/pdf", b"%PDF-1.7\n"),
        ("application/zip", b"PK\x03\x04\x14\0"),
        ("application/gzip", b"\x1f\x8b\x08\0"),
        ("application/x-7z-compressed", b"7z\xbc\xaf\x27\x1c\0\x04"),
        ("application/msword", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0"),
        ("text/plain", "Grüße\n".as_bytes()),
    ];

    #[test]
    fn a_file_is_what_it_begins_with_and_nothing_else() {
        for (name, first) in SAMPLES {
            assert!(begins_as(name, first), "{name}");
            for (other, _) in SAMPLES.iter().filter(|(other, _)| other != name) {
                // Both are containers of which only what is inside differs.
                let is_alike = [name, other].iter().all(|it| it.ends_with("/mp4"));
                // An AVIF image says that it is an image of this family, whose members share brands.
                let shares = ["image/avif", "image/heic"];
                let is_alike = is_alike || shares.contains(name) && shares.contains(other);
                // What is text all over is text, whatever else it is.
                let is_alike = is_alike || *name == "application/pdf" && *other == "text/plain";
                assert!(is_alike || !begins_as(other, first), "{name} is no {other}");
            }
        }
    }

    #[test]
    fn what_a_browser_would_run_is_none_of_them() {
        let page = b"<!DOCTYPE html><script>alert(1)</script>";
        for (name, _) in SAMPLES.iter().filter(|(name, _)| *name != "text/plain") {
            assert!(!begins_as(name, page), "{name}");
        }
        for name in [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/javascript",
            "application/octet-stream",
            "application/x-msdownload",
            "",
        ] {
            assert_eq!(accepted(UploadKind::File, name), None, "{name}");
            assert!(!begins_as(name, page), "{name}");
        }
    }

    #[test]
    fn too_few_bytes_are_of_no_type() {
        for (name, first) in SAMPLES.iter().filter(|(name, _)| *name != "text/plain") {
            assert!(!begins_as(name, &[]), "{name}");
            assert!(!begins_as(name, &first[..1]), "{name}");
        }
        assert!(!begins_as("text/plain", b""));
        assert!(
            !begins_as("image/heic", b"\0\0\0\x08ftypheic"),
            "a box of nothing"
        );
    }

    #[test]
    fn text_may_end_within_a_character_but_not_hold_bytes_that_are_none() {
        let text = "ä".repeat(100);
        assert!(begins_as("text/plain", &text.as_bytes()[..99]));
        for bytes in [&b"a\0b"[..], b"\xff\xfea\0", b"MZ\x90\0\x03", b"\x1b[2J"] {
            assert!(!begins_as("text/plain", bytes), "{bytes:?}");
        }
    }

    #[test]
    fn each_kind_takes_its_own_types() {
        let taken = |kind, name| accepted(kind, name);
        assert_eq!(taken(UploadKind::Image, "IMAGE/PNG"), Some("image/png"));
        assert_eq!(
            taken(UploadKind::Voice, "audio/webm;codecs=opus"),
            Some("audio/webm")
        );
        assert_eq!(taken(UploadKind::Image, "audio/webm"), None);
        assert_eq!(taken(UploadKind::Image, "application/pdf"), None);
        assert_eq!(taken(UploadKind::Voice, "image/png"), None);
        assert_eq!(taken(UploadKind::File, "image/png"), Some("image/png"));
        assert_eq!(
            taken(UploadKind::File, "application/pdf"),
            Some("application/pdf")
        );
    }
}
