use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::*;
use crate::transport::Event;

const MAX_LINE: usize = 100;

struct Kit {
    dir: tempfile::TempDir,
}

impl Kit {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let kit = Kit { dir: tempfile::tempdir().unwrap() };
        fs::write(kit.path(), content).unwrap();
        kit
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("telemetry.jsonl")
    }

    fn append(&self, content: &str) {
        OpenOptions::new().append(true).open(self.path()).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn open(&self, follow: bool, resume: Option<&FilePosition>) -> FileTransport {
        let options = FileOptions { path: self.path(), follow, whole: true, max_line_bytes: MAX_LINE };
        FileTransport::open(options, resume).unwrap()
    }
}

/// Reads until there is nothing more now: lines with their offsets, events in brackets.
fn drain(t: &mut FileTransport) -> String {
    let mut frames = RawFrames::default();
    let mut seen = Vec::new();
    loop {
        match t.read(3, 40, &mut frames).unwrap() {
            Progress::Frames => {
                assert!(!frames.is_empty() && frames.len() <= 3 && (frames.data.len() <= 40 || frames.len() == 1));
                let lines = frames.iter().zip(&frames.offsets);
                seen.extend(lines.map(|(line, at)| format!("{at}:{}", String::from_utf8_lossy(line))));
            }
            Progress::Event(Event::File(event)) => seen.push(format!("[{event:?}]")),
            Progress::Event(other) => panic!("{other:?}"),
            Progress::Skipping => seen.push("[Skipping]".into()),
            Progress::Idle => seen.push("idle".into()),
            Progress::End => seen.push("end".into()),
        }
        if matches!(seen.last().map(String::as_str), Some("idle" | "end")) {
            return seen.join(" ");
        }
    }
}

#[test]
fn lines_come_without_their_ends() {
    for (content, whole, followed) in [
        ("", "end", "idle"),
        ("a", "0:a end", "idle"),
        ("a\nb\n", "0:a 2:b end", "0:a 2:b idle"),
        ("a\r\nb\r\nc", "0:a 3:b 6:c end", "0:a 3:b idle"),
        ("\n\n", "0: 1: end", "0: 1: idle"),
        ("a\rb\n\r\n", "0:a\rb 4: end", "0:a\rb 4: idle"),
    ] {
        let kit = Kit::new(content);
        assert_eq!(drain(&mut kit.open(false, None)), whole, "{content:?}");
        assert_eq!(drain(&mut kit.open(true, None)), followed, "{content:?}");
    }
}

