//! Device memory for inputs and outputs: several copies of each, so that a timed launch finds nothing in the L2 cache.

use anyhow::Result;
use half::bf16;
use latent_attention::device::{Buffer, Device, Element, Tensor, View, ViewMut};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Copies begin on multiples of so many elements: 16 bytes at least.
const ALIGNMENT: usize = 128;

/// Random numbers, of which all others are repetitions.
const TABLE: usize = 1 << 16;

/// Numbers in -1..1, the same in each run. Zeros would be faster: rates depend on how many bits change.
pub fn random_numbers() -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    (0..TABLE).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// `len` elements that repeat a table.
pub fn repeated<T: Element>(table: &[T], len: usize) -> Vec<T> {
    let mut values = table.repeat(len / table.len());
    values.extend_from_slice(&table[..len % table.len()]);
    values
}

/// A tensor's place among the inputs of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: usize,
    sizes: [usize; 3],
}

/// The bf16 inputs of one launch, one after the other.
#[derive(Debug, Default)]
pub struct Inputs {
    len: usize,
}

impl Inputs {
    /// Adds a dense tensor.
    pub fn tensor(&mut self, sizes: [usize; 3]) -> Span {
        let start = self.len;
        self.len = (start + sizes.iter().product::<usize>()).next_multiple_of(ALIGNMENT);
        Span { start, sizes }
    }
}

/// Random bf16 numbers that inputs are cut from.
pub struct Numbers {
    device: Device,
    buffer: Buffer<bf16>,
    stride: usize,
}

impl Numbers {
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { device: device.clone(), buffer: device.allocate(0)?, stride: 0 })
    }

    /// Makes room for `copies` copies of the inputs of a launch.
    pub fn arrange(&mut self, inputs: &Inputs, copies: usize) -> Result<()> {
        self.stride = inputs.len;
        let len = self.stride * copies;
        if len > self.buffer.len() {
            // The old memory first.
            self.buffer = self.device.allocate(0)?;
            let table: Vec<bf16> = random_numbers().into_iter().map(bf16::from_f32).collect();
            self.buffer = self.device.upload(&repeated(&table, len))?;
        }
        Ok(())
    }

    /// An input of one of the copies.
    pub fn tensor(&self, copy: usize, span: &Span) -> latent_attention::Result<Tensor<'_, bf16>> {
        let start = copy * self.stride + span.start;
        let len: usize = span.sizes.iter().product();
        Tensor::dense(self.buffer.view().slice(start..start + len)?, span.sizes)
    }
}

/// Copies of one array in memory of its own.
pub struct Copies<T: Element> {
    buffer: Buffer<T>,
    len: usize,
}

impl<T: Element> Copies<T> {
    /// Memory for outputs, which may hold anything.
    pub fn new(device: &Device, len: usize, copies: usize) -> Result<Self> {
        Ok(Self { buffer: device.allocate(copies * len.next_multiple_of(ALIGNMENT))?, len })
    }

    /// Inputs that repeat a table.
    pub fn repeating(device: &Device, table: &[T], len: usize, copies: usize) -> Result<Self> {
        let buffer = device.upload(&repeated(table, copies * len.next_multiple_of(ALIGNMENT)))?;
        Ok(Self { buffer, len })
    }

    pub fn view(&self, copy: usize) -> latent_attention::Result<View<'_, T>> {
        self.buffer.view().slice(self.range(copy))
    }

    pub fn view_mut(&mut self, copy: usize) -> latent_attention::Result<ViewMut<'_, T>> {
        let range = self.range(copy);
        self.buffer.view_mut().slice(range)
    }

    fn range(&self, copy: usize) -> std::ops::Range<usize> {
        let start = copy * self.len.next_multiple_of(ALIGNMENT);
        start..start + self.len
    }
}
