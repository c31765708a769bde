//! Writes the Rust of all messages.
//!
//! Each message becomes a module `produce_request` with `ProduceRequest` and its nested structs, each with
//! `Default` and the crate's `Wire` trait; the root also has `Message`. A last macro call, `define_apis!`,
//! lists the APIs; what becomes of that list is written by hand in `src/api.rs`.

use std::fmt::Write;

use super::field::{Column, When, flex, range, snake};
use super::parse::{Message, Role, Struct, Table, Versions};

pub fn messages(tables: Vec<Table>) -> Result<String, String> {
    let mut out = String::new();
    let mut apis = Vec::new();
    for table in &tables {
        for message in &table.messages {
            let key = table.api.as_ref().map(|(key, _)| *key);
            module(&mut out, message, key).map_err(|e| e.to_string())?;
        }
        if let Some((key, name)) = &table.api {
            let roles: Vec<Role> = table.messages.iter().map(|m| m.role).collect();
            if roles != [Role::Request, Role::Response] {
                return Err(format!("api {name} is not one request and one response"));
            }
            if table.messages[0].valid != table.messages[1].valid {
                return Err(format!("api {name}: request and response differ in versions"));
            }
            apis.push((*key, name.as_str()));
        }
    }
    apis.sort_unstable();
    if let Some(twice) = apis.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("API key {} is used twice", twice[0].0));
    }
    out += "define_apis! {\n";
    for (key, name) in apis {
        out += &format!("    {key} {name} {name}Request {name}Response,\n");
    }
    out += "}\n";
    Ok(out)
}

fn module(out: &mut String, message: &Message, key: Option<i16>) -> Result<(), String> {
    let (name, module) = (&message.name, snake(&message.name));
    let text = |e: std::fmt::Error| e.to_string();
    writeln!(out, "pub use {module}::{name};").map_err(text)?;
    writeln!(out, "/// `{name}`, versions {}, and its nested structs.", range(message.valid))
        .map_err(text)?;
    writeln!(out, "pub mod {module} {{").map_err(text)?;
    writeln!(out, "use crate::rt;\nuse crate::rt::Wire as _;\n").map_err(text)?;
    for part in &message.structs {
        structure(out, message, part).map_err(|e| format!("{name}: {e}"))?;
    }
    let flexible = match message.flexible {
        Some(from) if from <= message.valid.max => format!("Some({})", from.max(message.valid.min)),
        _ => "None".into(),
    };
    writeln!(
        out,
        "impl rt::Message for {name} {{\n\
         const NAME: &'static str = {name:?};\n\
         const API_KEY: Option<i16> = {key:?};\n\
         const VALID_VERSIONS: rt::VersionRange = rt::VersionRange {{ min: {}, max: {} }};\n\
         const FLEXIBLE_FROM: Option<i16> = {flexible};\n\
         }}\n}}\n",
        message.valid.min, message.valid.max,
    )
    .map_err(text)
}

fn structure(out: &mut String, message: &Message, part: &Struct) -> Result<(), String> {
    let owner = if part.name == message.name {
        part.name.clone()
    } else {
        format!("{}.{}", message.name, part.name)
    };
    let columns: Vec<Column> =
        part.fields.iter().filter_map(|f| Column::new(message, &owner, f)).collect();
    let flex = flex(message);
    let text = |e: std::fmt::Error| e.to_string();

    let mut fields = String::new();
    let mut defaults = String::new();
    let mut all_plain = true;
    for column in &columns {
        let (name, ty) = (column.rust_name(), column.rust_type());
        writeln!(fields, "/// {}\npub {name}: {ty},", column.doc()).map_err(text)?;
        let default = column.default()?;
        all_plain &= matches!(default.as_str(), "0" | "0.0" | "false" | "None" | "Vec::new()")
            || (default.ends_with("::default()") && !default.starts_with("Some("));
        writeln!(defaults, "{name}: {default},").map_err(text)?;
    }
    if flex != "false" {
        fields += "/// Tagged fields that the schema does not know.\n\
                   pub unknown_tagged_fields: rt::TaggedFields,\n";
        defaults += "unknown_tagged_fields: Vec::new(),\n";
    }
    let name = &part.name;
    let (derive, default) = if all_plain {
        (", Default", String::new())
    } else {
        let body = format!("fn default() -> Self {{\nSelf {{\n{defaults}}}\n}}\n");
        ("", format!("impl Default for {name} {{\n{body}}}\n"))
    };
    let doc = if part.name == message.name {
        format!("Versions {}, flexible: {}.", range(message.valid), flexible_doc(message))
    } else {
        format!("Part of `{}`.", message.name)
    };
    let read = read(message, &columns)?;
    let write = write(message, &owner, &columns)?;
    writeln!(
        out,
        "/// {doc}\n\
         #[derive(Clone, Debug{derive}, PartialEq)]\n\
         pub struct {name} {{\n{fields}}}\n\
         {default}\
         impl rt::Wire for {name} {{\n{read}{write}}}\n",
    )
    .map_err(text)
}

