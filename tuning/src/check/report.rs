//! Findings for people and for programs.

use std::fmt::Write;

use super::{Finding, Verdict};

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

/// A line for each finding, and below it what to do.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        // Writing to a String does not fail.
        let _ =
            writeln!(out, "{:<5} {:<14} {}", word(finding.verdict), finding.topic, finding.fact);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(out, "{:20} → {remedy}", "");
        }
    }
    out
}

/// An array of objects with `topic`, `verdict`, `fact` and `remedy`, which may be null.
#[must_use]
pub fn json(findings: &[Finding]) -> String {
    let object = |finding: &Finding| {
        let remedy = finding.remedy.as_deref().map_or_else(|| "null".to_owned(), quote);
        format!(
            "  {{\"topic\": {}, \"verdict\": {}, \"fact\": {}, \"remedy\": {remedy}}}",
            quote(finding.topic),
            quote(word(finding.verdict)),
            quote(&finding.fact)
        )
    };
    let objects: Vec<String> = findings.iter().map(object).collect();
    format!("[\n{}\n]\n", objects.join(",\n"))
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_what_to_do_below() {
        let findings = [Finding::ok("one", "fine"), Finding::fail("two", "bad", "repair it")];
        assert_eq!(
            text(&findings),
            format!("ok    one            fine\nfail  two            bad\n{:20} → repair it\n", "")
        );
    }

    #[test]
    fn findings_are_json_with_quotes_and_controls_escaped() {
        let findings = [Finding::ok("one", "a \"b\"\\\n"), Finding::warn("two", "µ", "c")];
        assert_eq!(
            json(&findings),
            "[\n  {\"topic\": \"one\", \"verdict\": \"ok\", \"fact\": \"a \\\"b\\\"\\\\\\u000a\", \
             \"remedy\": null},\n  {\"topic\": \"two\", \"verdict\": \"warn\", \"fact\": \"µ\", \
             \"remedy\": \"c\"}\n]\n"
        );
    }
}
