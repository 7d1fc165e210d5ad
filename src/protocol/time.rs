//! Times on the wire: RFC 3339, UTC, milliseconds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The last time that can be written: what ends then lasts for good.
    pub const FOR_GOOD: UnixMs = UnixMs(253_402_300_799_999);

    /// The inverse of [`UnixMs::to_string`], and of nothing else.
    pub fn parse(text: &str) -> Option<UnixMs> {
        let number = |from: usize, to: usize| -> Option<u64> {
            let digits = text.get(from..to)?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let in_range = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !in_range {
            return None;
        }
        let seconds = (hour * 60 + minute) * 60 + second;
        let ms = (days_from_civil(year, month, day) * 86_400 + seconds) * 1_000 + number(20, 23)?;
        // Days that a month does not have, 25 o'clock, and other separators.
        Some(UnixMs(ms)).filter(|time| time.to_string() == text)
    }
}

impl UnixMs {
    /// As it is written, in ASCII; a time after [`UnixMs::FOR_GOOD`] as that. By hand: a formatter took a fifth of
    /// all instructions of a message.
    fn text(self) -> [u8; 24] {
        let ms = self.0.min(UnixMs::FOR_GOOD.0);
        let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |from: usize, to: usize, mut number: u64| {
            for digit in text[from..to].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 7, month);
        put(8, 10, day);
        put(11, 13, ms / 3_600_000);
        put(14, 16, ms / 60_000 % 60);
        put(17, 19, ms / 1_000 % 60);
        put(20, 23, ms % 1_000);
        text
    }
}

impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", for days ≥ 0: years begin in
/// March, so that the leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl<'de> Deserialize<'de> for UnixMs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<UnixMs, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        UnixMs::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

impl Serialize for UnixMs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl JsonSchema for UnixMs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::UnixMs;

    fn check(ms: u64, expected: &str) {
        assert_eq!(UnixMs(ms).to_string(), expected);
    }

    #[test]
    fn times_are_rfc_3339() {
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_709_251_199_999, "2024-02-29T23:59:59.999Z");
        check(1_709_251_200_000, "2024-03-01T00:00:00.000Z");
        check(4_102_444_800_001, "2100-01-01T00:00:00.001Z");
        check(UnixMs::FOR_GOOD.0, "9999-12-31T23:59:59.999Z");
        check(u64::MAX, "9999-12-31T23:59:59.999Z");
        check(1_234_567_890_987, "2009-02-13T23:31:30.987Z");
        let json = sonic_rs::to_string(&UnixMs(1_234_567_890_987)).expect("a string");
        assert_eq!(json, r#""2009-02-13T23:31:30.987Z""#);
    }

    #[test]
    fn a_time_is_read_as_it_is_written_and_in_no_other_way() {
        for day in 0..60_000 {
            let time = UnixMs(day * 86_400_000 + day * 997 % 86_400_000);
            assert_eq!(UnixMs::parse(&time.to_string()), Some(time));
        }
        assert_eq!(
            UnixMs::parse("9999-12-31T23:59:59.999Z"),
            Some(UnixMs::FOR_GOOD)
        );
        for text in [
            "",
            "2024-02-30T00:00:00.000Z",
            "2023-02-29T00:00:00.000Z",
            "2024-13-01T00:00:00.000Z",
            "2024-00-01T00:00:00.000Z",
            "2024-01-01T24:00:00.000Z",
            "2024-01-01T00:60:00.000Z",
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00.000+00:00",
            "2024-01-01 00:00:00.000Z",
            "2024-01-01T00:00:00.000Z ",
            "1969-12-31T23:59:59.999Z",
            "+024-01-01T00:00:00.000Z",
            "2024-01-01T00:00:00.0é0Z",
        ] {
            assert_eq!(UnixMs::parse(text), None, "{text}");
        }
    }
}
