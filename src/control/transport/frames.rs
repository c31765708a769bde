//! Frames and introductions on a socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use chronik_shards::format::metadata_frame::{FRAME_HEADER_BYTES, open, seal};
use chronik_shards::model::NodeId;

use crate::control::acquaintance::{Acquaintance, Introduction, Stranger};
use crate::control::peer_message::{MAGIC, PeerMessage, VERSION, kind};

/// Largest frame: a snapshot of the metadata at its bounds stays far below.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 20;
/// Largest frame of somebody who has not said who it is.
const INTRODUCTION_FRAME_BYTES_MAX: usize = 1024;
/// How long an introduction may take.
const INTRODUCTION_PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no conversation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The peer is not one.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// The peer does not take this node for one.
    #[error("it refuses: {0}")]
    ByPeer(String),
    /// The peer knows, by the metadata at that log index, that this node is not of the cluster any more.
    #[error("it says that this node is not of the cluster any more")]
    Gone { applied: u64 },
    /// What came is no introduction.
    #[error("it does not speak as a control plane: {0}")]
    Protocol(String),
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Says who this is to `peer`, and hears who that is.
pub(super) fn greet(
    stream: &mut TcpStream,
    acquaintance: &Acquaintance,
    peer: NodeId,
) -> Result<(), Refused> {
    patiently(stream, |stream| {
        let hello = acquaintance.introduce(peer).encode();
        stream.write_all(&seal(MAGIC, kind::HELLO, VERSION, &hello))?;
        let (kind, body) = read_introduction(stream)?;
        match kind {
            kind::WELCOME => {
                let them = introduction(&body)?;
                if them.node_id != peer {
                    return Err(Stranger::NotMe { this: them.node_id, meant: peer }.into());
                }
                Ok(acquaintance.judge(&them)?)
            }
            kind::REFUSAL => Err(Refused::ByPeer(String::from_utf8_lossy(&body).into_owned())),
            kind::GONE => match body.try_into() {
                Ok(applied) => Err(Refused::Gone { applied: u64::from_le_bytes(applied) }),
                Err(_) => Err(Refused::Protocol("a refusal without a log index".to_owned())),
            },
            other => Err(Refused::Protocol(format!("a frame of kind {other}"))),
        }
    })
}

/// Hears who connected, and says who this is or why there will be no conversation.
pub(super) fn receive(
    stream: &mut TcpStream,
    acquaintance: &Acquaintance,
) -> Result<NodeId, Refused> {
    patiently(stream, |stream| {
        let (kind, body) = read_introduction(stream)?;
        if kind != kind::HELLO {
            return Err(Refused::Protocol(format!("a frame of kind {kind}")));
        }
        let them = introduction(&body)?;
        if let Err(stranger) = acquaintance.judge(&them) {
            let refusal = match &stranger {
                Stranger::Gone { applied, .. } => {
                    seal(MAGIC, kind::GONE, VERSION, &applied.to_le_bytes())
                }
                other => seal(MAGIC, kind::REFUSAL, VERSION, other.to_string().as_bytes()),
            };
            stream.write_all(&refusal)?;
            return Err(stranger.into());
        }
        let welcome = acquaintance.introduce(them.node_id).encode();
        stream.write_all(&seal(MAGIC, kind::WELCOME, VERSION, &welcome))?;
        Ok(them.node_id)
    })
}

/// Reads a message of a peer that has introduced itself.
pub(super) fn read_message(stream: &mut TcpStream) -> io::Result<PeerMessage> {
    let bytes = read_frame(stream, FRAME_BYTES_MAX)?;
    let frame = open(MAGIC, &bytes).map_err(invalid)?;
    PeerMessage::decode(&frame).map_err(invalid)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn patiently<T>(
    stream: &mut TcpStream,
    talk: impl FnOnce(&mut TcpStream) -> Result<T, Refused>,
) -> Result<T, Refused> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(INTRODUCTION_PATIENCE))?;
    stream.set_write_timeout(Some(INTRODUCTION_PATIENCE))?;
    let result = talk(stream)?;
    stream.set_read_timeout(None)?;
    Ok(result)
}

fn read_introduction(stream: &mut TcpStream) -> Result<(u16, Vec<u8>), Refused> {
    let bytes = read_frame(stream, INTRODUCTION_FRAME_BYTES_MAX)?;
    let frame = open(MAGIC, &bytes).map_err(|error| Refused::Protocol(error.to_string()))?;
    if frame.version != VERSION {
        return Err(Refused::Protocol(format!("version {}", frame.version)));
    }
    Ok((frame.kind, frame.body.to_vec()))
}

fn introduction(body: &[u8]) -> Result<Introduction, Refused> {
    let short = || Refused::Protocol(format!("an introduction of {} bytes", body.len()));
    Introduction::decode(body).ok_or_else(short)
}

/// Reads one frame of at most `bytes_max`; memory follows what has come, not what is announced.
fn read_frame(stream: &mut impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut frame)?;
    let word = |at: usize| {
        u32::from_le_bytes(frame[at..at + 4].try_into().expect("four bytes of the header"))
    };
    if word(0) != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame of a control plane"));
    }
    let body_bytes = word(8) as usize;
    if FRAME_HEADER_BYTES + body_bytes > bytes_max {
        let reason = format!("a frame of {body_bytes} bytes where {bytes_max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let read = stream.take(body_bytes as u64).read_to_end(&mut frame)?;
    if read < body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_whole_or_not_at_all() {
        let bytes = seal(MAGIC, kind::RAFT, VERSION, b"body");
        assert_eq!(read_frame(&mut &bytes[..], 20).unwrap(), bytes);
        for end in 0..bytes.len() {
            let error = read_frame(&mut &bytes[..end], 20).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end} bytes");
        }
        let too_long = read_frame(&mut &bytes[..], 19).unwrap_err();
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidData);
        let other = seal(MAGIC + 1, kind::RAFT, VERSION, b"body");
        assert_eq!(read_frame(&mut &other[..], 20).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn memory_follows_what_has_come() {
        let mut bytes = seal(MAGIC, kind::RAFT, VERSION, b"body");
        bytes[8..12].copy_from_slice(&(FRAME_BYTES_MAX as u32 - 16).to_le_bytes());
        struct Counted<'a>(&'a [u8], usize);
        impl Read for Counted<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 = self.1.max(buffer.len());
                self.0.read(buffer)
            }
        }
        let mut counted = Counted(&bytes, 0);
        assert!(read_frame(&mut counted, FRAME_BYTES_MAX).is_err());
        assert!(counted.1 <= 1 << 20, "a buffer of {} bytes for 20 that came", counted.1);
    }
}
