//! What one field becomes in Rust: its type, its default, and the expressions that read and write it.

use super::parse::{Field, Message, Type, Versions};
use super::size::min_bytes;

/// When something holds, over the versions in which it is asked.
pub enum When {
    Always,
    Never,
    /// A Rust expression over `version`.
    If(String),
}

impl When {
    /// When a version out of `asked` lies in `range`.
    pub fn within(range: Versions, asked: Versions) -> Self {
        if range.covers(asked) {
            return Self::Always;
        }
        match range.intersect(asked) {
            None => Self::Never,
            Some(r) if r.min == r.max => Self::If(format!("version == {}", r.min)),
            Some(r) if r.min == asked.min => Self::If(format!("version <= {}", r.max)),
            Some(r) if r.max == asked.max => Self::If(format!("version >= {}", r.min)),
            Some(r) => Self::If(format!("({}..={}).contains(&version)", r.min, r.max)),
        }
    }
}

/// A field in the context of its message.
pub struct Column<'a> {
    pub message: &'a Message,
    pub field: &'a Field,
    /// Kafka's name with that of the message and struct in front, for errors.
    pub path: String,
    /// Versions in which it is on the wire.
    pub versions: Versions,
}

impl<'a> Column<'a> {
    /// `None` if no valid version has the field.
    pub fn new(message: &'a Message, owner: &str, field: &'a Field) -> Option<Self> {
        let versions = field.versions.intersect(message.valid)?;
        let path = format!("{owner}.{}", field.name);
        Some(Self { message, field, path, versions })
    }

    pub fn rust_name(&self) -> String {
        let name = snake(&self.field.name);
        match name.as_str() {
            "as" | "in" | "match" | "mod" | "move" | "ref" | "type" | "use" | "where" => {
                format!("r#{name}")
            }
            _ => name,
        }
    }

    fn is_nullable(&self) -> bool {
        !matches!(self.null(), When::Never)
    }

    /// When null may be on the wire, over the versions that have the field.
    fn null(&self) -> When {
        match self.field.nullable {
            None => When::Never,
            Some(range) => When::within(range, self.versions),
        }
    }

    pub fn rust_type(&self) -> String {
        let plain = plain_type(&self.field.ty);
        if self.is_nullable() { format!("Option<{plain}>") } else { plain }
    }

    /// One line for the documentation.
    pub fn doc(&self) -> String {
        let mut doc = format!("`{}`, versions {}", self.field.name, range(self.versions));
        if let Some(tag) = self.field.tag {
            doc += &format!(", tagged field {tag}");
        }
        if self.field.ignorable {
            doc += ", dropped silently elsewhere";
        }
        doc + "."
    }

    pub fn default(&self) -> Result<String, String> {
        let given = self.field.default.as_deref();
        if given == Some("null") && self.is_nullable() {
            return Ok("None".into());
        }
        // Records alone default to null without saying so.
        if self.field.ty == Type::Records && self.is_nullable() {
            return Ok("None".into());
        }
        let plain = match (&self.field.ty, given) {
            (Type::Bool, None) => "false".into(),
            (Type::Bool, Some(value @ ("true" | "false"))) => value.into(),
            (Type::Float64, None) => "0.0".into(),
            (ty, None) if is_integer(ty) => "0".into(),
            (ty, Some(value)) if is_integer(ty) && value.parse::<i64>().is_ok() => value.into(),
            (Type::Array(_), None) => "Vec::new()".into(),
            (ty, None) => format!("{}::default()", plain_type(ty)),
            (Type::String, Some("\"\"")) => "rt::KafkaString::default()".into(),
            (_, Some(value)) => return Err(format!("{}: bad default {value}", self.path)),
        };
        Ok(if self.is_nullable() { format!("Some({plain})") } else { plain })
    }

    /// Rust condition under which the field differs from its default.
    pub fn differs(&self) -> Result<String, String> {
        let place = format!("self.{}", self.rust_name());
        let default = self.default()?;
        Ok(match (&self.field.ty, default.as_str()) {
            (_, "None") => format!("{place}.is_some()"),
            (Type::Bool, "false") => place,
            (Type::Bool, _) => format!("!{place}"),
            (Type::String | Type::Bytes | Type::Records | Type::Array(_), _) => {
                if self.is_nullable() {
                    format!("{place}.as_ref().is_none_or(|v| !v.is_empty())")
                } else {
                    format!("!{place}.is_empty()")
                }
            }
            (_, default) => format!("{place} != {default}"),
        })
    }

    /// Expression that reads the field in any of `versions`.
    pub fn read(&self) -> Result<String, String> {
        let plain = self.read_as(false)?;
        Ok(match self.null() {
            When::Never => plain,
            When::Always => self.read_as(true)?,
            When::If(null) => {
                format!("if {null} {{ {} }} else {{ Some({plain}) }}", self.read_as(true)?)
            }
        })
    }

