//! The form of an upload, word for word as docs/integrating.md shows it; `tests/tidy.rs` compares them.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

/// The type and the body of a form with the fields of a ticket, and then the file.
pub fn form(
    fields: &BTreeMap<String, String>,
    (name, content_type): (&str, &str),
    file: &[u8],
) -> (String, Vec<u8>) {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let mut body = Vec::with_capacity(file.len() + 4_096);
    for (field, value) in fields {
        let part = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
        );
        body.extend_from_slice(part.as_bytes());
    }
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: {content_type}\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(file);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}
