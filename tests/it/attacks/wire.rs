//! HTTP/2 by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use crate::support::within;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_HEADERS: u8 = 4;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;

/// A POST to /, in HPACK.
pub(super) const POST: &[u8] = b"\x83\x86\x84\x41\x01a";

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header that is in no table, in HPACK: `x: aaa...`.
pub(super) fn header(length: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1, b'x', 0x7f];
    // The rest of the length, seven bits at a time.
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("small") | 0x80);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("small"));
    bytes.extend(vec![b'a'; length]);
    bytes
}

/// Writes frames, and keeps what the other side answers.
pub(super) struct Attacker {
    writer: OwnedWriteHalf,
    reader: JoinSet<Vec<u8>>,
}

impl Attacker {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await.expect("connected");
        let (reader, writer) = stream.into_split();
        let mut attacker = Self { writer, reader: JoinSet::from_iter([hear(reader)]) };
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &[])].concat();
        assert!(attacker.send(&hello).await, "a new connection takes its preface");
        attacker
    }

    /// Whether the bytes went out; not once the other side has hung up.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok()
    }

    /// Waits until the other side hangs up, and returns the code of its GOAWAY, if it sent one.
    pub(super) async fn goodbye(mut self) -> Option<u32> {
        let heard = within(self.reader.join_next()).await.expect("one").expect("no panic");
        let mut rest = heard.as_slice();
        while let Some((head, after)) = rest.split_at_checked(9) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (payload, next) = after.split_at_checked(length)?;
            if head[3] == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().expect("four")));
            }
            rest = next;
        }
        None
    }
}

async fn hear(mut reader: OwnedReadHalf) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = reader.read_to_end(&mut heard).await;
    heard
}
