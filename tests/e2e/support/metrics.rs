//! Reads `/metrics` (Prometheus text format 0.0.4), strictly.

use std::collections::BTreeMap;

/// All samples, by name and labels as they stand.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: BTreeMap<(String, String), f64>,
    /// Kind of each family: counter, gauge, histogram.
    pub kinds: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses a page; every sample must belong to a family that was announced before it.
    pub fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics {
            samples: BTreeMap::new(),
            kinds: BTreeMap::new(),
        };
        assert!(text.ends_with('\n'), "the last line ends");
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a name and a help");
                assert!(!help.is_empty() && is_name(name), "{line}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                assert_eq!(name, family, "TYPE follows its HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let again = metrics.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(again.is_none(), "a family comes once: {line}");
            } else {
                metrics.sample(line, &family);
            }
        }
        metrics
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
            None => (series, ""),
        };
        assert!(is_name(name), "{line}");
        let suffixes: &[&str] = match self.kinds.get(family).map(String::as_str) {
            Some("histogram") => &["_bucket", "_sum", "_count"],
            Some(_) => &[""],
            None => panic!("a sample without a family: {line}"),
        };
        let of_family = |suffix: &&str| name.strip_suffix(*suffix) == Some(family);
        assert!(suffixes.iter().any(of_family), "{line} in {family}");
        let value: f64 = value.parse().expect("a number");
        assert!(value >= 0.0, "{line}");
        let key = (name.to_owned(), labels.to_owned());
        assert!(self.samples.insert(key, value).is_none(), "twice: {line}");
    }

    /// The sum over all labels; `None` if there is no such sample.
    pub fn find(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.each(name).map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The sum over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.find(name)
            .unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Every sample of a name, with its labels.
    pub fn each<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let of_name = move |((own, _), _): &(&'a (String, String), &f64)| own == name;
        let samples = self.samples.iter().filter(of_name);
        samples.map(|((_, labels), value)| (labels.as_str(), *value))
    }
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(good) && !name.as_bytes()[0].is_ascii_digit()
}
