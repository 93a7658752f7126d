//! Datagrams and streams to the addresses that the operator granted; the host keeps the connections.

use crate::Failure;

/// Sends one datagram, or appends to the stream; the host adds no framing.
pub fn send(address: &str, bytes: &[u8]) -> Result<(), Failure> {
    host::send(address, bytes)
}

/// Whether [`send`] would be allowed. Ask in `configure`: then the operator hears of it at the start.
pub fn granted(address: &str) -> Result<(), String> {
    host::granted(address)
}

#[cfg(target_arch = "wasm32")]
mod host {
    pub(super) use crate::wit::socket::{granted, send};
}

#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) use crate::testkit::host::{socket_granted as granted, socket_send as send};
}
