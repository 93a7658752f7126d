//! The file transport hands out the lines of a file, from where it was left.
//!
//! A position is a byte offset and the identity of the file: device, inode and the hash of its first bytes. A file
//! that was truncated or replaced is noticed, at the start and while it is followed, and read again from its start as
//! a new epoch.
//!
//! A file that is renamed is read to its end, as long as nothing is in the one that takes its name: until then its writer
//! may not have noticed. Renamed while nobody read it, it is looked for beside its old place. What cannot be seen: what
//! is appended to the old file when the new one has content already, a file that is replaced again before it was looked
//! at, and what is cut off by a truncation before it was read. So logs are rotated by renaming, not by `copytruncate`.
//!
//! A line longer than the limit is passed over without being held in memory, and reported.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use super::{Progress, RawFrames};

/// Bytes read at once: large enough that the call does not matter, small enough to stay in the second-level cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// Most bytes of one batch, whatever is asked for: ends are kept as u32.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// Bytes at the start of a file that identify it.
const HEAD_BYTES: usize = 1024;

/// Bytes of a line that is too long which are passed over in one call, so that a caller can stop in between.
const MAX_SKIP_BYTES: u64 = 64 << 20;

/// Most files beside a renamed one that are looked at: a directory of logs has some hundreds.
const SIBLINGS_MAX: usize = 10_000;

/// How often a file that is followed is looked at, while nothing comes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What the transport is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// Whether to wait for more at its end. A last line without line feed is then held back until it is complete.
    pub follow: bool,
    /// Whether nobody writes to it any more, so that a last line without line feed is complete. Otherwise it is left for
    /// the next time: `12` may be the beginning of `1234.5`.
    pub whole: bool,
    /// Longest line in bytes.
    pub max_line_bytes: usize,
}

/// Which file it is: a name says little, since files are renamed and replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// How many bytes at the start were hashed: fewer than 1024 when the file had no more.
    pub head_len: u32,
    /// SHA-256 of these bytes.
    pub head: Hash,
}

impl Identity {
    /// Device and inode.
    fn place(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// How far a file has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// Which file.
    #[serde(flatten)]
    pub identity: Identity,
    /// Byte offset of the next line.
    pub offset: u64,
    /// How often the file was found truncated or replaced.
    pub epoch: u64,
}

/// Something that happened between two lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// A line was longer than the limit and was passed over.
    Oversize {
        /// Where it begins.
        offset: u64,
        /// Its length without the line feed.
        bytes: u64,
    },
    /// The file is shorter than what had been read of it; it is read from its start.
    Truncated {
        /// How far it had been read.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// There is another file under the name, or other content in it; it is read from its start.
    Replaced {
        /// How far the old one had been read.
        offset: u64,
    },
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("file {0} not found")]
    NotFound(PathBuf),
    /// A directory, pipe or device.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// The user hb runs as may not read it.
    #[error("no permission to read {0}")]
    Denied(PathBuf),
    /// Anything else.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl FileError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            FileError::NotFound(_) => "check the path; a relative one starts at the directory of the config",
            FileError::NotRegular(_) => "name a regular file",
            FileError::Denied(_) => "let the user hb runs as read it and enter its directories",
            FileError::Io { .. } => "check the disk and the file system",
        }
    }

    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => FileError::NotFound(path),
            io::ErrorKind::PermissionDenied => FileError::Denied(path),
            _ => FileError::Io { path, source },
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct FileTransport {
    options: FileOptions,
    /// The file's name: what labels may be made of, and no path of this machine.
    origin: Arc<str>,
    file: File,
    identity: Identity,
    epoch: u64,
    /// File offset of `buffer[start]`: everything before has been handed out or passed over.
    offset: u64,
    /// `start..end` is read and not yet handed out; up to `searched` it holds no line feed.
    buffer: Vec<u8>,
    start: usize,
    searched: usize,
    end: usize,
    /// The line at `offset` is too long; this many bytes of it have been passed over. `start..end` follows on them.
    skipped: Option<u64>,
    /// The last read came to the end of the file.
    at_end: bool,
    /// To be told before anything is read.
    pending: Option<FileEvent>,
}