#[test]
fn any_batching_gives_the_same_lines_and_a_position_to_go_on_from() {
    let content: String = (0..2_000).map(|i| "x".repeat(i * 7 % 97) + "\n").collect();
    let kit = Kit::new(&content);
    let want: Vec<&str> = content.lines().collect();
    for (max_frames, max_bytes) in [(1, 1), (7, 50), (1_000, 200), (10_000, 1 << 20), (0, 0)] {
        let (mut lines, mut frames, mut position) = (Vec::new(), RawFrames::default(), None);
        loop {
            // A new transport for each batch, resumed at the position behind the batch before.
            let mut t = kit.open(false, position.as_ref());
            if t.read(max_frames, max_bytes, &mut frames).unwrap() == Progress::End {
                break;
            }
            for (line, &at) in frames.iter().zip(&frames.offsets) {
                assert_eq!(content.as_bytes()[at as usize..][..line.len()], *line);
                lines.push(String::from_utf8(line.to_vec()).unwrap());
            }
            position = Some(t.position());
        }
        assert_eq!(lines, want);
        assert_eq!(position.unwrap().offset, content.len() as u64);
    }
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_told() {
    let (fits, long) = ("y".repeat(MAX_LINE), "x".repeat(MAX_LINE + 1));
    let oversize = |offset, bytes| format!("[Oversize {{ offset: {offset}, bytes: {bytes} }}]");
    for (content, want) in [
        (format!("a\n{long}\nb\n"), format!("0:a {} 104:b end", oversize(2, 101))),
        (format!("{fits}\n{long}\n{long}"), format!("0:{fits} {} {} end", oversize(101, 101), oversize(203, 101))),
        (format!("{long}\n{fits}"), format!("{} 102:{fits} end", oversize(0, 101))),
    ] {
        assert_eq!(drain(&mut Kit::new(&content).open(false, None)), want, "{content}");
    }
    // Followed, it may still grow.
    let kit = Kit::new(&long);
    let mut t = kit.open(true, None);
    assert_eq!(drain(&mut t), "idle");
    assert_eq!(t.position().offset, 0);
    kit.append("zz\nb\n");
    assert_eq!(drain(&mut t), format!("{} 104:b idle", oversize(0, 103)));
}

#[test]
fn a_line_of_100_mb_takes_no_memory() {
    let kit = Kit::new("a\n");
    let mut file = OpenOptions::new().append(true).open(kit.path()).unwrap();
    let piece = vec![b'x'; 1 << 20];
    (0..100).for_each(|_| file.write_all(&piece).unwrap());
    kit.append("\nb\n");
    let mut t = kit.open(false, None);
    let bytes = 100 << 20;
    let want = format!("0:a [Skipping] [Oversize {{ offset: 2, bytes: {bytes} }}] {}:b end", bytes + 3);
    assert_eq!(drain(&mut t), want);
    assert!(t.buffer.capacity() <= MAX_LINE + 2 * CHUNK_BYTES, "{}", t.buffer.capacity());
}

#[test]
fn a_followed_line_is_held_back_until_it_is_complete() {
    let kit = Kit::new("a\nb");
    let mut t = kit.open(true, None);
    assert_eq!(drain(&mut t), "0:a idle");
    assert_eq!(t.position().offset, 2);
    kit.append("c\n");
    assert!(t.wait_growth(Instant::now()).unwrap());
    assert_eq!(drain(&mut t), "2:bc idle");
    assert!(!t.wait_growth(Instant::now()).unwrap());
    // Resumed, the same.
    kit.append("d\ne");
    assert_eq!(drain(&mut kit.open(true, Some(&t.position()))), "5:d idle");
}

#[test]
fn a_truncated_file_is_read_again_from_its_start() {
    let kit = Kit::new("aaa\nbbb\n");
    let mut t = kit.open(true, None);
    assert_eq!(drain(&mut t), "0:aaa 4:bbb idle");
    let before = t.position();
    fs::write(kit.path(), "c\n").unwrap();
    assert!(t.wait_growth(Instant::now()).unwrap());
    assert_eq!(drain(&mut t), "[Truncated { offset: 8, len: 2 }] 0:c idle");
    assert_eq!((t.position().epoch, t.position().offset), (1, 2));
    assert_eq!(drain(&mut kit.open(false, Some(&before))), "[Truncated { offset: 8, len: 2 }] 0:c end");
    // Truncated and grown beyond the position: only the beginning tells.
    fs::write(kit.path(), "ddd\neee\nfff\n").unwrap();
    assert_eq!(drain(&mut t), "[Replaced { offset: 2 }] 0:ddd 4:eee 8:fff idle");
    assert_eq!(drain(&mut kit.open(false, Some(&before))), "[Replaced { offset: 8 }] 0:ddd 4:eee 8:fff end");
    assert_eq!(t.position().epoch, 2);
    // Truncated to nothing.
    fs::write(kit.path(), "").unwrap();
    assert_eq!(drain(&mut t), "[Truncated { offset: 12, len: 0 }] idle");
    kit.append("g\n");
    assert_eq!(drain(&mut t), "0:g idle");
}

#[test]
fn a_replaced_file_is_read_to_its_end_before_the_new_one() {
    let kit = Kit::new("a\nb");
    let mut t = kit.open(true, None);
    assert_eq!(drain(&mut t), "0:a idle");
    let before = t.position();
    fs::rename(kit.path(), kit.dir.path().join("old")).unwrap();
    assert_eq!(drain(&mut t), "idle");
    OpenOptions::new().append(true).open(kit.dir.path().join("old")).unwrap().write_all(b"b\nc").unwrap();
    fs::write(kit.path(), "d\n").unwrap();
    assert!(t.wait_growth(Instant::now()).unwrap());
    assert_eq!(drain(&mut t), "2:bb 5:c [Replaced { offset: 6 }] 0:d idle");
    assert_eq!((t.position().epoch, t.position().offset), (1, 2));
    assert_eq!(drain(&mut kit.open(false, Some(&before))), "[Replaced { offset: 2 }] 0:d end");
    // Followed again, what nobody read before it was renamed comes first.
    assert_eq!(drain(&mut kit.open(true, Some(&before))), "2:bb 5:c [Replaced { offset: 6 }] 0:d idle");
    fs::remove_file(kit.dir.path().join("old")).unwrap();
    assert_eq!(drain(&mut kit.open(true, Some(&before))), "[Replaced { offset: 2 }] 0:d idle");
}

#[test]
fn a_writer_that_notices_a_rotation_late_is_read_where_it_writes() {
    let kit = Kit::new("a\n");
    let mut t = kit.open(true, None);
    assert_eq!(drain(&mut t), "0:a idle");
    fs::rename(kit.path(), kit.dir.path().join("old")).unwrap();
    let write = |text: &str| {
        OpenOptions::new().append(true).open(kit.dir.path().join("old")).unwrap().write_all(text.as_bytes()).unwrap();
    };
    write("b\n");
    assert!(t.wait_growth(Instant::now()).unwrap());
    assert_eq!(drain(&mut t), "2:b idle");
    fs::write(kit.path(), "").unwrap();
    assert!(!t.wait_growth(Instant::now()).unwrap());
    write("c\n");
    assert!(t.wait_growth(Instant::now()).unwrap());
    assert_eq!(drain(&mut t), "4:c idle");
    kit.append("d\n");
    assert_eq!(drain(&mut t), "[Replaced { offset: 6 }] 0:d idle");
}

#[test]
fn a_file_that_was_short_when_it_was_left_is_still_known_when_it_has_grown() {
    let kit = Kit::new("");
    let mut t = kit.open(true, None);
    assert_eq!((drain(&mut t).as_str(), t.position().identity.head_len), ("idle", 0));
    kit.append("a\n");
    assert_eq!((drain(&mut t).as_str(), t.position().identity.head_len), ("0:a idle", 2));
    let short = t.position();
    kit.append(&format!("{}\n", "b".repeat(99)).repeat(20));
    let mut resumed = kit.open(false, Some(&short));
    assert!(drain(&mut resumed).starts_with("2:bbb"));
    assert_eq!((resumed.position().identity.head_len, resumed.position().epoch), (1024, 0));
}

#[test]
fn what_is_no_readable_file_says_so() {
    let kit = Kit::new("");
    let open = |path: PathBuf| {
        let e =
            FileTransport::open(FileOptions { path, follow: false, whole: true, max_line_bytes: 1 }, None).unwrap_err();
        assert!(!e.help().is_empty());
        e
    };
    assert!(matches!(open(kit.dir.path().join("no")), FileError::NotFound(_)));
    assert!(matches!(open(kit.dir.path().to_owned()), FileError::NotRegular(_)));
    assert!(matches!(open("/dev/zero".into()), FileError::NotRegular(_)));
    let denied = FileError::new(&kit.path(), io::ErrorKind::PermissionDenied.into());
    assert_eq!(denied.to_string(), format!("no permission to read {}", kit.path().display()));
}
