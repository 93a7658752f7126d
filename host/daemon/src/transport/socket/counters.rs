//! What a socket counts. Any thread may look while another reads.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::transport::RawFrames;

/// The counters of one socket.
#[derive(Debug, Default)]
pub struct SocketCounters {
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) connections_total: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) oversize: AtomicU64,
    pub(super) bad_framing: AtomicU64,
    pub(super) truncated: AtomicU64,
    pub(super) max_connections: u64,
    pub(super) receive_buffer_bytes: u64,
    pub(super) udp: Option<KernelDrops>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketStatus {
    /// Frames handed out.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections accepted since the socket was opened.
    pub connections_total: u64,
    /// Connections refused because there were too many, or because hb could open no more files.
    pub refused: u64,
    /// Frames of streams that were longer than the limit.
    pub oversize: u64,
    /// Connections closed by hb, since what came was cut off or broke the framing.
    pub bad_framing: u64,
    /// Datagrams that were longer than the limit.
    pub truncated: u64,
    /// Most connections at a time; 0 for datagrams.
    pub max_connections: u64,
    /// Room the kernel gave for UDP datagrams; 0 for everything else. `net.core.rmem_max` limits it.
    pub receive_buffer_bytes: u64,
}

impl SocketCounters {
    /// All of them now.
    pub fn status(&self) -> SocketStatus {
        SocketStatus {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_total: self.connections_total.load(Relaxed),
            refused: self.refused.load(Relaxed),
            oversize: self.oversize.load(Relaxed),
            bad_framing: self.bad_framing.load(Relaxed),
            truncated: self.truncated.load(Relaxed),
            max_connections: self.max_connections,
            receive_buffer_bytes: self.receive_buffer_bytes,
        }
    }

    /// Datagrams the kernel dropped because nobody read them in time, or because their checksum was wrong. None where
    /// that cannot be told: other sockets wait, they do not drop. It reads a file of the kernel with a line for each UDP
    /// socket of the machine, so it is asked for when somebody looks, not for each batch.
    pub fn kernel_drops(&self) -> Option<u64> {
        self.udp.as_ref()?.read()
    }

    pub(super) fn handed_out(&self, out: &RawFrames) {
        if !out.is_empty() {
            self.frames.fetch_add(out.len() as u64, Relaxed);
            self.bytes.fetch_add(out.data.len() as u64, Relaxed);
        }
    }
}

pub(super) fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The kernel's own count of what it dropped at one UDP socket.
#[derive(Debug)]
pub(super) struct KernelDrops {
    inode: u64,
    table: &'static str,
    /// The last that was read: it stays when the socket is gone.
    last: Mutex<Option<u64>>,
}

impl KernelDrops {
    pub(super) fn new(inode: u64, is_v6: bool) -> Self {
        // Of the thread that reads: another thread could be in another network namespace.
        let table = if is_v6 { "/proc/thread-self/net/udp6" } else { "/proc/thread-self/net/udp" };
        KernelDrops { inode, table, last: Mutex::new(None) }
    }

    fn read(&self) -> Option<u64> {
        let table = fs::read_to_string(self.table).unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(drops) = drops_in(&table, self.inode) {
            // The kernel counts in 32 bits and begins again at 0.
            let before = last.unwrap_or(0);
            *last = Some(before + u64::from(drops.wrapping_sub(before as u32)));
        }
        *last
    }
}

/// The column `drops` of the line with this inode.
fn drops_in(table: &str, inode: u64) -> Option<u32> {
    const INODE_COLUMN: usize = 9;
    let inode = inode.to_string();
    let line = table.lines().skip(1).find(|line| line.split_ascii_whitespace().nth(INODE_COLUMN) == Some(&inode))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_of_one_inode_are_found() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 316: 0100007F:1589 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 9\n\
            12345: 00000000:0202 00000000:0000 07 00000000:00034500 00:00000000 00000000     0        0 471 2 0000000000000000 4294967295\n";
        assert_eq!(drops_in(table, 4711), Some(9));
        assert_eq!(drops_in(table, 471), Some(u32::MAX));
        assert_eq!(drops_in(table, 47), None);
        assert_eq!(drops_in("", 471), None);
    }
}