/// How a file under a name compares with the one that was read.
enum Look {
    Same,
    Grown,
    Truncated(u64),
    /// The same file with another beginning.
    Rewritten,
    Replaced,
    Gone,
}

impl FileTransport {
    /// Opens a file at its start, or at a position when it is still the same file.
    pub fn open(options: FileOptions, resume: Option<&FilePosition>) -> Result<Self, FileError> {
        let (mut file, mut meta) = open_regular(&options.path)?;
        let failed = |e| FileError::new(&options.path, e);
        let (mut offset, mut epoch, mut pending) = (0, 0, None);
        if let Some(position) = resume {
            (offset, epoch) = (position.offset, position.epoch);
            pending = match compare(&position.identity, position.offset, &file, &meta).map_err(failed)? {
                Look::Truncated(len) => Some(FileEvent::Truncated { offset, len }),
                Look::Replaced | Look::Rewritten => Some(FileEvent::Replaced { offset }),
                Look::Same | Look::Grown | Look::Gone => None,
            };
            // What nobody read before it was renamed comes first.
            let renamed =
                pending.as_ref().filter(|_| options.follow).and_then(|_| find_renamed(&options.path, position));
            if let Some(found) = renamed {
                ((file, meta), pending) = (found, None);
            }
            if pending.is_some() {
                (offset, epoch) = (0, epoch + 1);
            }
        }
        let identity = identify(&file, &meta, HEAD_BYTES).map_err(failed)?;
        let origin = options.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()).into();
        let mut transport = FileTransport {
            options,
            origin,
            file,
            identity,
            epoch,
            offset,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            end: 0,
            skipped: None,
            at_end: false,
            pending,
        };
        transport.seek(offset)?;
        Ok(transport)
    }

    /// Replaces the content of `out` with the next lines, without line feed and carriage return: at most `max_frames`,
    /// and at most `max_bytes` unless a single line has more.
    pub fn read(&mut self, max_frames: usize, max_bytes: usize, out: &mut RawFrames) -> Result<Progress, FileError> {
        out.clear();
        let (max_frames, max_bytes) = (max_frames.max(1), max_bytes.min(MAX_BATCH_BYTES));
        let mut skip_left = MAX_SKIP_BYTES;
        loop {
            if let Some(event) = self.pending.take() {
                return Ok(Progress::Event(event.into()));
            }
            if self.skipped.is_some() {
                if let Some(event) = self.skip_buffered() {
                    return Ok(Progress::Event(event.into()));
                }
            } else if self.take_lines(max_frames, max_bytes, out) {
                return Ok(Progress::Frames);
            } else if self.line_too_long() {
                if !out.is_empty() {
                    return Ok(Progress::Frames);
                }
                self.skipped = Some(0);
                continue;
            }
            if self.at_end && self.options.follow {
                if !out.is_empty() {
                    return Ok(Progress::Frames);
                }
                match self.look()? {
                    Look::Same | Look::Gone => return Ok(Progress::Idle),
                    Look::Grown => {}
                    Look::Truncated(len) => {
                        self.restart(FileEvent::Truncated { offset: self.read_to(), len })?;
                        continue;
                    }
                    Look::Rewritten => {
                        self.restart(FileEvent::Replaced { offset: self.read_to() })?;
                        continue;
                    }
                    Look::Replaced => {
                        // The writer may have added to the old file before it left it.
                        if self.fill()? > 0 {
                            continue;
                        }
                        match self.finish(out) {
                            Progress::End => self.restart(FileEvent::Replaced { offset: self.read_to() })?,
                            last => return Ok(last),
                        }
                        continue;
                    }
                }
            }
            let got = self.fill()?;
            if got == 0 && !self.options.follow {
                return Ok(self.finish(out));
            }
            if self.skipped.is_some() {
                skip_left = skip_left.saturating_sub(got as u64);
                if skip_left == 0 {
                    return Ok(Progress::Skipping);
                }
            }
        }
    }

    /// Waits until the file grows or is replaced; false when the deadline came first.
    pub fn wait_growth(&mut self, deadline: Instant) -> Result<bool, FileError> {
        loop {
            if self.pending.is_some() || !self.at_end || !matches!(self.look()?, Look::Same | Look::Gone) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }

    /// The position behind everything that has been handed out or passed over.
    pub fn position(&self) -> FilePosition {
        FilePosition { identity: self.identity.clone(), offset: self.offset, epoch: self.epoch }
    }

    /// Hands out the complete lines in the buffer. True when the batch is full or a line that is too long comes next.
    fn take_lines(&mut self, max_frames: usize, max_bytes: usize, out: &mut RawFrames) -> bool {
        let FileTransport { buffer, start, searched, offset, origin, .. } = self;
        let from = *searched;
        for at in memchr::memchr_iter(b'\n', &buffer[from..self.end]).map(|i| from + i) {
            let length = at - *start;
            let full = out.len() >= max_frames || out.data.len() + length > max_bytes;
            if (full && !out.is_empty()) || length > self.options.max_line_bytes {
                // Found again by the next call.
                *searched = *start;
                return !out.is_empty();
            }
            let line = &buffer[*start..at];
            out.push(origin, *offset, line.strip_suffix(b"\r").unwrap_or(line));
            *offset += length as u64 + 1;
            *start = at + 1;
        }
        *searched = self.end;
        out.len() >= max_frames
    }

    fn line_too_long(&self) -> bool {
        let line = &self.buffer[self.start..self.end];
        let limit = self.options.max_line_bytes;
        line.len() > limit && memchr::memchr(b'\n', &line[..=limit]).is_none()
    }

    /// Passes over what the buffer holds of a line that is too long. An event when its end is reached.
    fn skip_buffered(&mut self) -> Option<FileEvent> {
        let before = self.skipped?;
        let rest = &self.buffer[self.start..self.end];
        let Some(length) = memchr::memchr(b'\n', rest) else {
            self.skipped = Some(before + rest.len() as u64);
            (self.start, self.searched) = (self.end, self.end);
            return None;
        };
        self.start += length + 1;
        self.searched = self.start;
        Some(self.end_skip(before + length as u64, 1))
    }

    fn end_skip(&mut self, bytes: u64, line_feed: u64) -> FileEvent {
        let event = FileEvent::Oversize { offset: self.offset, bytes };
        self.skipped = None;
        self.offset += bytes + line_feed;
        event
    }

    /// Reads one chunk behind what is in the buffer and says how much came.
    fn fill(&mut self) -> Result<usize, FileError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.searched -= self.start;
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < self.end + CHUNK_BYTES {
            self.buffer.reserve_exact(self.end + CHUNK_BYTES - self.buffer.len());
            self.buffer.resize(self.end + CHUNK_BYTES, 0);
        }
        let room = &mut self.buffer[self.end..self.end + CHUNK_BYTES];
        let got = loop {
            match self.file.read(room) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|e| FileError::new(&self.options.path, e))?,
            }
        };
        self.end += got;
        self.at_end = got == 0;
        if got > 0 && (self.identity.head_len as usize) < HEAD_BYTES {
            self.identity = self.identify()?;
        }
        Ok(got)
    }

    /// Bytes behind the last line feed that were read and are left for the next time.
    pub fn rest_bytes(&self) -> usize {
        self.end - self.start
    }

    /// The end of a file that nobody writes to any more, or that is not followed.
    fn finish(&mut self, out: &mut RawFrames) -> Progress {
        // A file that was followed and is now replaced gets nothing more.
        let whole = self.options.whole || self.options.follow;
        if let Some(bytes) = self.skipped.filter(|_| whole) {
            return Progress::Event(self.end_skip(bytes, 0).into());
        }
        if whole && self.end > self.start {
            self.take_rest(out);
        }
        if out.is_empty() { Progress::End } else { Progress::Frames }
    }

    /// Hands out what is left in the buffer as a line.
    fn take_rest(&mut self, out: &mut RawFrames) {
        let line = &self.buffer[self.start..self.end];
        out.push(&self.origin, self.offset, line.strip_suffix(b"\r").unwrap_or(line));
        self.offset += line.len() as u64;
        (self.start, self.searched) = (self.end, self.end);
    }

    /// How far the file has been read, handed out or not.
    fn read_to(&self) -> u64 {
        self.offset + self.skipped.unwrap_or(0) + (self.end - self.start) as u64
    }

    /// Compares what is under the name now with what has been read.
    fn look(&self) -> Result<Look, FileError> {
        let failed = |e| FileError::new(&self.options.path, e);
        let is_left = |named: &Metadata| named.len() == 0 && (named.dev(), named.ino()) != self.identity.place();
        let named = match std::fs::metadata(&self.options.path) {
            Ok(meta) if !is_left(&meta) => meta,
            // Between two steps of a rotation: there is no file, or nobody writes to it yet.
            Ok(_) => return self.look_at_old().map_err(failed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.look_at_old().map_err(failed),
            Err(e) => return Err(failed(e)),
        };
        compare(&self.identity, self.read_to(), &self.file, &named).map_err(failed)
    }

    /// Looks at the file that has lost its name: its writer may not have noticed.
    fn look_at_old(&self) -> io::Result<Look> {
        Ok(if self.file.metadata()?.len() > self.read_to() { Look::Grown } else { Look::Gone })
    }

    /// Begins again with what is under the name now.
    fn restart(&mut self, event: FileEvent) -> Result<(), FileError> {
        let (file, _) = open_regular(&self.options.path)?;
        self.file = file;
        self.identity = self.identify()?;
        self.epoch += 1;
        self.skipped = None;
        self.pending = Some(event);
        self.seek(0)
    }

    fn identify(&self) -> Result<Identity, FileError> {
        let meta = self.file.metadata();
        let identity = meta.and_then(|meta| identify(&self.file, &meta, HEAD_BYTES));
        identity.map_err(|e| FileError::new(&self.options.path, e))
    }

    fn seek(&mut self, offset: u64) -> Result<(), FileError> {
        use std::io::Seek as _;
        let moved = self.file.seek(io::SeekFrom::Start(offset));
        moved.map_err(|e| FileError::new(&self.options.path, e))?;
        self.offset = offset;
        (self.start, self.searched, self.end) = (0, 0, 0);
        self.at_end = false;
        Ok(())
    }
}

