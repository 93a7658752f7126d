//! The zip form of a bag, in which no byte is free: one bag gives one archive, and only that archive is read.
//!
//! Files are stored without compression in the order of their names, with one fixed date and mode. Any zip tool
//! unpacks it. The reader takes what it needs, writes the archive again and demands the identical bytes, so comments,
//! gaps, second copies and attributes cannot be changed without being noticed. The format is written out here, in a
//! hundred lines, because an archive of today must still be the same bytes after ten years of library updates.

use crate::bag::{Files, MAX_FILES, is_clean_path};

/// Longest archive in bytes. An incident's slice of telemetry is some 100 MiB at most; zip without its 64-bit
/// extension ends at 4 GiB.
pub const MAX_ARCHIVE_BYTES: usize = 1024 * 1024 * 1024;

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;

/// Version 1.0 of the format: plain stored files.
const VERSION_NEEDED: u16 = 10;
/// The same, made on Unix: readers then take the mode from the attributes.
const VERSION_MADE_BY: u16 = (3 << 8) | VERSION_NEEDED;
/// 1980-01-01 00:00, the first moment zip knows. Real times stand inside the pack, signed.
const DOS_TIME: u16 = 0;
const DOS_DATE: u16 = (1 << 5) | 1;
/// A regular file, readable by all, writable by its owner.
const UNIX_MODE: u32 = 0o100_644;

/// Why files cannot be archived, or bytes are not an archive of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Larger than [`MAX_ARCHIVE_BYTES`] or more files than [`MAX_FILES`].
    #[error("{what} {found} is over the limit of {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much may be.
        limit: usize,
    },
    /// A name that is not a clean path.
    #[error("file name {path:?} is not allowed in an archive")]
    Name {
        /// The name; neutralise it before printing.
        path: String,
    },
    /// Not a zip archive at all, or cut off.
    #[error("not a zip archive: {what}")]
    Broken {
        /// What is wrong.
        what: &'static str,
    },
    /// A zip archive, but not byte for byte the one that its content gives.
    #[error("the archive is not byte for byte as Harmony Bridge writes it: it was changed or repacked")]
    NotExact,
}

/// Writes the archive of `files`, all within one folder `root`.
pub fn zip_write(files: &Files, root: &str) -> Result<Vec<u8>, ArchiveError> {
    limit("the number of files", files.len(), MAX_FILES)?;
    // The folder's own rule: one clean part, and every path with it still clean.
    if root.contains('/') || !is_clean_path(root) {
        return Err(ArchiveError::Name { path: root.to_owned() });
    }
    if let Some(path) = files.keys().find(|path| !is_clean_path(path)) {
        return Err(ArchiveError::Name { path: path.clone() });
    }
    let header_bytes = |path: &String| LOCAL_BYTES + CENTRAL_BYTES + 2 * (root.len() + 1 + path.len());
    let size = files.iter().map(|(path, bytes)| header_bytes(path) + bytes.len()).sum::<usize>() + END_BYTES;
    limit("the size in bytes", size, MAX_ARCHIVE_BYTES)?;

    let mut out = Vec::with_capacity(size);
    let mut central = Vec::new();
    for (path, bytes) in files {
        let name = format!("{root}/{path}");
        let offset = out.len() as u32;
        let mut common = Vec::new();
        put16(&mut common, &[VERSION_NEEDED, 0, 0, DOS_TIME, DOS_DATE]);
        put32(&mut common, &[crc32(bytes), bytes.len() as u32, bytes.len() as u32]);
        put16(&mut common, &[name.len() as u16, 0]);

        put32(&mut out, &[LOCAL_SIGNATURE]);
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);

        put32(&mut central, &[CENTRAL_SIGNATURE]);
        put16(&mut central, &[VERSION_MADE_BY]);
        central.extend_from_slice(&common);
        put16(&mut central, &[0, 0, 0]);
        put32(&mut central, &[UNIX_MODE << 16, offset]);
        central.extend_from_slice(name.as_bytes());
    }
    let offset = out.len() as u32;
    out.extend_from_slice(&central);
    put32(&mut out, &[END_SIGNATURE]);
    put16(&mut out, &[0, 0, files.len() as u16, files.len() as u16]);
    put32(&mut out, &[central.len() as u32, offset]);
    put16(&mut out, &[0]);
    Ok(out)
}

