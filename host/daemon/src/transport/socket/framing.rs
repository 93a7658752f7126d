//! Framing cuts a stream of bytes into frames; where the reads happen to end makes no difference.
//!
//! It is pure: bytes in, frames out. What it holds of an unfinished frame has a limit; a longer one is passed over.

use std::fmt;
use std::str::FromStr;

/// Digits of an octet count: a message of 999,999,999 bytes is longer than any limit that can be set.
const MAX_COUNT_DIGITS: u32 = 9;

/// Memory a connection keeps for its next unfinished frame. Most connections are idle most of the time, so more is
/// given back.
const KEEP_BYTES: usize = 4 * 1024;

/// How a stream is cut into frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// What syslog senders do, seen at the start of each frame: a digit from 1 to 9 begins an octet count, anything
    /// else a line that ends with LF or NUL. Empty lines are no frames.
    #[default]
    Auto,
    /// Lines that end with LF or CR LF. An empty line is an empty frame.
    Newline,
    /// `LEN SP MSG` of RFC 6587.
    OctetCount,
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Framing::Auto => "auto",
            Framing::Newline => "newline",
            Framing::OctetCount => "octet_count",
        })
    }
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Framing::Auto, Framing::Newline, Framing::OctetCount].into_iter();
        let mut named = known.filter(|framing| framing.to_string() == text);
        named.next().ok_or_else(|| format!("unknown framing `{text}`: it is one of auto, newline, octet_count"))
    }
}

