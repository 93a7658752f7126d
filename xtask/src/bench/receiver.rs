//! An HTTP server that takes every request, and notes when each was complete. It ends with the process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// A request: when its last byte was here, and its body.
pub(super) struct Heard {
    pub(super) at: SystemTime,
    pub(super) body: Vec<u8>,
}

/// Starts one; its port, and what it hears.
pub(super) fn start() -> Result<(u16, Receiver<Heard>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            // A client that goes away in the middle sends again.
            std::thread::spawn(move || serve(stream, &sender));
        }
    });
    Ok((port, heard))
}

/// Answers one connection until it is closed.
fn serve(stream: TcpStream, sender: &Sender<Heard>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().context("content-length")?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        sender.send(Heard { at: SystemTime::now(), body })?;
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