/// The file of a position under another name in the same directory.
fn find_renamed(path: &Path, position: &FilePosition) -> Option<(File, Metadata)> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(directory).ok()?.take(SIBLINGS_MAX).flatten() {
        let is_it = |meta: &Metadata| meta.is_file() && (meta.dev(), meta.ino()) == position.identity.place();
        if !entry.metadata().is_ok_and(|meta| is_it(&meta)) {
            continue;
        }
        let (file, meta) = open_regular(&entry.path()).ok()?;
        let look = compare(&position.identity, position.offset, &file, &meta).ok()?;
        return matches!(look, Look::Same | Look::Grown).then_some((file, meta));
    }
    None
}

fn open_regular(path: &Path) -> Result<(File, Metadata), FileError> {
    let failed = |e| FileError::new(path, e);
    // Opening a pipe would wait for its writer, so the kind is asked before.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    Ok((file, meta))
}

/// Compares a file that was read up to `read_to` with the one `named` describes; `file` is open on the latter when
/// device and inode agree.
fn compare(known: &Identity, read_to: u64, file: &File, named: &Metadata) -> io::Result<Look> {
    if (known.dev, known.ino) != (named.dev(), named.ino()) {
        return Ok(Look::Replaced);
    }
    if named.len() < read_to {
        return Ok(Look::Truncated(named.len()));
    }
    // A file that was truncated and has grown again has another beginning.
    if identify(file, named, known.head_len as usize)? != *known {
        return Ok(Look::Rewritten);
    }
    Ok(if named.len() > read_to { Look::Grown } else { Look::Same })
}

fn identify(file: &File, meta: &Metadata, head_bytes: usize) -> io::Result<Identity> {
    let mut head = [0; HEAD_BYTES];
    let mut len = 0;
    while len < head_bytes.min(HEAD_BYTES) {
        match file.read_at(&mut head[len..head_bytes.min(HEAD_BYTES)], len as u64) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Identity { dev: meta.dev(), ino: meta.ino(), head_len: len as u32, head: Hash::of(&head[..len]) })
}

#[cfg(test)]
mod tests;
