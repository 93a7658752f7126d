//! The rules of BagIt 1.0 (RFC 8493) for bags that others made.
//!
//! Valid means: complete (every manifest lists every payload file once, and every listed file is there) and every
//! checksum fits. SHA-256 and SHA-512 are computed; a manifest of another algorithm is checked for completeness, and
//! a bag that has only such manifests is reported as not verifiable. Paths that leave the bag are refused even where
//! they would exist.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256, Sha512};

use super::{BAG_INFO, BAGIT, Files, PAYLOAD_OXUM, PAYLOAD_PREFIX, Problem};

/// URLs and lengths of payload files that are not in the bag yet.
const FETCH: &str = "fetch.txt";

pub(super) fn check(files: &Files) -> Vec<Problem> {
    let mut bag = Bag { files, encoding: Encoding::Utf8, problems: Vec::new() };
    bag.declaration();
    let mut computed = 0;
    for (name, algorithm) in bag.manifests("manifest-") {
        computed += usize::from(algorithm.is_some());
        bag.payload_manifest(name, algorithm);
    }
    if computed == 0 {
        let what = "no manifest-sha256.txt or manifest-sha512.txt";
        bag.say("", what, "without a checksum this program computes the payload cannot be verified");
    }
    for (name, algorithm) in bag.manifests("tagmanifest-") {
        bag.tag_manifest(name, algorithm);
    }
    bag.info();
    bag.fetch();
    bag.problems
}

#[derive(Clone, Copy)]
enum Algorithm {
    Sha256,
    Sha512,
}

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    Utf16,
    Latin1,
}

struct Bag<'a> {
    files: &'a Files,
    encoding: Encoding,
    problems: Vec<Problem>,
}

impl<'a> Bag<'a> {
    /// `bagit.txt`: exactly two lines, always UTF-8 without byte order mark, one space after each colon.
    fn declaration(&mut self) {
        let Some(bytes) = self.files.get(BAGIT) else {
            self.problems.push(Problem::missing(BAGIT));
            return;
        };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let [version, encoding] = lines(text)[..] else {
            self.say(BAGIT, "not exactly two lines of UTF-8", BAGIT_HELP);
            return;
        };
        if version.strip_prefix("BagIt-Version: ") != Some("1.0") {
            self.say(BAGIT, format!("its first line is {version:?}"), BAGIT_HELP);
        }
        self.encoding =
            match encoding.strip_prefix("Tag-File-Character-Encoding: ").map(str::to_ascii_uppercase).as_deref() {
                Some("UTF-8" | "US-ASCII") => Encoding::Utf8,
                Some("UTF-16") => Encoding::Utf16,
                Some("ISO-8859-1") => Encoding::Latin1,
                _ => {
                    self.say(BAGIT, format!("its second line is {encoding:?}"), BAGIT_HELP);
                    Encoding::Utf8
                }
            };
    }

