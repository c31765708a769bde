//! Reads schema tables.
//!
//! The tables hold the facts of the schemas that Kafka 4.4.0 ships inside kafka-clients as
//! `common/message/*.json`, APIs without any valid version left out. One file describes one API (its request and its response) or a few messages without an API key.
//! Nesting is indentation by two spaces. Names are Kafka's, in Kafka's spelling.
//!
//! ```text
//! api 1 Fetch                                  API key and name; once, before request and response
//!
//! request 4-18 flexible 12+                    valid versions, first flexible version
//!   ClusterId string 12+ nullable 12+ tag 0 12+ default null ignorable
//!   Topics    []FetchTopic 0+                  a field: name, type, versions, attributes
//!     Topic   string 0-12 ignorable            the members of struct FetchTopic
//!   Leader    LeaderId 12+                     a struct declared in place or by `struct`
//!   struct LeaderId                            a struct that several fields share
//!     Id int32 0+
//!
//! response 4-18 flexible 12+
//! data ConsumerProtocolAssignment 0-3          a message that belongs to no API
//! ```
//!
//! * Versions are `N`, `N-M` or `N+`. Fields may name versions outside the valid ones of their
//!   message; only the intersection counts, and a field without any is left out.
//! * Types: `bool int8 int16 uint16 int32 uint32 int64 float64 string bytes records uuid`, a struct's
//!   name, or `[]` and one of these.
//! * Attributes of a field: `nullable VERSIONS`; `tag N VERSIONS` (a tagged field, in these
//!   versions); `default VALUE` (a number, `true`, `false`, `null` or `""`); `ignorable` (may be dropped
//!   silently when a version lacks it); `inflexible` (keeps the old encoding in flexible versions).
//! * Attributes of a message: `flexible N+`; `unstable N`, a version that the release knows but does
//!   not offer, which is therefore outside the valid ones.

/// Inclusive range of versions; open ends are `i16::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub min: i16,
    pub max: i16,
}

impl Versions {
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(Self { min, max })
    }

    pub fn covers(self, other: Self) -> bool {
        self.min <= other.min && self.max >= other.max
    }

    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    String,
    Bytes,
    Records,
    Uuid,
    Struct(String),
    Array(Box<Type>),
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    pub versions: Versions,
    pub nullable: Option<Versions>,
    pub tag: Option<u32>,
    pub default: Option<String>,
    pub ignorable: bool,
    pub inflexible: bool,
}

#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Request,
    Response,
    Data,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub name: String,
    pub role: Role,
    pub valid: Versions,
    /// First flexible version, if any is.
    pub flexible: Option<i16>,
    /// The message's own struct first, then the nested ones in order of their first mention.
    pub structs: Vec<Struct>,
}

impl Message {
    pub fn find(&self, name: &str) -> Result<&Struct, String> {
        let missing = || format!("{}: no struct named {name}", self.name);
        self.structs.iter().find(|s| s.name == name).ok_or_else(missing)
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible.is_some_and(|from| version >= from)
    }
}

#[derive(Clone, Debug)]
pub struct Table {
    pub api: Option<(i16, String)>,
    pub messages: Vec<Message>,
}

/// Parses one file. The error begins with the line number.
pub fn table(text: &str) -> Result<Table, String> {
    let mut table = Table { api: None, messages: Vec::new() };
    // Index of the struct that receives fields at each depth; depth 1 is the message itself.
    let mut open: Vec<usize> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        add_line(&mut table, &mut open, line).map_err(|e| format!("{}: {e}", number + 1))?;
    }
    for message in &table.messages {
        check(message)?;
    }
    Ok(table)
}

fn add_line(table: &mut Table, open: &mut Vec<usize>, line: &str) -> Result<(), String> {
    let indent = line.len() - line.trim_start().len();
    if !indent.is_multiple_of(2) {
        return Err("indentation is not a multiple of two".into());
    }
    let depth = indent / 2;
    let mut words = line.split_whitespace();
    let first = words.next().ok_or("empty line")?;
    if depth == 0 {
        open.clear();
        return add_heading(table, open, first, &mut words);
    }
    let message = table.messages.last_mut().ok_or("a field before its message")?;
    if depth > open.len() {
        return Err("indented below something that is no struct".into());
    }
    open.truncate(depth);
    if first == "struct" {
        let name = words.next().ok_or("struct without a name")?;
        open.push(declare(message, name)?);
        return Ok(());
    }
    let field = field(first, &mut words)?;
    let element = match &field.ty {
        Type::Array(inner) => inner.as_ref(),
        other => other,
    };
    // Members follow one level deeper; a shared struct is declared where its `struct` line is.
    if let Type::Struct(name) = element {
        let name = name.clone();
        let known = message.structs.iter().position(|s| s.name == name);
        let index = known.unwrap_or_else(|| {
            message.structs.push(Struct { name, fields: Vec::new() });
            message.structs.len() - 1
        });
        message.structs[open[depth - 1]].fields.push(field);
        open.push(index);
    } else {
        message.structs[open[depth - 1]].fields.push(field);
    }
    Ok(())
}