/// Reads an archive that [`zip_write`] wrote: the name of its folder, and the files by path within it.
pub fn zip_read(bytes: &[u8]) -> Result<(String, Files), ArchiveError> {
    limit("the size in bytes", bytes.len(), MAX_ARCHIVE_BYTES)?;
    let end = bytes.len().checked_sub(END_BYTES).ok_or(broken("it is too short"))?;
    if get32(bytes, end)? != END_SIGNATURE {
        return Err(broken("it does not end as a zip archive without comment"));
    }
    let count = usize::from(get16(bytes, end + 10)?);
    let mut at = get32(bytes, end + 16)? as usize;
    limit("the number of files", count, MAX_FILES)?;

    let mut root: Option<String> = None;
    let mut files = Files::new();
    // Entries that overlap could unpack to more than the archive holds; ours never sum up to more.
    let mut room = bytes.len();
    for _ in 0..count {
        if get32(bytes, at)? != CENTRAL_SIGNATURE {
            return Err(broken("its directory is damaged"));
        }
        let len = get32(bytes, at + 24)? as usize;
        let name_len = usize::from(get16(bytes, at + 28)?);
        let local = get32(bytes, at + 42)? as usize;
        let name = slice(bytes, at + CENTRAL_BYTES, name_len)?;
        let content = slice(bytes, local + LOCAL_BYTES + name_len, len)?;
        at += CENTRAL_BYTES + name_len;

        let name = std::str::from_utf8(name).map_err(|_| broken("a file name is not text"))?;
        let (folder, path) = name.split_once('/').ok_or(broken("a file lies outside of the one folder"))?;
        if root.get_or_insert_with(|| folder.to_owned()) != folder {
            return Err(broken("it has more than one folder"));
        }
        room = room.checked_sub(len).ok_or(broken("its files overlap"))?;
        if files.insert(path.to_owned(), content.to_vec()).is_some() {
            return Err(broken("a file stands in it twice"));
        }
    }
    let root = root.ok_or(broken("it is empty"))?;
    // Names are judged by the writer; every byte is by the comparison.
    if zip_write(&files, &root)? == bytes { Ok((root, files)) } else { Err(ArchiveError::NotExact) }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), ArchiveError> {
    if found > limit { Err(ArchiveError::TooLarge { what, found, limit }) } else { Ok(()) }
}

fn broken(what: &'static str) -> ArchiveError {
    ArchiveError::Broken { what }
}

fn slice(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], ArchiveError> {
    at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or(broken("it is cut off, or points outside of itself"))
}

