//! Wire bytes made straight from the schema tables.
//!
//! An interpreter of the tables that shares the parser with the generator but none of its decisions: what it
//! writes is what a correct decoder must accept and a correct encoder must reproduce byte by byte.

use std::fs;
use std::path::Path;

use crate::parse::{self, Field, Message, Table, Type};

/// How a sample chooses among what the schema allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Null and empty wherever possible, no tagged fields.
    Sparse,
    /// Nothing null or empty, all tagged fields, unknown ones as well.
    Full,
    /// A coin is tossed each time; some byte strings are long enough to be shared.
    Mixed,
}

pub const SHAPES: [Shape; 3] = [Shape::Sparse, Shape::Full, Shape::Mixed];

/// A tag that no schema uses.
const UNKNOWN_TAG: u32 = 7_000;

pub fn tables() -> Vec<Table> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 90, "schema tables are missing");
    paths.iter().map(|p| parse::table(&fs::read_to_string(p).unwrap()).unwrap()).collect()
}

/// Deterministic random numbers (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// The bytes of a sample of `message`; the same arguments give the same bytes.
pub fn sample(message: &Message, version: i16, shape: Shape, seed: u64) -> Vec<u8> {
    sample_with_arrays(message, version, shape, seed).0
}

/// Where the count of an array is, and whether it is a compact one.
#[derive(Clone, Copy, Debug)]
pub struct ArrayCount {
    pub offset: usize,
    pub compact: bool,
}

/// A sample and its array counts, except those inside tagged fields.
pub fn sample_with_arrays(
    message: &Message,
    version: i16,
    shape: Shape,
    seed: u64,
) -> (Vec<u8>, Vec<ArrayCount>) {
    let mut sampler = Sampler {
        message,
        version,
        shape,
        rng: Rng(seed),
        out: Vec::new(),
        arrays: Vec::new(),
        tag_depth: 0,
    };
    sampler.structure(&message.name);
    (sampler.out, sampler.arrays)
}

struct Sampler<'a> {
    message: &'a Message,
    version: i16,
    shape: Shape,
    rng: Rng,
    out: Vec<u8>,
    arrays: Vec<ArrayCount>,
    tag_depth: usize,
}

impl Sampler<'_> {
    fn flexible(&self) -> bool {
        self.message.is_flexible(self.version)
    }

    fn structure(&mut self, name: &str) {
        let message = self.message;
        let fields = &message.find(name).unwrap().fields;
        let present = |f: &&Field| f.versions.contains(self.version);
        let fields: Vec<&Field> = fields.iter().filter(present).collect();
        for field in fields.iter().filter(|f| f.tag.is_none()) {
            self.field(field, false);
        }
        if self.flexible() {
            self.tags(&fields);
        }
    }

    fn tags(&mut self, fields: &[&Field]) {
        let mut tagged: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in fields {
            let Some(tag) = field.tag else { continue };
            if self.chance() {
                let outer = std::mem::take(&mut self.out);
                self.tag_depth += 1;
                self.field(field, true);
                self.tag_depth -= 1;
                tagged.push((tag, std::mem::replace(&mut self.out, outer)));
            }
        }
        if self.chance() {
            let content = (0..self.rng.below(200)).map(|i| i as u8).collect();
            tagged.push((UNKNOWN_TAG, content));
        }
        tagged.sort();
        self.varint(tagged.len() as u32);
        for (tag, content) in tagged {
            self.varint(tag);
            self.varint(content.len() as u32);
            self.out.extend(content);
        }
    }

    /// Whether something optional is there.
    fn chance(&mut self) -> bool {
        match self.shape {
            Shape::Sparse => false,
            Shape::Full => true,
            Shape::Mixed => self.rng.coin(),
        }
    }

    /// `set` asks for a value that is neither null nor empty nor the default.
    fn field(&mut self, field: &Field, set: bool) {
        let flex = self.flexible() && !field.inflexible;
        let nullable = field.nullable.is_some_and(|n| n.contains(self.version));
        let null = nullable && !set && !self.chance();
        match &field.ty {
            Type::Struct(name) => {
                if nullable {
                    self.out.push(if null { 0xff } else { 1 });
                }
                if !null {
                    self.structure(name);
                }
            }
            Type::String if null => self.length(flex, None, true),
            Type::Bytes | Type::Records | Type::Array(_) if null => self.length(flex, None, false),
            Type::Array(element) => {
                let count = self.count(set, 3);
                if self.tag_depth == 0 {
                    self.arrays.push(ArrayCount { offset: self.out.len(), compact: flex });
                }
                self.length(flex, Some(count), false);
                for _ in 0..count {
                    self.value(element, flex, set);
                }
            }
            ty => {
                let default = field.default.as_deref().map_or("0", |d| d);
                let start = self.out.len();
                self.value(ty, flex, set);
                while set && is_default(ty, default, &self.out[start..]) {
                    self.out.truncate(start);
                    self.value(ty, flex, set);
                }
            }
        }
    }

    fn value(&mut self, ty: &Type, flex: bool, set: bool) {
        let random = self.rng.next().to_be_bytes();
        match ty {
            Type::Bool => self.out.push(random[0] & 1),
            Type::Int8 => self.out.extend(&random[..1]),
            Type::Int16 | Type::Uint16 => self.out.extend(&random[..2]),
            Type::Int32 | Type::Uint32 => self.out.extend(&random[..4]),
            Type::Int64 => self.out.extend(random),
            // From an integer, so that it is never a NaN, which equals nothing.
            Type::Float64 => {
                self.out.extend((i64::from_be_bytes(random) as f64 / 3.0).to_be_bytes());
            }
            Type::Uuid => {
                self.out.extend(random);
                self.out.extend(self.rng.next().to_be_bytes());
            }
            Type::String => {
                let text: String = "aé→😀z".chars().cycle().take(self.count(set, 9)).collect();
                self.length(flex, Some(text.len()), true);
                self.out.extend(text.as_bytes());
            }
            Type::Bytes | Type::Records => {
                let long = self.shape == Shape::Mixed && self.rng.below(4) == 0;
                let count = self.count(set, 40) + if long { 1500 } else { 0 };
                self.length(flex, Some(count), false);
                self.out.extend((0..count).map(|i| i as u8));
            }
            Type::Struct(name) => self.structure(name),
            Type::Array(_) => unreachable!("arrays of arrays are refused by the parser"),
        }
    }

    fn count(&mut self, set: bool, most: usize) -> usize {
        match self.shape {
            Shape::Sparse => 0,
            Shape::Mixed if !set => self.rng.below(most + 1),
            _ => 1 + self.rng.below(most),
        }
    }

    fn length(&mut self, flex: bool, length: Option<usize>, short: bool) {
        let signed = length.map_or(-1, |l| l as i32);
        match (flex, short) {
            (true, _) => self.varint((signed + 1) as u32),
            (false, true) => self.out.extend((signed as i16).to_be_bytes()),
            (false, false) => self.out.extend(signed.to_be_bytes()),
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

fn is_default(ty: &Type, default: &str, bytes: &[u8]) -> bool {
    let number = bytes.iter().fold(0i64, |n, b| n << 8 | i64::from(*b));
    match ty {
        Type::Bool => (number == 1) == (default == "true"),
        Type::Int64 => Ok(number) == default.parse(),
        Type::Int32 => Ok(number as i32) == default.parse(),
        Type::Int16 => Ok(number as i16) == default.parse(),
        Type::Int8 => Ok(number as i8) == default.parse(),
        _ => false,
    }
}
