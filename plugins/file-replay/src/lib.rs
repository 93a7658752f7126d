//! file-replay turns the lines of a recorded file into frames, at full or at chosen speed.
//!
//! A line of JSON becomes a frame as it is. A row of CSV becomes one JSON object that carries its column names. Blank
//! lines and repeated header lines yield nothing; a line that makes no sense is a reject with a reason.

mod csv;

use csv::{Header, Layout};
use hb_sdk::{Fault, Frame, Inbox, Polled, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A cursor may have 64 KiB; the headers in it take at most this much, the rest is for file names and syntax.
const MAX_HEADER_BYTES: usize = 32 * 1_024;

/// Files in one source, each with its header in the cursor.
const MAX_FILES: usize = 128;

/// With a rate above it several lines go out per poll, so that a poll never comes more often than this per second.
const MAX_POLLS_PER_SEC: f64 = 20.0;

const BOM: &[u8] = b"\xEF\xBB\xBF";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    layout: Option<String>,
    #[serde(default)]
    delimiter: Option<String>,
    #[serde(default)]
    rate_lines_per_sec: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jsonl,
    Csv,
}

/// Replays the lines of files.
pub struct FileReplay {
    /// None: decided by each file's first line.
    format: Option<Format>,
    layout: Layout,
    delimiter: Option<u8>,
    rate: Option<f64>,
    files: BTreeMap<String, File>,
}

/// What is known of a file since its first line.
struct File {
    memory: Memory,
    /// For CSV. An error is the answer to all of its rows.
    header: Result<Header, String>,
}

/// The part of it that goes into the cursor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// The header line of a CSV file; none for JSON Lines.
    header: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    version: u32,
    files: BTreeMap<String, Memory>,
}

/// The version of the cursor's layout.
const CURSOR_VERSION: u32 = 1;

impl Source for FileReplay {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let bad = |text: String| Fault::BadSettings(text);
        let settings: Settings = serde_json::from_str(settings).map_err(|e| bad(e.to_string()))?;
        let format = match settings.format.as_deref() {
            None | Some("auto") => None,
            Some("jsonl") => Some(Format::Jsonl),
            Some("csv") => Some(Format::Csv),
            Some(other) => return Err(bad(format!("format: {other:?} is none of auto, jsonl, csv"))),
        };
        let layout = match settings.layout.as_deref() {
            None | Some("auto") => Layout::Auto,
            Some("wide") => Layout::Wide,
            Some("long") => Layout::Long,
            Some(other) => return Err(bad(format!("layout: {other:?} is none of auto, wide, long"))),
        };
        let delimiter = match settings.delimiter.as_deref() {
            None | Some("auto") => None,
            Some(d @ ("," | ";" | "\t" | "|")) => Some(d.as_bytes()[0]),
            Some(other) => return Err(bad(format!("delimiter: {other:?} is none of auto, comma, `;`, tab, `|`"))),
        };
        let rate = settings.rate_lines_per_sec;
        if rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(bad("rate_lines_per_sec: must be above 0".to_owned()));
        }
        Ok(Self { format, layout, delimiter, rate, files: BTreeMap::new() })
    }

    fn open(&mut self, resume: Option<&[u8]>) -> Result<(), Fault> {
        self.files.clear();
        let Some(bytes) = resume else { return Ok(()) };
        let cursor: Cursor =
            serde_json::from_slice(bytes).map_err(|e| Fault::Fatal(format!("the stored cursor is not mine: {e}")))?;
        if cursor.version != CURSOR_VERSION {
            return Err(Fault::Fatal(format!(
                "the stored cursor has version {}, not {CURSOR_VERSION}",
                cursor.version
            )));
        }
        for (origin, memory) in cursor.files {
            let file = self.file(memory);
            self.files.insert(origin, file);
        }
        Ok(())
    }

    fn poll(&mut self, inbox: Inbox, out: &mut Polled) -> Result<(), Fault> {
        if self.rate.is_none() && self.passes_as_it_is(&inbox) {
            out.pass_through(inbox);
            return Ok(());
        }
        let (mut lines_left, next_poll_ms) = pace(self.rate);
        let known = self.files.len();
        for frame in inbox.batch() {
            let line = frame.bytes.strip_suffix(b"\r").unwrap_or(frame.bytes);
            if line.trim_ascii().is_empty() {
                out.take(&frame);
                continue;
            }
            if lines_left == 0 || !self.line(&frame, line, out) {
                break;
            }
            lines_left -= 1;
        }
        if self.files.len() != known {
            out.cursor(self.cursor());
        }
        if !inbox.batch().is_empty() {
            out.next_poll_ms(next_poll_ms);
        }
        Ok(())
    }
}

