//! What a node tells those who watch it: HTTP by hand, and the text format read strictly.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{PATIENCE, wait_for};

/// Status and body of the answer to a GET.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the metrics listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("a request is taken");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer in UTF-8");
    let (head, body) = said.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse().ok())
        .expect("a length");
    assert_eq!(body.len(), length, "the body is whole");
    (status.expect("a status"), body.to_owned())
}

/// One scrape.
#[derive(Clone, PartialEq, Debug)]
pub struct Scrape {
    /// By name and labels.
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

/// Scrapes a node; panics where the text is not as the format demands.
pub fn scrape(address: SocketAddr) -> Scrape {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200, "{text}");
    parse(&text)
}

/// Scrapes until `condition` has an answer: what is told may be a second old.
pub fn await_scrape<T>(
    address: SocketAddr,
    what: &str,
    condition: impl Fn(&Scrape) -> Option<T>,
) -> T {
    wait_for(what, || condition(&scrape(address)))
}

fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut samples = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut helped, mut family) = (String::new(), (String::new(), String::new()));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and its meaning");
            assert!(!help.is_empty() && seen.insert(name.to_owned()), "{name} is there twice");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and its type");
            assert_eq!(name, helped, "a type follows the meaning");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = (name.to_owned(), kind.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|part| {
                family.1 == "histogram" && name.strip_suffix(part) == Some(family.0.as_str())
            });
            assert!(name == family.0 || of_histogram, "{line} stands in the family {family:?}");
            assert!(samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
    }
    Scrape { samples }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, mut rest) = line.split_at(name_end);
    let is_name =
        |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, behind) = rest.split_once("=\"").expect("a label and its value");
            assert!(is_name(label), "{line}");
            let mut value = String::new();
            let mut chars = behind.char_indices();
            let end = loop {
                match chars.next().expect("a value ends") {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().expect("what is escaped").1 {
                        'n' => '\n',
                        c => c,
                    }),
                    (_, c) => value.push(c),
                }
            };
            rest = &behind[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
        }
        rest = &rest[1..];
    }
    let value = rest.trim().parse().unwrap_or_else(|_| panic!("no value: {line}"));
    (name.to_owned(), labels, value)
}

impl Scrape {
    /// The one sample with just these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// All samples of a name with these labels, and maybe others, added up; 0 of none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }

    /// How many samples there are of a name with these labels, and maybe others.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.of(name, labels).count()
    }

    /// The values that a label has in samples of a name.
    pub fn labels(&self, name: &str, label: &str) -> BTreeSet<String> {
        self.of(name, &[]).filter_map(|(labels, _)| labels.get(label).cloned()).collect()
    }

    fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        let has = move |found: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| found.get(*label).is_some_and(|it| it == value))
        };
        self.samples
            .iter()
            .filter(move |((of, found), _)| of == name && has(found))
            .map(|((_, labels), value)| (labels, *value))
    }
}

#[test]
fn samples_are_read_with_their_labels() {
    let text = "# HELP a_total It is.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n}\"} 3\n\
                a_total{x=\"2\"} 1\n# HELP b B.\n# TYPE b gauge\nb -0.5\n";
    let scrape = parse(text);
    assert_eq!(scrape.value("a_total", &[("x", "1"), ("y", "q\"\\\n}")]), Some(3.0));
    assert_eq!(scrape.sum("a_total", &[]), 4.0);
    assert_eq!(scrape.value("b", &[]), Some(-0.5));
    assert_eq!(scrape.value("c", &[]), None);
}
