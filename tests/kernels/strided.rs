//! Tensors with gaps, which hold a NaN.

use half::bf16;
use latent_attention::device::{Buffer, Device, Shape, Tensor, TensorMut};

/// What lies between rows, before the first and behind the last.
const POISON: u16 = 0x7FFF;

/// `[outer, middle, inner]` numbers of bf16 on a device.
pub struct Strided {
    buffer: Buffer<bf16>,
    shape: Shape,
    /// Elements before the first.
    shift: usize,
}

impl Strided {
    /// `gaps[0]` elements behind each outer index, `gaps[1]` behind each row.
    pub fn new(device: &Device, values: &[f32], sizes: [usize; 3], gaps: [usize; 2], shift: usize) -> Self {
        let row = sizes[2] + gaps[1];
        let shape = Shape { sizes, strides: [sizes[1] * row + gaps[0], row] };
        let mut elements = vec![bf16::from_bits(POISON); shift + sizes[0] * shape.strides[0] + 1];
        assert_eq!(values.len(), sizes.iter().product::<usize>());
        for (place, &value) in places(shape, shift).zip(values) {
            elements[place] = bf16::from_f32(value);
        }
        Self { buffer: device.upload(&elements).unwrap(), shape, shift }
    }

    /// For a kernel to fill.
    pub fn empty(device: &Device, sizes: [usize; 3], gaps: [usize; 2], shift: usize) -> Self {
        Self::new(device, &vec![f32::from_bits(u32::from(POISON) << 16); sizes.iter().product()], sizes, gaps, shift)
    }

    pub fn tensor(&self) -> Tensor<'_, bf16> {
        Tensor::new(self.buffer.view().slice(self.shift..).unwrap(), self.shape).unwrap()
    }

    pub fn tensor_mut(&mut self) -> TensorMut<'_, bf16> {
        TensorMut::new(self.buffer.view_mut().slice(self.shift..).unwrap(), self.shape).unwrap()
    }

    /// The numbers. Panics if anything between them has changed.
    #[track_caller]
    pub fn take(&self) -> Vec<bf16> {
        let mut elements = self.buffer.to_vec().unwrap();
        let poison = bf16::from_bits(POISON);
        let taken =
            places(self.shape, self.shift).map(|place| std::mem::replace(&mut elements[place], poison)).collect();
        assert!(elements.iter().all(|element| element.to_bits() == POISON), "wrote outside of the tensor");
        taken
    }
}

/// Whether a number is that which was there before.
pub fn is_untouched(number: bf16) -> bool {
    number.to_bits() == POISON
}

/// Where each element lies, in order.
fn places(shape: Shape, shift: usize) -> impl Iterator<Item = usize> {
    let Shape { sizes: [outer, middle, inner], strides } = shape;
    (0..outer * middle * inner).map(move |i| {
        let (row, k) = (i / inner, i % inner);
        shift + row / middle * strides[0] + row % middle * strides[1] + k
    })
}