/// How many lines may go out in one poll, and how long to wait then.
fn pace(rate: Option<f64>) -> (usize, u32) {
    match rate {
        None => (usize::MAX, 0),
        Some(rate) => {
            let lines = (rate / MAX_POLLS_PER_SEC).ceil().max(1.0);
            (lines as usize, (lines * 1_000.0 / rate).round() as u32)
        }
    }
}

impl FileReplay {
    /// Whether all that waits are lines of JSON that need no change: then they go out without a copy.
    fn passes_as_it_is(&self, inbox: &Inbox) -> bool {
        let batch = inbox.batch();
        let jsonl = |origin: &str| self.files.get(origin).is_some_and(|file| file.memory.header.is_none());
        let mut last_origin = None;
        let plain = batch.iter().all(|frame| {
            // A line that begins or ends with white space may be blank or end in a carriage return; one that begins
            // within a character is not UTF-8, though it might be together with the line before it.
            let fits = match frame.bytes {
                [first, .., last] => *first > b' ' && *last > b' ' && first & 0xC0 != 0x80,
                [only] => *only > b' ' && *only < 0x80,
                [] => false,
            };
            let same_origin = last_origin == Some(frame.origin.as_ptr());
            last_origin = Some(frame.origin.as_ptr());
            fits && (same_origin || jsonl(frame.origin))
        });
        plain
            && batch.len() <= inbox.max_frames()
            && inbox.data().len() <= inbox.max_bytes()
            && std::str::from_utf8(inbox.data()).is_ok()
    }

    /// Takes one line that is not blank; false when it does not fit any more.
    fn line(&mut self, frame: &Frame<'_>, line: &[u8], out: &mut Polled) -> bool {
        let is_known = self.files.contains_key(frame.origin);
        let line = if is_known { line } else { line.strip_prefix(BOM).unwrap_or(line) };
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(e) => {
                out.reject(frame, format!("not UTF-8 at byte {}", e.valid_up_to()));
                return true;
            }
        };
        if !is_known {
            if self.files.len() >= MAX_FILES {
                out.reject(frame, format!("more than {MAX_FILES} files in one source"));
                return true;
            }
            let csv = match self.format {
                Some(format) => format == Format::Csv,
                None => !matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')),
            };
            if csv && self.header_bytes() + text.len() > MAX_HEADER_BYTES {
                out.reject(frame, format!("csv header: all headers together exceed {MAX_HEADER_BYTES} bytes"));
                return true;
            }
            let file = self.file(Memory { header: csv.then(|| text.to_owned()) });
            let bad_header = file.header.as_ref().err().filter(|_| csv).cloned();
            self.files.insert(frame.origin.to_owned(), file);
            if csv {
                match bad_header {
                    Some(reason) => out.reject(frame, reason),
                    None => out.take(frame),
                }
                return true;
            }
        }
        let Some(file) = self.files.get(frame.origin) else { return true };
        let fits = out.has_room(line.len() * if file.memory.header.is_some() { CSV_GROWTH } else { 1 });
        if !fits {
            return false;
        }
        let answer = match (&file.memory.header, &file.header) {
            (None, _) => {
                out.frame(line, frame.received_ns, frame.origin);
                Ok(())
            }
            (Some(header), _) if header == text => Ok(()),
            (Some(_), Ok(header)) => out.frame_with(frame, |buffer| header.write_row(text, buffer)),
            (Some(_), Err(reason)) => Err(format!("no usable header: {reason}")),
        };
        match answer {
            Ok(()) => out.take(frame),
            Err(reason) => out.reject(frame, reason),
        }
        true
    }

    fn file(&self, memory: Memory) -> File {
        let header = match &memory.header {
            Some(line) => Header::parse(line, self.layout, self.delimiter),
            None => Err("not a csv file".to_owned()),
        };
        File { memory, header }
    }

    fn header_bytes(&self) -> usize {
        self.files.values().filter_map(|f| f.memory.header.as_ref()).map(String::len).sum()
    }

    fn cursor(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(origin, file)| (origin.clone(), file.memory.clone())).collect();
        // A map with text keys always has a JSON form.
        serde_json::to_vec(&Cursor { version: CURSOR_VERSION, files }).unwrap_or_default()
    }
}

/// A row with its column names is about this many times as long as the row; the host's own cap is far above its limit.
const CSV_GROWTH: usize = 4;

hb_sdk::export_source!(FileReplay);

#[cfg(test)]
mod tests;