fn read(message: &Message, columns: &[Column]) -> Result<String, String> {
    let mut body = String::new();
    let mut tagged = String::new();
    for column in columns {
        let name = column.rust_name();
        let value = if let Some(tag) = column.field.tag {
            let guard = match When::within(column.versions, flexible_versions(message)) {
                When::If(condition) => format!(" if {condition}"),
                _ => String::new(),
            };
            tagged += &format!("{tag}{guard} => m.{name} = {},\n", column.read()?);
            column.default()?
        } else if let When::If(present) = When::within(column.versions, message.valid) {
            format!("if {present} {{ {} }} else {{ {} }}", column.read()?, column.default()?)
        } else {
            column.read()?
        };
        body += &format!("{name}: {value},\n");
    }
    let flex = flex(message);
    let unknown = match (flex, tagged.is_empty()) {
        ("false", _) => "",
        (_, false) => "unknown_tagged_fields: Vec::new(),\n",
        ("true", _) => "unknown_tagged_fields: r.unknown_tagged_fields()?,\n",
        _ => {
            "unknown_tagged_fields: \
             if flex { r.unknown_tagged_fields()? } else { Vec::new() },\n"
        }
    };
    let body = if tagged.is_empty() {
        format!("Ok(Self {{\n{body}{unknown}}})\n")
    } else {
        format!(
            "let mut m = Self {{\n{body}{unknown}}};\n\
             if {flex} {{\n\
             m.unknown_tagged_fields = r.tagged_fields(&mut |r, tag| {{\n\
             match tag {{\n{tagged}_ => return Ok(false),\n}}\n\
             Ok(true)\n}})?;\n}}\nOk(m)\n"
        )
    };
    Ok(format!(
        "fn read(r: &mut rt::Reader, version: i16) -> Result<Self, rt::DecodeError> {{\n\
         {}{body}}}\n",
        let_flex(message),
    ))
}

fn write(message: &Message, owner: &str, columns: &[Column]) -> Result<String, String> {
    let mut body = String::new();
    for column in columns {
        let differs = column.differs()?;
        let refuse = format!("{{ return Err(rt::absent({:?}, version)); }}\n", column.path);
        let present = When::within(column.versions, message.valid);
        body += &match (column.field.tag, present, column.field.ignorable) {
            (None, When::If(present), true) => format!("if {present} {{ {} }}\n", column.write()),
            (None, When::If(present), false) => {
                format!("if {present} {{ {} }} else if {differs} {refuse}", column.write())
            }
            (None, _, _) => format!("{}\n", column.write()),
            // Tagged fields stay once they exist, so only older versions lack one.
            (Some(_), When::If(_), false) => {
                format!("if version < {} && {differs} {refuse}", column.versions.min)
            }
            (Some(_), _, _) => String::new(),
        };
    }
    let flex = flex(message);
    if flex != "false" {
        let tags = write_tags(message, owner, columns)?;
        body += &format!(
            "if {flex} {{\n{tags}}} else if !self.unknown_tagged_fields.is_empty() {{\n\
             return Err(rt::absent(\"{owner} (tagged fields)\", version));\n}}\n"
        );
    }
    Ok(format!(
        "fn write(&self, w: &mut rt::EncodeBuf, version: i16) -> Result<(), rt::EncodeError> {{\n\
         {}{body}Ok(())\n}}\n",
        let_flex(message),
    ))
}

/// Known and unknown tagged fields in one ascending sequence, known ones only if not default.
fn write_tags(message: &Message, owner: &str, columns: &[Column]) -> Result<String, String> {
    let mut tagged: Vec<(u32, &Column)> =
        columns.iter().filter_map(|c| Some((c.field.tag?, c))).collect();
    tagged.sort_by_key(|(tag, _)| *tag);
    if tagged.is_empty() {
        return Ok(format!(
            "w.unknown_tagged_fields(&self.unknown_tagged_fields, \"{owner}\")?;\n"
        ));
    }
    let flexible = flexible_versions(message);
    let mut flags = String::new();
    let mut fields = String::new();
    let mut known = Vec::new();
    for (tag, column) in tagged {
        let differs = column.differs()?;
        let present = match When::within(column.versions, flexible) {
            When::If(condition) => format!("{condition} && {differs}"),
            _ => differs,
        };
        flags += &format!("let has_{tag} = {present};\n");
        known.push(format!("usize::from(has_{tag})"));
        fields += &format!(
            "if has_{tag} {{\nlet mark = tags.begin(w, {tag})?;\n{}\nw.end_tag(mark)?;\n}}\n",
            column.write()
        );
    }
    Ok(format!(
        "{flags}let mut tags = \
         w.tagged_fields({}, &self.unknown_tagged_fields, \"{owner}\")?;\n\
         {fields}tags.finish(w)?;\n",
        known.join(" + ")
    ))
}

fn flexible_doc(message: &Message) -> String {
    match (flex(message), message.flexible) {
        ("flex", Some(from)) => format!("from {from}"),
        ("true", _) => "all".into(),
        _ => "none".into(),
    }
}

/// The versions in which tagged fields exist; a field that all of these have needs no condition.
fn flexible_versions(message: &Message) -> Versions {
    let from = message.flexible.unwrap_or(message.valid.min).max(message.valid.min);
    Versions { min: from, max: message.valid.max }
}

/// Declares the local that the expressions of a partly flexible message use.
fn let_flex(message: &Message) -> String {
    match (flex(message), message.flexible) {
        ("flex", Some(from)) => format!("let flex = version >= {from};\n"),
        _ => String::new(),
    }
}
