//! Strings from clients.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, ops::Deref};

/// A string from a client: it holds no U+0000, which some stores cannot keep and which would
/// spoil the batch it travels in. Parsing refuses it, which makes the request `bad_request`.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Takes a string of our own making; `None` if it holds U+0000.
    pub fn new(text: impl Into<String>) -> Option<Text> {
        let text = text.into();
        (!text.as_bytes().contains(&0)).then_some(Text(text))
    }

    /// The string itself.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[^\\u0000]*$",
            "description": "A string without U+0000.",
        })
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::new(String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("U+0000 is not allowed in a string"))
    }
}