    /// The manifests in the root whose names begin with `prefix`, with the algorithm when it can be computed.
    fn manifests(&self, prefix: &str) -> Vec<(&'a str, Option<Algorithm>)> {
        let algorithm = |path: &'a String| {
            let name = path.strip_prefix(prefix)?.strip_suffix(".txt")?;
            let known = match name.to_ascii_lowercase().as_str() {
                "sha256" => Some(Algorithm::Sha256),
                "sha512" => Some(Algorithm::Sha512),
                _ => None,
            };
            Some((path.as_str(), known))
        };
        self.files.keys().filter(|path| !path.contains('/')).filter_map(algorithm).collect()
    }

    fn payload_manifest(&mut self, name: &str, algorithm: Option<Algorithm>) {
        let listed = self.listed(name);
        for (path, sum) in &listed {
            if !path.starts_with(PAYLOAD_PREFIX) {
                self.say(
                    path.as_str(),
                    format!("listed in {name}, but not below data/"),
                    "only tag manifests list tag files",
                );
            }
            self.compare(name, path, sum, algorithm);
        }
        for path in self.files.keys().filter(|path| path.starts_with(PAYLOAD_PREFIX)) {
            if !listed.contains_key(path) {
                self.say(path.as_str(), format!("not listed in {name}"), "every manifest must list every payload file");
            }
        }
    }

    fn tag_manifest(&mut self, name: &str, algorithm: Option<Algorithm>) {
        for (path, sum) in &self.listed(name) {
            if path.starts_with(PAYLOAD_PREFIX) || path.starts_with("tagmanifest-") {
                self.say(
                    path.as_str(),
                    format!("listed in {name}"),
                    "tag manifests list tag files other than themselves",
                );
            }
            self.compare(name, path, sum, algorithm);
        }
    }

    fn compare(&mut self, manifest: &str, path: &str, sum: &str, algorithm: Option<Algorithm>) {
        let Some(bytes) = self.files.get(path) else {
            self.say(path, format!("listed in {manifest}, but missing"), "the bag is not complete");
            return;
        };
        let computed = match algorithm {
            None => return,
            Some(Algorithm::Sha256) => Sha256::digest(bytes).to_vec(),
            Some(Algorithm::Sha512) => Sha512::digest(bytes).to_vec(),
        };
        if HEXLOWER_PERMISSIVE.decode(sum.as_bytes()).ok() != Some(computed) {
            self.say(
                path,
                format!("its checksum is not the one in {manifest}"),
                "the file or the manifest was changed",
            );
        }
    }

    /// The lines of a manifest as path and checksum; malformed lines, bad paths and repetitions become problems.
    fn listed(&mut self, name: &str) -> BTreeMap<String, String> {
        let mut listed = BTreeMap::new();
        let text = self.text(name);
        for line in lines(&text).into_iter().filter(|line| !line.is_empty()) {
            let Some((sum, path)) = line.split_once([' ', '\t']) else {
                self.say(
                    name,
                    format!("a line without a path: {line:?}"),
                    "each line is a checksum, spaces and a path",
                );
                continue;
            };
            let path = decode_path(path.trim_start_matches([' ', '\t']));
            if !stays_inside(&path) {
                self.say(name, format!("a path that leaves the bag: {path:?}"), "the bag is hostile or broken");
                continue;
            }
            if listed.insert(path.clone(), sum.to_owned()).is_some() {
                self.say(path, format!("listed twice in {name}"), "a manifest lists each file once");
            }
        }
        listed
    }

    /// `bag-info.txt`: labels and values with folded lines; the count of the payload must fit when it is given.
    fn info(&mut self) {
        if !self.files.contains_key(BAG_INFO) {
            return;
        }
        let text = self.text(BAG_INFO);
        let mut labels = 0;
        let mut oxums = Vec::new();
        for line in lines(&text).into_iter().filter(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) && labels > 0 {
                continue;
            }
            match line.split_once(':') {
                Some((label, value)) if !label.is_empty() && label.trim() == label => {
                    labels += 1;
                    if label.eq_ignore_ascii_case(PAYLOAD_OXUM) {
                        oxums.push(value.trim().to_owned());
                    }
                }
                _ => self.say(BAG_INFO, format!("a line that is not `Label: value`: {line:?}"), "see RFC 8493 2.2.2"),
            }
        }
        let expected = super::oxum(self.files);
        match &oxums[..] {
            [] => {}
            [found] if *found == expected => {}
            [found] => {
                let what = format!("{PAYLOAD_OXUM} is {found:?}, the payload has {expected}");
                self.say(BAG_INFO, what, "payload files are missing, added or of another length");
            }
            _ => self.say(BAG_INFO, format!("{PAYLOAD_OXUM} stands there more than once"), "it may stand there once"),
        }
    }

    /// `fetch.txt`: whatever it names must have been fetched (a missing file shows in the manifests) and be payload.
    fn fetch(&mut self) {
        if !self.files.contains_key(FETCH) {
            return;
        }
        let text = self.text(FETCH);
        for line in lines(&text).into_iter().filter(|line| !line.is_empty()) {
            // URL, length, path; the path may have spaces.
            let mut rest = line;
            for _ in 0..2 {
                rest = rest.split_once([' ', '\t']).map_or("", |(_, rest)| rest.trim_start_matches([' ', '\t']));
            }
            let path = decode_path(rest);
            if !path.starts_with(PAYLOAD_PREFIX) || !stays_inside(&path) {
                self.say(
                    FETCH,
                    format!("a line that fetches no payload file: {line:?}"),
                    "each line is URL, length, path",
                );
            } else if !self.files.contains_key(&path) {
                self.say(path, "named in fetch.txt, but not there", "fetch it before verifying");
            }
        }
    }

    /// A tag file as text, in the encoding that `bagit.txt` declares.
    fn text(&mut self, name: &str) -> String {
        let bytes = self.files.get(name).map_or(&[][..], |bytes| &bytes[..]);
        let text = match self.encoding {
            Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Encoding::Utf16 => utf16(bytes),
            Encoding::Latin1 => Some(bytes.iter().map(|b| char::from(*b)).collect()),
        };
        text.unwrap_or_else(|| {
            self.say(name, "not text in the declared encoding", "see Tag-File-Character-Encoding in bagit.txt");
            String::new()
        })
    }

    fn say(&mut self, path: impl Into<String>, what: impl Into<String>, help: &str) {
        self.problems.push(Problem::new(path, what, help));
    }
}

const BAGIT_HELP: &str = "expected `BagIt-Version: 1.0` and `Tag-File-Character-Encoding: UTF-8`, nothing else";

/// Lines ended by LF, CR LF or CR, the last end optional.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once(['\r', '\n']).unwrap_or((rest, ""));
        let ended_by_cr = rest.as_bytes().get(line.len()) == Some(&b'\r');
        rest = if ended_by_cr { after.strip_prefix('\n').unwrap_or(after) } else { after };
        lines.push(line);
    }
    lines
}

/// Big-endian unless a byte order mark says otherwise.
fn utf16(bytes: &[u8]) -> Option<String> {
    let unit: fn([u8; 2]) -> u16 =
        if bytes.starts_with(&[0xff, 0xfe]) { u16::from_le_bytes } else { u16::from_be_bytes };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty())?;
    Some(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

/// Line ends and the percent sign are written as `%0A`, `%0D`, `%25` in paths, and nothing else is.
fn decode_path(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path.strip_prefix("./").unwrap_or(path);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (plain, len) = match rest.get(at..at + 3).map(str::to_ascii_uppercase).as_deref() {
            Some("%0A") => ('\n', 3),
            Some("%0D") => ('\r', 3),
            Some("%25") => ('%', 3),
            _ => ('%', 1),
        };
        out.push(plain);
        rest = &rest[at + len..];
    }
    out + rest
}

fn stays_inside(path: &str) -> bool {
    let drive = path.as_bytes().get(1) == Some(&b':');
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    !path.starts_with('~') && !drive && path.split(['/', '\\']).all(part)
}
