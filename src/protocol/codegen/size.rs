//! Minimal wire sizes, the divisor in the check of array counts.

use super::parse::{Field, Message, Type, Versions};

/// Least bytes that one value of `ty` takes in any of `versions`; never 0 for a type that exists.
pub fn min_bytes(message: &Message, ty: &Type, versions: Versions) -> Result<usize, String> {
    let mut least = usize::MAX;
    for version in versions.min..=versions.max.min(message.valid.max) {
        least = least.min(value(message, ty, false, message.is_flexible(version), version)?);
    }
    match least {
        0 | usize::MAX => Err(format!("{}: {ty:?} takes no bytes", message.name)),
        _ => Ok(least),
    }
}

fn value(
    message: &Message,
    ty: &Type,
    nullable: bool,
    flexible: bool,
    version: i16,
) -> Result<usize, String> {
    Ok(match ty {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        Type::String | Type::Bytes | Type::Records | Type::Array(_) if flexible => 1,
        Type::String => 2,
        Type::Bytes | Type::Records | Type::Array(_) => 4,
        Type::Struct(_) if nullable => 1,
        Type::Struct(name) => {
            let present = |f: &&Field| f.versions.contains(version) && f.tag.is_none();
            let mut total = usize::from(message.is_flexible(version));
            for field in message.find(name)?.fields.iter().filter(present) {
                let nullable = field.nullable.is_some_and(|n| n.contains(version));
                let flexible = message.is_flexible(version) && !field.inflexible;
                total += value(message, &field.ty, nullable, flexible, version)?;
            }
            total
        }
    })
}
