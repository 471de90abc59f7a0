//! What `run` prints.

use std::fmt::Write;

use ptx_sim::Report;
use ptx_sim::fault::Finding;

use super::argument::Buffer;
use super::value::Type;

/// Elements of an output that are printed for people.
const SHOWN: usize = 8;

/// An `out:` argument after the launch.
pub struct Output<'a> {
    pub buffer: &'a Buffer,
    pub bytes: Vec<u8>,
}

impl Output<'_> {
    fn values(&self) -> impl Iterator<Item = String> {
        self.bytes.chunks_exact(self.buffer.ty.size()).map(|bytes| self.buffer.ty.show(bytes))
    }
}

/// How a launch went.
pub struct Outcome<'a> {
    pub kernel: &'a str,
    pub outputs: Vec<Output<'a>>,
    /// `None` if a fault ended it.
    pub report: Option<Report>,
    pub fault: Option<Finding>,
}

impl Outcome<'_> {
    /// Whether the checker found nothing.
    pub fn is_clean(&self) -> bool {
        self.fault.is_none() && self.report.as_ref().is_some_and(|report| report.findings.is_empty())
    }

    fn findings(&self) -> &[Finding] {
        self.report.as_ref().map_or(&[], |report| &report.findings)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = self.report.as_ref().map_or(String::new(), |report| report.printed.clone());
        for output in &self.outputs {
            let shown = output.values().take(SHOWN).collect::<Vec<_>>().join(", ");
            let more = match output.buffer.count.saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            out += &format!("{} = {shown}{more}\n", output.buffer.name);
        }
        if let Some(report) = &self.report {
            out += &format!("\n{}", report.meter);
        }
        for finding in self.findings().iter().chain(&self.fault) {
            out += &format!("\n{finding}\n");
        }
        out + match (&self.fault, self.findings().len()) {
            (Some(_), _) => "\nthe fault ended the launch\n",
            (None, 0) => "\nnothing found\n",
            (None, _) => "",
        }
    }

    /// One JSON object. Numbers that JSON does not have are strings.
    pub fn json(&self) -> String {
        let outputs = self.outputs.iter().map(|output| {
            let float = !matches!(output.buffer.ty, Type::Signed(_) | Type::Unsigned(_));
            let number = |value: String| if float && value.ends_with(['N', 'f']) { quote(&value) } else { value };
            let values = output.values().map(number).collect::<Vec<_>>().join(",");
            format!("{{\"argument\":{},\"values\":[{values}]}}", quote(&output.buffer.name))
        });
        format!(
            "{{\"kernel\":{},\"outputs\":[{}],\"printed\":{},\"meter\":{},\"findings\":[{}],\"fault\":{}}}\n",
            quote(self.kernel),
            outputs.collect::<Vec<_>>().join(","),
            quote(self.report.as_ref().map_or("", |report| &report.printed)),
            self.report.as_ref().map_or("null".into(), |report| report.meter.to_json()),
            self.findings().iter().map(finding).collect::<Vec<_>>().join(","),
            self.fault.as_ref().map_or("null".into(), finding)
        )
    }
}

fn finding(finding: &Finding) -> String {
    let source = match &finding.source {
        Some((file, line)) => format!("{{\"file\":{},\"line\":{line}}}", quote(file)),
        None => "null".into(),
    };
    format!(
        "{{\"message\":{},\"block\":{:?},\"thread\":{:?},\"ptx_line\":{},\"instruction\":{},\"source\":{source},\
         \"count\":{}}}",
        quote(&finding.fault.to_string()),
        finding.block,
        finding.thread,
        finding.ptx_line,
        quote(&finding.instruction),
        finding.count
    )
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_json() {
        assert_eq!(quote("a\"b\\c\n\u{1}ö"), "\"a\\\"b\\\\c\\u000a\\u0001ö\"");
    }
}
