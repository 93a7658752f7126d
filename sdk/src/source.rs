//! A source cuts what a transport delivers into frames.

use crate::frame::{Batch, Frame};
use crate::wit::source::exports::hb::plugin::produce::Polled as Answer;
use crate::wit::types::{Fault, Frames, Reject};

/// What the author of a source writes. Put it into the world with [`export_source!`](crate::export_source).
pub trait Source: Sized {
    /// Makes the plugin of its settings, a JSON text that the manifest's schema has accepted.
    fn configure(settings: &str) -> Result<Self, Fault>;

    /// Takes up the position of the last committed cursor, if there is one.
    fn open(&mut self, resume: Option<&[u8]>) -> Result<(), Fault>;

    /// Takes what waits in the inbox, front to back, and says what became of it.
    fn poll(&mut self, inbox: Inbox, out: &mut Polled) -> Result<(), Fault>;

    /// Learns that everything up to this cursor is durable.
    fn committed(&mut self, cursor: &[u8]) -> Result<(), Fault> {
        let _ = cursor;
        Ok(())
    }
}

/// What waits on the granted transport, and how much may go out in answer.
pub struct Inbox {
    columns: Frames,
    max_frames: u32,
    max_bytes: u32,
}

impl Inbox {
    /// The waiting frames.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.columns)
    }

    /// All payloads, back to back: for a check over all of them at once.
    pub fn data(&self) -> &[u8] {
        &self.columns.data
    }

    /// How many bytes the batch may hold.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes as usize
    }

    /// How many frames the batch may hold.
    pub fn max_frames(&self) -> usize {
        self.max_frames as usize
    }
}

/// What a poll yields. Frames of the inbox are taken from front to back, by the calls that name them.
pub struct Polled {
    answer: Answer,
    max_frames: usize,
    max_bytes: usize,
}

impl Polled {
    /// Whether a frame of `len` more bytes still fits. The first one always does.
    pub fn has_room(&self, len: usize) -> bool {
        let batch = &self.answer.batch;
        batch.ends.is_empty() || (batch.ends.len() < self.max_frames && batch.data.len() + len <= self.max_bytes)
    }

    /// Makes a frame of the bytes that `write` appends, with receive time and origin of an inbox frame.
    /// Appends nothing when `write` fails.
    pub fn frame_with<E>(
        &mut self,
        of: &Frame<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let batch = &mut self.answer.batch;
        let start = batch.data.len();
        if let Err(e) = write(&mut batch.data) {
            batch.data.truncate(start);
            return Err(e);
        }
        self.seal(of.received_ns, of.origin);
        Ok(())
    }

    /// Makes a frame of these bytes.
    pub fn frame(&mut self, bytes: &[u8], received_ns: i64, origin: &str) {
        self.answer.batch.data.extend_from_slice(bytes);
        self.seal(received_ns, origin);
    }

    /// Takes a whole frame of the inbox.
    pub fn take(&mut self, frame: &Frame<'_>) {
        self.answer.consumed[frame.index as usize] = frame.bytes.len() as u64;
    }

    /// Takes the first bytes of a frame; what remains is offered again, with what follows.
    pub fn take_part(&mut self, frame: &Frame<'_>, bytes: usize) {
        self.answer.consumed[frame.index as usize] = bytes as u64;
    }

    /// Takes a whole frame of the inbox and says that it makes no sense.
    pub fn reject(&mut self, frame: &Frame<'_>, reason: impl Into<String>) {
        self.take(frame);
        self.answer.rejects.push(Reject { frame: frame.index, reason: reason.into() });
    }

    /// Takes the whole inbox as it is: every frame of it becomes a frame of the batch, without a copy.
    pub fn pass_through(&mut self, inbox: Inbox) {
        let mut last = 0;
        for (taken, &end) in self.answer.consumed.iter_mut().zip(&inbox.columns.ends) {
            *taken = u64::from(end - last);
            last = end;
        }
        self.answer.batch = inbox.columns;
    }

    /// Sets the resume position. Not called: as before.
    pub fn cursor(&mut self, cursor: Vec<u8>) {
        self.answer.cursor = Some(cursor);
    }

    /// Asks not to be polled earlier than this.
    pub fn next_poll_ms(&mut self, ms: u32) {
        self.answer.next_poll_ms = ms;
    }

    fn seal(&mut self, received_ns: i64, origin: &str) {
        let batch = &mut self.answer.batch;
        batch.ends.push(batch.data.len() as u32);
        batch.received_ns.push(received_ns);
        // Origins come in runs, so the last one is nearly always the one.
        let known = batch.origin.last().is_some_and(|&last| batch.origins[usize::from(last)] == origin);
        let id = if known {
            batch.origin[batch.origin.len() - 1]
        } else {
            let id = batch.origins.iter().position(|o| o == origin).unwrap_or_else(|| {
                batch.origins.push(origin.to_owned());
                batch.origins.len() - 1
            });
            id as u16
        };
        batch.origin.push(id);
    }
}

#[doc(hidden)]
pub fn poll<S: Source>(plugin: &mut S, columns: Frames, max_frames: u32, max_bytes: u32) -> Result<Answer, Fault> {
    let waiting = columns.ends.len();
    let batch = Frames { data: vec![], ends: vec![], received_ns: vec![], origin: vec![], origins: vec![] };
    let answer = Answer { batch, rejects: vec![], consumed: vec![0; waiting], cursor: None, next_poll_ms: 0 };
    let mut out = Polled { answer, max_frames: max_frames as usize, max_bytes: max_bytes as usize };
    plugin.poll(Inbox { columns, max_frames, max_bytes }, &mut out)?;
    Ok(out.answer)
}

/// Exports a type that implements [`Source`] as the component's source. Once per crate.
#[macro_export]
macro_rules! export_source {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::glue::Slot<$plugin> = const { $crate::glue::Slot::new(None) };
            }
            struct Component;
            impl $crate::wit::source::exports::hb::plugin::produce::Guest for Component {
                fn configure(settings: ::std::string::String) -> ::std::result::Result<(), $crate::Fault> {
                    SLOT.with(|slot| {
                        $crate::glue::configure(slot, || <$plugin as $crate::Source>::configure(&settings))
                    })
                }
                fn open(
                    resume: ::std::option::Option<::std::vec::Vec<u8>>,
                ) -> ::std::result::Result<(), $crate::Fault> {
                    SLOT.with(|slot| $crate::glue::with(slot, |plugin| $crate::Source::open(plugin, resume.as_deref())))
                }
                fn poll(
                    inbox: $crate::wit::types::Frames,
                    max_frames: u32,
                    max_bytes: u32,
                ) -> ::std::result::Result<$crate::wit::source::exports::hb::plugin::produce::Polled, $crate::Fault>
                {
                    SLOT.with(|slot| {
                        $crate::glue::with(slot, |plugin| {
                            $crate::glue::source_poll(plugin, inbox, max_frames, max_bytes)
                        })
                    })
                }
                fn committed(cursor: ::std::vec::Vec<u8>) -> ::std::result::Result<(), $crate::Fault> {
                    SLOT.with(|slot| $crate::glue::with(slot, |plugin| $crate::Source::committed(plugin, &cursor)))
                }
            }
            // The names of the component ABI mean nothing to a native linker.
            #[cfg(target_arch = "wasm32")]
    $crate::wit::source::export!(Component with_types_in $crate::wit::source);
        };
    };
}