fn declare(message: &mut Message, name: &str) -> Result<usize, String> {
    match message.structs.iter().position(|s| s.name == name) {
        Some(index) if message.structs[index].fields.is_empty() => Ok(index),
        Some(_) => Err(format!("struct {name} is declared twice")),
        None => {
            message.structs.push(Struct { name: name.into(), fields: Vec::new() });
            Ok(message.structs.len() - 1)
        }
    }
}

fn add_heading<'a>(
    table: &mut Table,
    open: &mut Vec<usize>,
    first: &str,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let mut word = || words.next().ok_or("line ends too early");
    let (role, name) = match first {
        "api" => {
            let key = word()?.parse().map_err(|_| "API key is no number")?;
            table.api = Some((key, word()?.to_string()));
            return Ok(());
        }
        "data" => (Role::Data, word()?.to_string()),
        "request" | "response" => {
            let (_, api) = table.api.as_ref().ok_or("no api line before this")?;
            match first {
                "request" => (Role::Request, format!("{api}Request")),
                _ => (Role::Response, format!("{api}Response")),
            }
        }
        other => return Err(format!("unknown heading {other}")),
    };
    let valid = versions(word()?)?;
    let mut flexible = None;
    while let Ok(attribute) = word() {
        match attribute {
            "flexible" => flexible = Some(versions(word()?)?.min),
            "unstable" => {
                let unstable = versions(word()?)?;
                if valid.intersect(unstable).is_some() {
                    return Err("an unstable version cannot be valid".into());
                }
            }
            other => return Err(format!("unknown attribute {other}")),
        }
    }
    let structs = vec![Struct { name: name.clone(), fields: Vec::new() }];
    table.messages.push(Message { name, role, valid, flexible, structs });
    open.push(0);
    Ok(())
}

fn field<'a>(name: &str, words: &mut impl Iterator<Item = &'a str>) -> Result<Field, String> {
    let mut word = || words.next().ok_or("line ends too early");
    let mut field = Field {
        name: name.into(),
        ty: type_named(word()?)?,
        versions: versions(word()?)?,
        nullable: None,
        tag: None,
        default: None,
        ignorable: false,
        inflexible: false,
    };
    while let Ok(attribute) = word() {
        match attribute {
            "nullable" => field.nullable = Some(versions(word()?)?),
            "tag" => {
                field.tag = Some(word()?.parse().map_err(|_| "tag is no number")?);
                // Nowhere does Kafka make a field tagged in only some of its versions.
                if versions(word()?)? != field.versions {
                    return Err("tagged versions differ from the field's versions".into());
                }
            }
            "default" => field.default = Some(word()?.into()),
            "ignorable" => field.ignorable = true,
            "inflexible" => field.inflexible = true,
            other => return Err(format!("unknown attribute {other}")),
        }
    }
    Ok(field)
}

fn type_named(word: &str) -> Result<Type, String> {
    if let Some(element) = word.strip_prefix("[]") {
        let element = type_named(element)?;
        if matches!(element, Type::Array(_)) {
            return Err("an array of arrays".into());
        }
        return Ok(Type::Array(Box::new(element)));
    }
    Ok(match word {
        "bool" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "uint16" => Type::Uint16,
        "int32" => Type::Int32,
        "uint32" => Type::Uint32,
        "int64" => Type::Int64,
        "float64" => Type::Float64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        "uuid" => Type::Uuid,
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Type::Struct(name.into()),
        other => return Err(format!("unknown type {other}")),
    })
}

fn versions(word: &str) -> Result<Versions, String> {
    let number = |s: &str| s.parse::<i16>().map_err(|_| format!("{word} is no version range"));
    let range = if let Some(min) = word.strip_suffix('+') {
        Versions { min: number(min)?, max: i16::MAX }
    } else if let Some((min, max)) = word.split_once('-') {
        Versions { min: number(min)?, max: number(max)? }
    } else {
        Versions { min: number(word)?, max: number(word)? }
    };
    if range.min > range.max {
        return Err(format!("{word} is an empty range"));
    }
    Ok(range)
}

/// Rules that need the whole message: no empty or unknown struct, no field twice, no recursion.
fn check(message: &Message) -> Result<(), String> {
    fn visit(message: &Message, name: &str, path: &mut Vec<String>) -> Result<(), String> {
        if path.iter().any(|seen| seen == name) {
            return Err(format!("{}: struct {name} contains itself", message.name));
        }
        path.push(name.into());
        for field in &message.find(name)?.fields {
            let element = match &field.ty {
                Type::Array(inner) => inner.as_ref(),
                other => other,
            };
            if let Type::Struct(inner) = element {
                visit(message, inner, path)?;
            }
        }
        path.pop();
        Ok(())
    }
    for part in &message.structs {
        let mut names: Vec<&str> = part.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("{}: field {} is declared twice", part.name, twice[0]));
        }
    }
    for nested in message.structs.iter().skip(1) {
        if nested.fields.is_empty() {
            return Err(format!("{}: struct {} has no fields", message.name, nested.name));
        }
    }
    visit(message, &message.name, &mut Vec::new())
}
