//! Lines over a Unix stream, with a bound on their length and a deadline for the whole line, so
//! that a peer that sends one byte a minute cannot hold a connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Bytes that are read at once: a page of routes has a hundred thousand and more.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why no line came.
#[derive(Debug, Error)]
pub(super) enum LineError {
    /// The peer closed the connection between two lines.
    #[error("the connection was closed")]
    Closed,
    /// The peer closed the connection inside a line.
    #[error("the connection was closed in the middle of a line")]
    Truncated,
    #[error("the line is longer than {0} bytes")]
    TooLong(usize),
    #[error("no complete line came within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads lines and keeps what follows them.
pub(super) struct LineReader {
    stream: UnixStream,
    buffer: Vec<u8>,
    line_bytes_max: usize,
}

impl LineReader {
    pub(super) fn new(stream: UnixStream, line_bytes_max: usize) -> Self {
        Self { stream, buffer: Vec::new(), line_bytes_max }
    }

    /// The next line without its end. After an error other than [`LineError::Timeout`] the
    /// position in the stream is lost.
    pub(super) fn next(&mut self, timeout: Duration) -> Result<Vec<u8>, LineError> {
        let deadline = Instant::now() + timeout;
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                if line.len() > self.line_bytes_max {
                    return Err(LineError::TooLong(self.line_bytes_max));
                }
                return Ok(line);
            }
            searched = self.buffer.len();
            if searched > self.line_bytes_max {
                return Err(LineError::TooLong(self.line_bytes_max));
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(LineError::Timeout(timeout));
            }
            self.stream.set_read_timeout(Some(remaining))?;
            let mut chunk = [0; CHUNK_BYTES];
            match self.stream.read(&mut chunk) {
                Ok(0) if self.buffer.is_empty() => return Err(LineError::Closed),
                Ok(0) => return Err(LineError::Truncated),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(LineError::Timeout(timeout));
                    }
                    io::ErrorKind::ConnectionReset => return Err(LineError::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
    }
}

/// Writes `line` and its end. The peer must take each part of it within `timeout`.
pub(super) fn write_line(
    mut stream: &UnixStream,
    mut line: Vec<u8>,
    timeout: Duration,
) -> io::Result<()> {
    line.push(b'\n');
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    #[test]
    fn lines_may_come_in_pieces_or_together() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut reader = LineReader::new(far, 16);
        near.write_all(b"on").unwrap();
        assert!(matches!(reader.next(SHORT), Err(LineError::Timeout(_))));
        near.write_all(b"e\ntwo\n\nthree").unwrap();
        assert_eq!(reader.next(SHORT).unwrap(), b"one");
        assert_eq!(reader.next(SHORT).unwrap(), b"two");
        assert_eq!(reader.next(SHORT).unwrap(), b"");
        drop(near);
        assert!(matches!(reader.next(SHORT), Err(LineError::Truncated)));
    }

    #[test]
    fn the_bound_is_exact() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut reader = LineReader::new(far, 4);
        near.write_all(b"1234\n12345\n").unwrap();
        assert_eq!(reader.next(SHORT).unwrap(), b"1234");
        assert!(matches!(reader.next(SHORT), Err(LineError::TooLong(4))));
    }

    #[test]
    fn an_endless_line_ends_at_the_bound() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut reader = LineReader::new(far, 10_000);
        near.write_all(&[b'x'; 20_000]).unwrap();
        assert!(matches!(reader.next(SHORT), Err(LineError::TooLong(_))));
    }
}
