//! One CSV row becomes one self-contained JSON object, so that any row can be judged and replayed without its header.

use std::fmt::Write as _;

/// What the columns of a file mean.
#[derive(Debug)]
pub(crate) struct Header {
    columns: Vec<Column>,
    delimiter: u8,
}

#[derive(Debug)]
struct Column {
    /// `"name":`, escaped, ready to write.
    key: Vec<u8>,
    /// Its cells are text even where they look like numbers: names, units and labels of the long layout.
    text: bool,
}

/// How the columns are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Auto,
    Wide,
    Long,
}

/// More columns than any data logger has; a wider file is taken for something that is no CSV.
const MAX_COLUMNS: usize = 4_096;

/// Separators that are guessed, the more usual ones first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

impl Header {
    /// Reads the first line of a file.
    pub(crate) fn parse(line: &str, layout: Layout, delimiter: Option<u8>) -> Result<Self, String> {
        let delimiter = delimiter.unwrap_or_else(|| guess_delimiter(line.as_bytes()));
        let mut names: Vec<String> = Vec::new();
        let mut cells = Cells::new(line.as_bytes(), delimiter);
        while let Some(cell) = cells.next_cell()? {
            let name = String::from_utf8_lossy(cell).into_owned();
            names.push(if name.is_empty() { format!("column_{}", names.len() + 1) } else { name });
            if names.len() > MAX_COLUMNS {
                return Err(format!("csv header: more than {MAX_COLUMNS} columns"));
            }
        }
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        let twice = sorted.iter().zip(sorted.iter().skip(1)).find(|(a, b)| a == b);
        if let Some((twice, _)) = twice {
            return Err(format!("csv header: column {twice:?} is there twice"));
        }
        let has = |name: &str| names.iter().any(|n| n == name);
        let long = match layout {
            Layout::Wide => false,
            Layout::Auto => has("metric") && has("value"),
            Layout::Long if has("metric") && has("value") => true,
            Layout::Long => return Err("csv header: the long layout needs columns `metric` and `value`".to_owned()),
        };
        let columns = names.iter().map(|name| {
            let mut key = Vec::with_capacity(name.len() + 3);
            write_string(&mut key, name.as_bytes());
            key.push(b':');
            Column { key, text: long && !matches!(name.as_str(), "value" | "timestamp") }
        });
        Ok(Self { columns: columns.collect(), delimiter })
    }

    /// Appends the row as a JSON object. Numbers keep their text; an empty cell is null; everything else, such as
    /// `nan` or `n/a`, is a string for the normalizer to judge.
    pub(crate) fn write_row(&self, line: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let mut cells = Cells::new(line.as_bytes(), self.delimiter);
        let mut count = 0;
        while let Some(cell) = cells.next_cell()? {
            if let Some(column) = self.columns.get(count) {
                out.push(if count == 0 { b'{' } else { b',' });
                out.extend_from_slice(&column.key);
                match cell {
                    [] => out.extend_from_slice(b"null"),
                    _ if !column.text && is_json_number(cell) => out.extend_from_slice(cell),
                    _ => write_string(out, cell),
                }
            }
            count += 1;
        }
        if count != self.columns.len() {
            let n = self.columns.len();
            return Err(format!("csv row: {count} cells, but the header names {n} columns"));
        }
        out.push(b'}');
        Ok(())
    }
}

fn guess_delimiter(header: &[u8]) -> u8 {
    let count = |d: u8| {
        let mut quoted = false;
        header
            .iter()
            .filter(|&&b| {
                quoted ^= b == b'"';
                b == d && !quoted
            })
            .count()
    };
    // `max_by_key` keeps the last of equals, so the usual ones come last.
    DELIMITERS.into_iter().rev().max_by_key(|&d| count(d)).unwrap_or(b',')
}

/// The cells of one line, by RFC 4180.
struct Cells<'a> {
    line: &'a [u8],
    /// Where the next cell begins; beyond the end when there is none.
    at: usize,
    delimiter: u8,
    /// A quoted cell with doubled quotes is put together here.
    unquoted: Vec<u8>,
}

impl<'a> Cells<'a> {
    fn new(line: &'a [u8], delimiter: u8) -> Self {
        Self { line, at: 0, delimiter, unquoted: Vec::new() }
    }

    fn next_cell(&mut self) -> Result<Option<&[u8]>, String> {
        if self.at > self.line.len() {
            return Ok(None);
        }
        let rest = &self.line[self.at..];
        if rest.first() == Some(&b'"') {
            return self.quoted().map(Some);
        }
        let len = rest.iter().position(|&b| b == self.delimiter).unwrap_or(rest.len());
        self.at += len + 1;
        Ok(Some(trim(&rest[..len])))
    }

