//! Lists of CPUs as the kernel writes them: `0-3,6`.

/// Highest CPU number that a list may name: what the kernel's affinity mask holds.
pub const CPU_MAX: usize = 1023;

/// The CPUs of a list, ascending, each once; `None` when it is no such list.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn number(text: &str) -> Option<usize> {
    // `parse` alone would take a sign.
    let text = text.trim();
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let cpu = text.parse().ok().filter(|_| is_digits)?;
    (cpu <= CPU_MAX).then_some(cpu)
}

/// Writes ascending CPUs as a list.
#[must_use]
pub fn format(cpus: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(cpu, expected)| **cpu == *expected).count();
        let last = first + run - 1;
        parts.push(if last > first { format!("{first}-{last}") } else { first.to_string() });
        rest = &rest[run..];
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_sorted_and_written_shortest() {
        for (text, cpus, shown) in [
            ("0", vec![0], "0"),
            ("0-3,6", vec![0, 1, 2, 3, 6], "0-3,6"),
            (" 6 , 0 - 1 ", vec![0, 1, 6], "0-1,6"),
            ("2,1,2-3", vec![1, 2, 3], "1-3"),
        ] {
            let found = parse(text).unwrap();
            assert_eq!((&found, format(&found).as_str()), (&cpus, shown), "{text}");
        }
        assert_eq!(format(&[]), "");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in
            ["", ",", "a", "3-1", "-1", "+1", "0-", "1,,2", "1024", "0-99999999999999999999"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
