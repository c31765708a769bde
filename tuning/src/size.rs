//! Sizes in bytes as people write them: `64 MiB`.

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Bytes of a text: a whole number, with or without KiB, MiB or GiB behind it.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let number = number.trim_end();
    let is_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| is_digits)?.checked_mul(factor)
}

/// Writes a size that [`parse`] reads back to the same number.
#[must_use]
pub fn format(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{} {name}", bytes / factor))
}

/// Writes a size for reading: in the largest unit that it fills, with one decimal.
#[must_use]
pub fn rounded(bytes: u64) -> String {
    match UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((_, factor)) if bytes.is_multiple_of(*factor) => format(bytes),
        Some((name, factor)) => format!("{:.1} {name}", bytes as f64 / *factor as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("4096", 4096, "4 KiB"),
            ("64 MiB", 64 << 20, "64 MiB"),
            ("64MiB", 64 << 20, "64 MiB"),
            ("1 GiB", 1 << 30, "1 GiB"),
            ("1025", 1025, "1025"),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert_eq!(format(bytes), shown);
            assert_eq!(parse(&format(bytes)), Some(bytes));
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "1.5 MiB", "-1", "+1", "64 MB", "64 mib", "99999999999 GiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn odd_sizes_are_rounded_for_reading() {
        assert_eq!(rounded(3 << 29), "1.5 GiB");
        assert_eq!(rounded(2 << 20), "2 MiB");
        assert_eq!(rounded(12), "12 bytes");
    }
}
