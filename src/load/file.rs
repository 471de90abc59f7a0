//! A file of tensors: open for as long as the model is, its bytes lent by memory map.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use crate::error::{Error, Result};

/// An open file. One that is put in its place under the same name, as downloads do, changes nothing for this one.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl TensorFile {
    /// Opens a file and asks for its length; reads nothing.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |cause| Error::Io { path: path.to_owned(), cause };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self { path: path.to_owned(), file, len })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// To read the file from its beginning.
    #[cfg(feature = "gguf")]
    pub fn reader(&self) -> std::io::BufReader<&File> {
        std::io::BufReader::new(&self.file)
    }

    /// Lends `len` bytes from `offset` on, where they lie: nothing is copied. What is lent counts as memory of this
    /// process until it is dropped, so a tensor at a time keeps that small.
    ///
    /// # Errors
    /// [`Error::File`] if the file has become shorter, [`Error::Io`] if it cannot be mapped.
    pub fn lend(&self, offset: u64, len: usize) -> Result<Mmap> {
        let io = |cause| Error::Io { path: self.path.clone(), cause };
        let now = self.file.metadata().map_err(io)?.len();
        if offset.checked_add(len as u64).is_none_or(|end| end > now) {
            let why = format!("is {now} bytes long, it was {} bytes long when it was opened", self.len);
            return Err(Error::File { path: self.path.clone(), why });
        }
        let mut options = MmapOptions::new();
        // Every byte is about to be read, so one call brings them all in, instead of a fault every few pages.
        options.offset(offset).len(len).populate();
        // SAFETY: the map is read-only, and nothing in this crate writes to a model's files. What no operating system
        // rules out is another process that changes the file while a tensor is being read: numbers that it overwrites
        // in place are then read in either state, and if it cuts the file off, the system ends this process (SIGBUS).
        // `load`'s documentation asks for files that nobody changes; the check above finds those cut off earlier.
        unsafe { options.map(&self.file) }.map_err(io)
    }
}
