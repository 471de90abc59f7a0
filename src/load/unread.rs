//! Tensors of a layer that were left out when it was read.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::blocks::QuantizedMatrix;
use super::source::{TensorSource, unfit};
use crate::error::Result;

/// Buffers that old checkpoints keep in every layer. They follow from the configuration.
const BUFFERS: &str = ".rotary_emb.";

/// A source that remembers what was read from it. A tensor that nobody reads, such as a norm on the heads' queries,
/// is a step of the model that would be missing here, so that all outputs would be wrong and nothing would say so.
pub(crate) struct Recording<'a> {
    source: &'a dyn TensorSource,
    read: Mutex<HashSet<String>>,
}

impl<'a> Recording<'a> {
    pub fn new(source: &'a dyn TensorSource) -> Self {
        Self { source, read: Mutex::default() }
    }

    /// Refuses the first of `present` that was not read; `reader` is who would have had to.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) with the tensor's name and shape.
    pub fn refuse_unread<'n>(&self, present: impl Iterator<Item = &'n str>, reader: &str) -> Result<()> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = present.filter(|name| !name.contains(BUFFERS)).find(|name| !read.contains(*name));
        let Some(name) = unread else { return Ok(()) };
        let expected = format!("no such tensor, as {reader} makes no use of it");
        let shape = self.source.shape(name).map(|shape| format!("{shape:?}"));
        Err(unfit(self.source.path(), name, expected, shape))
    }

    /// Counts a tensor as read that is read later.
    pub fn leave_for_later(&self, name: &str) {
        self.record(name);
    }

    fn record(&self, name: &str) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }
}

impl TensorSource for Recording<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.record(name);
        self.source.read(name, shape)
    }

    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        self.record(name);
        self.source.read_integers(name, shape)
    }

    fn read_one_of(&self, name: &str, shape: [usize; 3], index: usize) -> Result<Vec<f32>> {
        self.record(name);
        self.source.read_one_of(name, shape, index)
    }

    fn read_blocks(&self, name: &str, rows: usize, cols: usize) -> Result<Option<QuantizedMatrix>> {
        self.record(name);
        self.source.read_blocks(name, rows, cols)
    }
}
