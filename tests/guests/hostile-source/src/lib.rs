//! hostile-source is a source that misbehaves as its settings tell, so that tests can watch the host cope.
//!
//! The settings are one JSON string, the mode. An inbox frame is "bad" when its payload is the word `bad`. Without an
//! inbox it counts: each poll yields the next number as a frame and as its cursor.

use std::cell::{Cell, RefCell};
use std::hint::black_box;

use hb_sdk::wit::source::exports::hb::plugin::produce::{Guest, Polled};
use hb_sdk::wit::types::{Fault, Frames, Reject};

thread_local! {
    static MODE: RefCell<String> = const { RefCell::new(String::new()) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The component. It speaks the raw columns, because the SDK would not let it misbehave.
pub struct HostileSource;

impl Guest for HostileSource {
    fn configure(settings: String) -> Result<(), Fault> {
        MODE.set(settings.trim_matches('"').to_owned());
        Ok(())
    }

    fn open(resume: Option<Vec<u8>>) -> Result<(), Fault> {
        let text = String::from_utf8(resume.unwrap_or_else(|| b"0".to_vec())).unwrap_or_default();
        COUNT.set(text.parse().map_err(|_| Fault::Fatal(format!("no cursor: {text:?}")))?);
        Ok(())
    }

    fn poll(inbox: Frames, _max_frames: u32, _max_bytes: u32) -> Result<Polled, Fault> {
        let mode = MODE.with_borrow(Clone::clone);
        let mut out = Polled {
            batch: Frames { data: vec![], ends: vec![], received_ns: vec![], origin: vec![], origins: inbox.origins },
            rejects: vec![],
            consumed: vec![],
            cursor: None,
            next_poll_ms: 0,
        };
        if inbox.ends.is_empty() {
            count(&mode, &mut out);
        }
        let mut start = 0;
        for (i, &end) in inbox.ends.iter().enumerate() {
            let payload = &inbox.data[start..end as usize];
            start = end as usize;
            let bad = payload == b"bad";
            match mode.as_str() {
                "panic" if bad => panic!("hostile panic"),
                "spin" if bad => spin(),
                "retry" if bad => return Err(Fault::RetryAfterMs((70, "the world is not ready".to_owned()))),
                "eat_too_much" if bad => {
                    out.consumed.push(1_000);
                    continue;
                }
                // Leaves the rest, or (against the contract) takes what follows all the same.
                "partly" | "skip" if bad => {
                    out.consumed.push(1);
                    if mode == "partly" {
                        out.consumed.resize(inbox.ends.len(), 0);
                        return Ok(out);
                    }
                    continue;
                }
                "reject" if bad => {
                    out.rejects.push(Reject { frame: i as u32, reason: "bad\u{1b}".to_owned() });
                    out.consumed.push(payload.len() as u64);
                    continue;
                }
                // An empty frame that ends far beyond the data, before a good one.
                "falling_ends" if bad => {
                    push(&mut out.batch, b"", 0, 0);
                    out.batch.ends.iter_mut().next_back().into_iter().for_each(|end| *end += 1_000);
                }
                _ => {}
            }
            out.consumed.push(payload.len() as u64);
            push(&mut out.batch, payload, inbox.received_ns[i], inbox.origin[i]);
        }
        Ok(out)
    }

    fn committed(_cursor: Vec<u8>) -> Result<(), Fault> {
        Ok(())
    }
}

fn count(mode: &str, out: &mut Polled) {
    let n = COUNT.get() + 1;
    COUNT.set(n);
    assert!(mode != "panic" || !n.is_multiple_of(3), "panic at {n}");
    out.batch.origins = vec!["count".to_owned()];
    let frames = if mode == "too_many" { 1_000 } else { 1 };
    for _ in 0..frames {
        push(&mut out.batch, n.to_string().as_bytes(), 0, 0);
    }
    out.cursor = Some(if mode == "huge_cursor" { vec![0; 1 << 20] } else { n.to_string().into_bytes() });
}

fn push(batch: &mut Frames, payload: &[u8], received_ns: i64, origin: u16) {
    batch.data.extend_from_slice(payload);
    batch.ends.push(batch.data.len() as u32);
    batch.received_ns.push(received_ns);
    batch.origin.push(origin);
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = black_box(x.wrapping_add(1));
    }
}

#[cfg(target_arch = "wasm32")]
hb_sdk::wit::source::export!(HostileSource with_types_in hb_sdk::wit::source);