    fn quoted(&mut self) -> Result<&[u8], String> {
        let start = self.at + 1;
        let mut i = start;
        let mut doubled = false;
        loop {
            match self.line.get(i) {
                None => return Err(format!("csv: the quote at byte {} is not closed", self.at)),
                Some(b'"') if self.line.get(i + 1) == Some(&b'"') => {
                    doubled = true;
                    i += 2;
                }
                Some(b'"') => break,
                Some(_) => i += 1,
            }
        }
        match self.line.get(i + 1) {
            None => {}
            Some(&b) if b == self.delimiter => {}
            Some(_) => return Err(format!("csv: text behind the closing quote at byte {i}")),
        }
        self.at = i + 2;
        let inner = &self.line[start..i];
        if !doubled {
            return Ok(inner);
        }
        self.unquoted.clear();
        let mut skip = false;
        for &b in inner {
            if b == b'"' && !skip {
                skip = true;
                continue;
            }
            skip = false;
            self.unquoted.push(b);
        }
        Ok(&self.unquoted)
    }
}

fn trim(cell: &[u8]) -> &[u8] {
    cell.trim_ascii()
}

/// Whether the text is a number by the grammar of RFC 8259, so that it can stand in JSON as it is.
fn is_json_number(text: &[u8]) -> bool {
    let digits = |s: &[u8]| s.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let int = digits(rest);
    if int == 0 || (int > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[int..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n = digits(fraction);
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            _ => exponent,
        };
        let n = digits(exponent);
        if n == 0 {
            return false;
        }
        rest = &exponent[n..];
    }
    rest.is_empty()
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &b in text {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            0..0x20 => {
                let mut escape = String::with_capacity(6);
                // Writing into a string cannot fail.
                let _ = write!(escape, "\\u{b:04x}");
                out.extend_from_slice(escape.as_bytes());
            }
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(header: &str, line: &str) -> Result<String, String> {
        let mut out = Vec::new();
        Header::parse(header, Layout::Auto, None)?.write_row(line, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_row_becomes_an_object_with_the_text_of_its_numbers() {
        assert_eq!(
            row("timestamp,a,b", "2026-01-01 00:00:00,1.230,-0.5e3").unwrap(),
            r#"{"timestamp":"2026-01-01 00:00:00","a":1.230,"b":-0.5e3}"#
        );
        assert_eq!(row("t,a,b,c,d", "1,nan,,+1,007").unwrap(), r#"{"t":1,"a":"nan","b":null,"c":"+1","d":"007"}"#);
    }

    #[test]
    fn quotes_follow_rfc_4180() {
        assert_eq!(row(r#""a,x",b"#, r#""say ""hi""","1.5""#).unwrap(), r#"{"a,x":"say \"hi\"","b":1.5}"#);
        assert_eq!(row("a,b", "\"x,1").unwrap_err(), "csv: the quote at byte 0 is not closed");
        assert_eq!(row("a,b", "\"x\"y,1").unwrap_err(), "csv: text behind the closing quote at byte 2");
        assert_eq!(row("a,b", "\"\",\"\"\"\"").unwrap(), r#"{"a":null,"b":"\""}"#);
    }

    #[test]
    fn a_row_of_another_width_names_both_counts() {
        assert_eq!(row("a,b,c", "1,2").unwrap_err(), "csv row: 2 cells, but the header names 3 columns");
        assert_eq!(row("a,b", "1,2,").unwrap_err(), "csv row: 3 cells, but the header names 2 columns");
    }

    #[test]
    fn long_rows_keep_names_and_labels_as_text() {
        assert_eq!(
            row("timestamp,metric,value,unit,host", "1,2,3,4,0x5").unwrap(),
            r#"{"timestamp":1,"metric":"2","value":3,"unit":"4","host":"0x5"}"#
        );
        assert!(Header::parse("a,b", Layout::Long, None).unwrap_err().contains("`metric` and `value`"));
    }

    #[test]
    fn the_delimiter_is_guessed_outside_of_quotes() {
        assert_eq!(row("a;b", "1;2").unwrap(), r#"{"a":1,"b":2}"#);
        assert_eq!(row("\"x;y;z\",b", "1,2").unwrap(), r#"{"x;y;z":1,"b":2}"#);
        assert_eq!(row("a\tb", "1\t2").unwrap(), r#"{"a":1,"b":2}"#);
        assert_eq!(row("only", "1").unwrap(), r#"{"only":1}"#);
    }

    #[test]
    fn headers_are_checked() {
        assert_eq!(row("a,b,a", "1,2,3").unwrap_err(), "csv header: column \"a\" is there twice");
        assert_eq!(row(",a", "0,1").unwrap(), r#"{"column_1":0,"a":1}"#);
    }

    #[test]
    fn only_json_numbers_are_numbers() {
        for yes in ["0", "-0", "10", "1.0", "1e5", "1E+5", "1.5e-05", "-12.25"] {
            assert!(is_json_number(yes.as_bytes()), "{yes}");
        }
        for no in ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x10", "1 ", "inf", "NaN", "1,5", "--1"] {
            assert!(!is_json_number(no.as_bytes()), "{no}");
        }
    }
}
