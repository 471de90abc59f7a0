//! What stands between files and candle's GGUF reader: what it does not check itself, and the messages of what it does.

use std::io::{Error, Read, Result, Seek, SeekFrom};

use crate::load::file::TensorFile;

/// A tokenizer of half a million tokens takes some 16 MiB. candle holds each metadata value in an enum many times
/// a byte's size, so without a bound a damaged array length would make it allocate a multiple of the file.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Refuses what is no GGUF file, and files of the other byte order, which candle calls files of an unknown version.
///
/// A big-endian file begins with the same four letters; its version, read the wrong way round, is a large number whose
/// lower half is 0.
pub(super) fn check_magic(file: &TensorFile) -> crate::Result<()> {
    let why = match file.lend(0, file.len().min(8) as usize)?[..] {
        [b'G', b'G', b'U', b'F', 0, 0, high, low] if [high, low] != [0, 0] => {
            let version = u16::from_be_bytes([high, low]);
            format!("is a big-endian GGUF file (version {version}); only little-endian ones can be read")
        }
        [b'G', b'G', b'U', b'F', ..] => return Ok(()),
        _ => "does not begin with `GGUF`".into(),
    };
    Err(crate::Error::File { path: file.path().to_owned(), why })
}

/// What an error of candle's says, without the backtrace that it appends where `RUST_BACKTRACE` is set: a message is to
/// be the same, and one line, whatever the environment.
pub(super) fn message(error: candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => message(*inner),
        candle_core::Error::Context { inner, context } => format!("{context}: {}", message(*inner)),
        candle_core::Error::WithPath { inner, path } => format!("{}: {}", path.display(), message(*inner)),
        other => other.to_string(),
    }
}

/// Passes reads through and fails those after which candle (0.11) would divide by an alignment of 0, or that lie
/// beyond any plausible header.
///
/// candle reads keys, type tags and values by one exact read each, which is what makes the alignment visible here.
pub(super) struct HeaderGuard<R> {
    inner: R,
    position: u64,
    alignment: Alignment,
}

/// How far the read of `general.alignment` has come.
enum Alignment {
    Elsewhere,
    KeyRead,
    TypeRead,
}

impl<R> HeaderGuard<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, position: 0, alignment: Alignment::Elsewhere }
    }

    fn watch(&mut self, bytes: &[u8]) -> Result<()> {
        // candle drops trailing zeros of a key.
        let without_zeros = bytes.iter().rposition(|&b| b != 0).map_or(&[][..], |last| bytes.split_at(last + 1).0);
        self.alignment = match self.alignment {
            _ if without_zeros == b"general.alignment" => Alignment::KeyRead,
            Alignment::KeyRead if bytes.len() == 4 => Alignment::TypeRead,
            Alignment::TypeRead if bytes.len() <= 4 && without_zeros.is_empty() => {
                return Err(Error::other("general.alignment is 0"));
            }
            _ => Alignment::Elsewhere,
        };
        Ok(())
    }
}

impl<R: Read> Read for HeaderGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        // `read_exact` instead of `read`: a value split over two buffers must still be seen as one.
        if self.position + buffer.len() as u64 > MAX_HEADER_BYTES {
            return Err(Error::other(format!("the header is longer than {MAX_HEADER_BYTES} bytes")));
        }
        self.inner.read_exact(buffer)?;
        self.position += buffer.len() as u64;
        self.watch(buffer)?;
        Ok(buffer.len())
    }
}

impl<R: Seek> Seek for HeaderGuard<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.position = self.inner.seek(to)?;
        Ok(self.position)
    }

    fn stream_position(&mut self) -> Result<u64> {
        Ok(self.position)
    }
}
