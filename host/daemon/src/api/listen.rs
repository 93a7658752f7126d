//! The door of the server: what a connection may be and do before it is shut.
//!
//! The server reads only; whoever connects is a scraper, a probe or a person, and none of them needs long or says much.
//! When the room is full the oldest connection gives way to the newest, so that nobody can keep others out by doing
//! nothing.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time: a few scrapers and probes, with room for mistakes; each costs some 10 kB.
const CONNECTIONS_MAX: usize = 32;

/// Bytes a client may send without an answer: a request of ours is one line and some headers.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// Time without an answer after which a connection is shut: no scraper needs as long to ask or to read, and one that
/// comes again later connects anew.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Pause when no connection can be accepted, as when all files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// What is said to a client that asks too much.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Accepts connections.
pub(super) struct Door {
    listener: TcpListener,
    /// One for each connection that was let in, the oldest first; one that is dropped shows its guest out.
    inside: VecDeque<oneshot::Sender<()>>,
}

/// A connection with its limits.
pub(super) struct Guest {
    stream: TcpStream,
    shown_out: oneshot::Receiver<()>,
    /// When it is shut.
    until: Pin<Box<Sleep>>,
    /// Bytes since the last answer.
    asked: usize,
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Self {
        Door { listener, inside: VecDeque::new() }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.inside.retain(|guest| !guest.is_closed());
                    if self.inside.len() >= CONNECTIONS_MAX {
                        self.inside.pop_front();
                    }
                    let (sender, shown_out) = oneshot::channel();
                    self.inside.push_back(sender);
                    let until = Box::pin(sleep(SILENCE_MAX));
                    return (Guest { stream, shown_out, until, asked: 0 }, address);
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Guest {
    /// Whether its time is over.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if Pin::new(&mut self.shown_out).poll(cx).is_ready() {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "it gave way to a newer connection"));
        }
        if self.until.as_mut().poll(cx).is_ready() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.asked += buf.filled().len() - before;
        if self.asked > REQUEST_BYTES_MAX {
            // A client that does not listen misses nothing it would have heeded.
            let _ = self.stream.try_write(TOO_LARGE);
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "the request is too large")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.asked = 0;
        self.until.as_mut().reset(Instant::now() + SILENCE_MAX);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