    fn read_as(&self, nullable: bool) -> Result<String, String> {
        let flex = self.flex();
        let null = if nullable { "nullable_" } else { "" };
        Ok(match &self.field.ty {
            Type::String | Type::Bytes | Type::Records => {
                format!("r.{null}{}({flex})?", method(&self.field.ty))
            }
            Type::Struct(_) if nullable => "r.nullable_record(version)?".into(),
            Type::Array(element) => {
                let min = min_bytes(self.message, element, self.versions)?;
                let one = match element.as_ref() {
                    Type::Struct(name) => format!("|r| {name}::read(r, version)"),
                    Type::String | Type::Bytes | Type::Records => {
                        format!("|r| r.{}({flex})", method(element))
                    }
                    scalar => format!("rt::Reader::{}", method(scalar)),
                };
                format!("r.{null}array({flex}, {min}, {one})?")
            }
            Type::Struct(name) => format!("{name}::read(r, version)?"),
            scalar => format!("r.{}()?", method(scalar)),
        })
    }

    /// Statements that write the field in any of `versions`.
    pub fn write(&self) -> String {
        let place = format!("self.{}", self.rust_name());
        match self.null() {
            When::Never => self.write_plain(&format!("&{place}"), &place),
            When::Always => self.write_nullable(&place),
            When::If(null) => format!(
                "if {null} {{ {} }} else {{ let v = rt::required(&{place}, {:?})?; {} }}",
                self.write_nullable(&place),
                self.path,
                self.write_plain("v", "v"),
            ),
        }
    }

    fn write_nullable(&self, place: &str) -> String {
        let (flex, path) = (self.flex(), &self.path);
        match &self.field.ty {
            Type::Struct(_) => format!("w.nullable_record({place}.as_ref(), version)?;"),
            Type::Array(element) => format!(
                "w.nullable_array({flex}, {place}.as_deref(), {path:?}, {})?;",
                self.write_element(element)
            ),
            ty => format!("w.nullable_{}({flex}, {place}.as_ref(), {path:?})?;", method(ty)),
        }
    }

    fn write_plain(&self, reference: &str, value: &str) -> String {
        let (flex, path) = (self.flex(), &self.path);
        match &self.field.ty {
            Type::Struct(_) => format!("{value}.write(w, version)?;"),
            Type::Array(element) => {
                format!("w.array({flex}, {reference}, {path:?}, {})?;", self.write_element(element))
            }
            ty @ (Type::String | Type::Bytes | Type::Records) => {
                format!("w.{}({flex}, {reference}, {path:?})?;", method(ty))
            }
            Type::Uuid => format!("w.uuid({value});"),
            Type::Int16 if self.field.name == "ErrorCode" => format!("w.error_code({value});"),
            scalar => format!("w.{}({value});", method(scalar)),
        }
    }

    fn write_element(&self, element: &Type) -> String {
        let (flex, path) = (self.flex(), &self.path);
        match element {
            Type::Struct(_) => "|w, v| v.write(w, version)".into(),
            Type::String | Type::Bytes | Type::Records => {
                format!("|w, v| w.{}({flex}, v, {path:?})", method(element))
            }
            scalar => format!("|w, v| {{ w.{}(*v); Ok(()) }}", method(scalar)),
        }
    }

    fn flex(&self) -> &'static str {
        if self.field.inflexible { "false" } else { flex(self.message) }
    }
}

/// Expression that says whether `version` is flexible: a constant, or the local `flex`.
pub fn flex(message: &Message) -> &'static str {
    match message.flexible {
        None => "false",
        Some(from) if from <= message.valid.min => "true",
        Some(from) if from > message.valid.max => "false",
        Some(_) => "flex",
    }
}

/// Versions as a reader writes them.
pub fn range(versions: Versions) -> String {
    if versions.min == versions.max {
        versions.min.to_string()
    } else {
        format!("{} to {}", versions.min, versions.max)
    }
}

/// `LeaderEpoch` as `leader_epoch`; an acronym counts as one word.
pub fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (i, c) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|b| letters[b]);
        let after_is_lower = letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let starts_word = before.is_some_and(|b| !b.is_ascii_uppercase() || after_is_lower);
        if c.is_ascii_uppercase() && starts_word {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn plain_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::Int8 => "i8".into(),
        Type::Int16 => "i16".into(),
        Type::Uint16 => "u16".into(),
        Type::Int32 => "i32".into(),
        Type::Uint32 => "u32".into(),
        Type::Int64 => "i64".into(),
        Type::Float64 => "f64".into(),
        Type::String => "rt::KafkaString".into(),
        Type::Bytes => "rt::Bytes".into(),
        Type::Records => "rt::Records".into(),
        Type::Uuid => "rt::Uuid".into(),
        Type::Struct(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", plain_type(element)),
    }
}

/// Name of the method of the reader and of the writer.
fn method(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::Int8 => "i8",
        Type::Int16 => "i16",
        Type::Uint16 => "u16",
        Type::Int32 => "i32",
        Type::Uint32 => "u32",
        Type::Int64 => "i64",
        Type::Float64 => "f64",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Records => "records",
        Type::Uuid => "uuid",
        Type::Struct(_) => "record",
        Type::Array(_) => "array",
    }
}

fn is_integer(ty: &Type) -> bool {
    matches!(ty, Type::Int8 | Type::Int16 | Type::Uint16 | Type::Int32 | Type::Uint32 | Type::Int64)
}