fn get16(bytes: &[u8], at: usize) -> Result<u16, ArchiveError> {
    let bytes = slice(bytes, at, 2)?;
    Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn get32(bytes: &[u8], at: usize) -> Result<u32, ArchiveError> {
    let bytes = slice(bytes, at, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn put16(out: &mut Vec<u8>, values: &[u16]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put32(out: &mut Vec<u8>, values: &[u32]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// The checksum of zip (CRC-32, reflected 0x04c11db7).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _, Write as _};

    use proptest::prelude::*;

    use super::*;

    fn files() -> Files {
        [("data/a.txt", "hello"), ("bagit.txt", ""), ("data/b", "PK\u{5}\u{6}")]
            .iter()
            .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn bytes_are_golden_and_read_back() {
        let bytes = zip_write(&files(), "evidence_7").unwrap();
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let golden = "38587b074ce4c5c5b7f27c65ae6c6eca25875e8a6b9edcaff1dc72a656bf8c45";
        assert_eq!((bytes.len(), crate::Hash::of(&bytes).to_string()), (375, golden.to_owned()));
        assert_eq!(zip_read(&bytes), Ok(("evidence_7".to_owned(), files())));
    }

    #[test]
    fn another_zip_implementation_reads_it() {
        let bytes = zip_write(&files(), "evidence_7").unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        assert_eq!(archive.len(), 3);
        for (path, content) in files() {
            let mut file = archive.by_name(&format!("evidence_7/{path}")).unwrap();
            assert_eq!((file.compression(), file.unix_mode()), (zip::CompressionMethod::Stored, Some(UNIX_MODE)));
            let date = file.last_modified().unwrap();
            assert_eq!((date.year(), date.month(), date.day()), (1980, 1, 1));
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap(); // checks the CRC
            assert_eq!(read, content);
        }
    }

    #[test]
    fn no_byte_is_free() {
        let bytes = zip_write(&files(), "evidence_7").unwrap();
        for at in 0..bytes.len() {
            let mut shorter = bytes.clone();
            shorter.remove(at);
            assert!(zip_read(&shorter).is_err());
            assert!(zip_read(&bytes[..at]).is_err());
            for mask in [0x01, 0x20, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= mask;
                // Names and contents are covered twice (directory, checksum); a change in one place shows.
                assert!(zip_read(&changed).is_err(), "byte {at} ^ {mask:#x}");
            }
        }
        assert!(zip_read(&[&bytes[..], b"\0"].concat()).is_err());
        assert!(zip_read(&[b"\0", &bytes[..]].concat()).is_err());
    }

    #[test]
    fn the_same_files_zipped_by_another_are_refused() {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o600);
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (path, content) in files() {
            writer.start_file(format!("evidence_7/{path}"), options).unwrap();
            writer.write_all(&content).unwrap();
        }
        let bytes = writer.finish().unwrap().into_inner();
        assert_eq!(zip_read(&bytes), Err(ArchiveError::NotExact));
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let one = |path: &str| Files::from([(path.to_owned(), Vec::new())]);
        for path in ["../x", "/x", "a/../x", "a\\x", "", "a//b"] {
            assert!(matches!(zip_write(&one(path), "r"), Err(ArchiveError::Name { .. })), "{path}");
        }
        for root in ["", ".", "..", "a/b", "/"] {
            assert!(matches!(zip_write(&one("x"), root), Err(ArchiveError::Name { .. })), "{root}");
        }
        // A hostile archive with the right form and a wrong name: patch both copies of the name.
        let mut bytes = zip_write(&one("aa/x"), "r").unwrap();
        for at in 0..bytes.len() - 6 {
            if &bytes[at..at + 6] == b"r/aa/x" {
                bytes[at..at + 6].copy_from_slice(b"r/../x");
            }
        }
        assert_eq!(zip_read(&bytes), Err(ArchiveError::Name { path: "../x".to_owned() }));
    }

    #[test]
    fn overlapping_files_are_refused_before_they_cost_memory() {
        let mut files = Files::new();
        for i in 0..10 {
            files.insert(format!("f{i}"), if i == 0 { vec![7; 10_000] } else { Vec::new() });
        }
        let mut bytes = zip_write(&files, "r").unwrap();
        let end = bytes.len() - END_BYTES;
        let mut at = get32(&bytes, end + 16).unwrap() as usize;
        for _ in 0..10 {
            bytes[at + 24..at + 28].copy_from_slice(&10_000_u32.to_le_bytes());
            bytes[at + 42..at + 46].copy_from_slice(&0_u32.to_le_bytes());
            at += CENTRAL_BYTES + 4;
        }
        assert_eq!(zip_read(&bytes), Err(broken("its files overlap")));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tail in any::<[u8; 18]>()) {
            let bytes = [&bytes[..], b"PK\x05\x06", &tail].concat();
            let _ = zip_read(&bytes);
        }

        #[test]
        fn damaged_archives_never_panic(at in any::<prop::sample::Index>(), value in any::<u32>()) {
            let mut bytes = zip_write(&files(), "r").unwrap();
            let at = at.index(bytes.len() - 4);
            let unchanged = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            prop_assert!(bytes == unchanged || zip_read(&bytes).is_err());
        }
    }
}