/// What came of one step through the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Step {
    /// A frame was pushed.
    Frame,
    /// A frame is complete but longer than the room. The next step finds it again.
    Full,
    /// A frame was longer than the limit and was passed over.
    Oversize {
        /// Where it begins in the stream.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// The stream breaks the framing: nothing behind this point has a meaning.
    Bad(&'static str),
    /// All input is used.
    More,
}

/// Cuts one stream.
#[derive(Debug)]
pub(in crate::transport) struct Deframer {
    framing: Framing,
    max_frame_bytes: usize,
    state: State,
    /// What has come of the unfinished frame; in `Start` it is stale.
    held: Vec<u8>,
    /// Bytes of the stream that have been used.
    offset: u64,
    /// Where the frame begins that `state` is in.
    begin: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    Line,
    LongLine { bytes: u64 },
    Count { value: usize, digits: u32 },
    Message { bytes: usize },
    LongMessage { bytes: usize, left: usize },
}

impl Deframer {
    pub(in crate::transport) fn new(framing: Framing, max_frame_bytes: usize) -> Self {
        Deframer { framing, max_frame_bytes, state: State::Start, held: Vec::new(), offset: 0, begin: 0 }
    }

    /// Memory that is taken for unfinished frames.
    pub(in crate::transport) fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Goes on through the input to the end of a frame, which is pushed together with the offset where it begins
    /// unless it has more than `room` bytes.
    pub(in crate::transport) fn next(
        &mut self,
        input: &mut &[u8],
        room: usize,
        push: &mut impl FnMut(u64, &[u8]),
    ) -> Step {
        // Every turn uses input, leaves the start or returns.
        loop {
            match self.state {
                State::Start => {
                    self.forget();
                    let Some(&first) = input.first() else { return Step::More };
                    self.begin = self.offset;
                    match (self.framing, first) {
                        (Framing::Auto | Framing::OctetCount, b'1'..=b'9') => {
                            self.state = State::Count { value: 0, digits: 0 };
                        }
                        // Some senders count the message but not the line feed they put behind it.
                        (Framing::Auto | Framing::OctetCount, b'\n') | (Framing::Auto, 0) => self.advance(input, 1),
                        (Framing::OctetCount, _) => return Step::Bad("an octet count begins with a digit from 1 to 9"),
                        (Framing::Auto | Framing::Newline, _) => self.state = State::Line,
                    }
                }
                State::Line => {
                    let Some(end) = self.line_end(input) else {
                        let bytes = self.held.len() + input.len();
                        if bytes > self.max_frame_bytes {
                            self.state = State::LongLine { bytes: bytes as u64 };
                            self.forget();
                            self.advance(input, input.len());
                        } else {
                            self.hold(input, input.len());
                        }
                        return Step::More;
                    };
                    let bytes = self.held.len() + end;
                    if bytes > self.max_frame_bytes {
                        self.advance(input, end + 1);
                        return self.oversize(bytes as u64);
                    }
                    if bytes > room {
                        return Step::Full;
                    }
                    let step = self.emit(&input[..end], push);
                    self.advance(input, end + 1);
                    if step == Step::Frame {
                        return step;
                    }
                }
                State::LongLine { bytes } => {
                    let end = self.line_end(input);
                    let bytes = bytes + end.unwrap_or(input.len()) as u64;
                    self.advance(input, end.map_or(input.len(), |end| end + 1));
                    if end.is_some() {
                        return self.oversize(bytes);
                    }
                    self.state = State::LongLine { bytes };
                    return Step::More;
                }
                State::Count { value, digits } => match input.first() {
                    None => return Step::More,
                    Some(digit @ b'0'..=b'9') if digits < MAX_COUNT_DIGITS => {
                        self.advance(input, 1);
                        self.state = State::Count { value: value * 10 + usize::from(digit - b'0'), digits: digits + 1 };
                    }
                    Some(b' ') => {
                        self.advance(input, 1);
                        self.state = if value > self.max_frame_bytes {
                            State::LongMessage { bytes: value, left: value }
                        } else {
                            State::Message { bytes: value }
                        };
                    }
                    Some(_) => return Step::Bad("an octet count is up to nine digits and a space"),
                },
                State::Message { bytes } => {
                    let missing = bytes - self.held.len();
                    if input.len() < missing {
                        self.hold(input, input.len());
                        return Step::More;
                    }
                    if bytes > room {
                        return Step::Full;
                    }
                    let step = self.emit(&input[..missing], push);
                    self.advance(input, missing);
                    if step == Step::Frame {
                        return step;
                    }
                }
                State::LongMessage { bytes, left } => {
                    let passed = left.min(input.len());
                    self.advance(input, passed);
                    if passed == left {
                        return self.oversize(bytes as u64);
                    }
                    self.state = State::LongMessage { bytes, left: left - passed };
                    return Step::More;
                }
            }
        }
    }

    /// The stream has ended: a rest without line feed is a frame, a rest of a counted message is none.
    pub(in crate::transport) fn finish(&mut self, room: usize, push: &mut impl FnMut(u64, &[u8])) -> Step {
        match self.state {
            State::Start => Step::More,
            State::Line if self.held.len() > room => Step::Full,
            State::Line => self.emit(&[], push),
            State::LongLine { bytes } => self.oversize(bytes),
            State::Count { .. } | State::Message { .. } | State::LongMessage { .. } => {
                Step::Bad("it ended within a counted message")
            }
        }
    }

    /// Whether the stream stands between two frames.
    pub(in crate::transport) fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Pushes what is held and `tail` as one frame. `More` when it is none.
    fn emit(&mut self, tail: &[u8], push: &mut impl FnMut(u64, &[u8])) -> Step {
        let whole = if self.held.is_empty() {
            tail
        } else {
            self.held.extend_from_slice(tail);
            self.held.as_slice()
        };
        let is_line = matches!(self.state, State::Line);
        let frame = if is_line { whole.strip_suffix(b"\r").unwrap_or(whole) } else { without_end(whole) };
        self.state = State::Start;
        if is_line && self.framing == Framing::Auto && frame.is_empty() {
            return Step::More;
        }
        push(self.begin, frame);
        Step::Frame
    }

    fn oversize(&mut self, bytes: u64) -> Step {
        self.state = State::Start;
        Step::Oversize { offset: self.begin, bytes }
    }

    fn line_end(&self, input: &[u8]) -> Option<usize> {
        match self.framing {
            Framing::Auto => memchr::memchr2(b'\n', 0, input),
            Framing::Newline | Framing::OctetCount => memchr::memchr(b'\n', input),
        }
    }

    fn hold(&mut self, input: &mut &[u8], bytes: usize) {
        self.held.extend_from_slice(&input[..bytes]);
        self.advance(input, bytes);
    }

    fn advance(&mut self, input: &mut &[u8], bytes: usize) {
        *input = &input[bytes..];
        self.offset += bytes as u64;
    }

    fn forget(&mut self) {
        self.held.clear();
        self.held.shrink_to(KEEP_BYTES);
    }
}

/// A datagram or counted message without the NUL, LF or CR LF that some senders leave at its end.
pub(super) fn without_end(message: &[u8]) -> &[u8] {
    let message = message.strip_suffix(b"\0").unwrap_or(message);
    let Some(line) = message.strip_suffix(b"\n") else { return message };
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_FRAME: usize = 40;

    /// Feeds the pieces and tells what came of them: `offset:frame`, oversize and bad framing in brackets.
    fn cut<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut deframer, mut told) = (Deframer::new(framing, MAX_FRAME), Vec::new());
        for mut piece in pieces {
            loop {
                let mut push = |offset, frame: &[u8]| told.push(format!("{offset}:{}", String::from_utf8_lossy(frame)));
                match deframer.next(&mut piece, usize::MAX, &mut push) {
                    Step::Frame => {}
                    Step::More => break,
                    Step::Bad(reason) => return format!("{} [{reason}]", told.join("|")),
                    step => told.push(format!("[{step:?}]")),
                }
            }
            assert!(piece.is_empty() && deframer.held_bytes() <= 2 * MAX_FRAME, "{}", deframer.held_bytes());
        }
        let mut push = |offset, frame: &[u8]| told.push(format!("{offset}:{}", String::from_utf8_lossy(frame)));
        match deframer.finish(usize::MAX, &mut push) {
            Step::Frame => told.push("[rest]".into()),
            Step::More => {}
            step => told.push(format!("[{step:?}]")),
        }
        told.join("|")
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        use Framing::{Auto, Newline, OctetCount};
        let (fits, long) = ("y".repeat(MAX_FRAME), "x".repeat(MAX_FRAME + 1));
        let oversize = |offset, bytes| format!("[Oversize {{ offset: {offset}, bytes: {bytes} }}]");
        let cases: [(Framing, String, String); 27] = [
            (Newline, "a\nb\r\n\nc\n".into(), "0:a|2:b|5:|6:c".into()),
            (Newline, "a\nrest".into(), "0:a|2:rest|[rest]".into()),
            (Newline, "12 abc\r\r\n".into(), "0:12 abc\r".into()),
            (Newline, "a\0b\n".into(), "0:a\0b".into()),
            (Newline, format!("{fits}\n{long}\nb\n"), format!("0:{fits}|{}|83:b", oversize(41, 41))),
            (Newline, format!("{long}{long}\n{fits}"), format!("{}|83:{fits}|[rest]", oversize(0, 82))),
            (Newline, long.clone(), oversize(0, 41)),
            (Auto, "<13>a\n<14>b\n".into(), "0:<13>a|6:<14>b".into()),
            (
                Auto,
                "5 <13>a4 <1>b<15>c\n3 d\ne7 <16>f\n\n<17>g".into(),
                "0:<13>a|7:<1>b|13:<15>c|19:d\ne|24:<16>f\n|33:<17>g|[rest]".into(),
            ),
            (Auto, "\n\r\n\0<13>a\0<14>b\0\n".into(), "4:<13>a|10:<14>b".into()),
            (Auto, "0 is no count\n".into(), "0:0 is no count".into()),
            (Auto, "6 <1>a\r\n<2>b\n".into(), "0:<1>a|8:<2>b".into()),
            (Auto, "5 <1>a\r\n<2>b\n".into(), "0:<1>a\r|8:<2>b".into()),
            (Auto, "5 <1>a\n4 <2>b".into(), "0:<1>a|7:<2>b".into()),
            (Auto, "5 <1>a\0".into(), "0:<1>a".into()),
            (Auto, "2 \n\n4 <2>b".into(), "0:\n|4:<2>b".into()),
            (Auto, "2026-01-01 text\n<1>a\n".into(), " [an octet count is up to nine digits and a space]".into()),
            (Auto, "<1>a\n1234567890 x".into(), "0:<1>a [an octet count is up to nine digits and a space]".into()),
            (Auto, format!("40 {fits}41 {long}<1>a\n"), format!("0:{fits}|{}|87:<1>a", oversize(43, 41))),
            (Auto, "<1>a\n9 <2>b".into(), "0:<1>a|[Bad(\"it ended within a counted message\")]".into()),
            (Auto, "<1>a\n9".into(), "0:<1>a|[Bad(\"it ended within a counted message\")]".into()),
            (Auto, "999999999 x".into(), "[Bad(\"it ended within a counted message\")]".into()),
            (OctetCount, "3 a\nb\n2 cd".into(), "0:a\nb|6:cd".into()),
            (OctetCount, "3 abc<1>a\n".into(), "0:abc [an octet count begins with a digit from 1 to 9]".into()),
            (OctetCount, "03 abc".into(), " [an octet count begins with a digit from 1 to 9]".into()),
            (OctetCount, "3\tabc".into(), " [an octet count is up to nine digits and a space]".into()),
            (OctetCount, String::new(), String::new()),
        ];
        for (framing, stream, want) in &cases {
            let stream = stream.as_bytes();
            for at in 0..=stream.len() {
                let (head, tail) = stream.split_at(at);
                assert_eq!(&cut(*framing, [head, tail]), want, "{framing} split at {at}");
            }
            assert_eq!(&cut(*framing, stream.chunks(1)), want, "{framing} byte by byte");
        }
    }

    #[test]
    fn a_frame_without_room_is_found_again() {
        for (framing, stream) in [(Framing::Newline, "abc\nde\n"), (Framing::Auto, "3 abc2 de")] {
            for at in 0..stream.len() {
                let (mut deframer, mut told) = (Deframer::new(framing, MAX_FRAME), Vec::new());
                for mut piece in [&stream.as_bytes()[..at], &stream.as_bytes()[at..]] {
                    // Each frame is refused once.
                    let mut room = 0;
                    loop {
                        match deframer.next(&mut piece, room, &mut |_, frame: &[u8]| told.push(frame.to_vec())) {
                            Step::Full => room = 3,
                            Step::Frame => room = 0,
                            step => {
                                assert_eq!(step, Step::More);
                                break;
                            }
                        }
                    }
                }
                assert_eq!(told, [b"abc".to_vec(), b"de".to_vec()]);
            }
        }
        let mut deframer = Deframer::new(Framing::Newline, MAX_FRAME);
        assert_eq!(deframer.next(&mut b"abc".as_slice(), 0, &mut |_, _| unreachable!()), Step::More);
        assert!(!deframer.is_between_frames());
        assert_eq!(deframer.finish(2, &mut |_, _| unreachable!()), Step::Full);
        assert_eq!(deframer.finish(3, &mut |_, frame| assert_eq!(frame, b"abc")), Step::Frame);
        assert_eq!(deframer.finish(0, &mut |_, _| unreachable!()), Step::More);
    }

    #[test]
    fn a_name_is_read_back() {
        for framing in [Framing::Auto, Framing::Newline, Framing::OctetCount] {
            assert_eq!(framing.to_string().parse(), Ok(framing));
        }
        assert!("lines".parse::<Framing>().unwrap_err().contains("octet_count"));
    }
}
