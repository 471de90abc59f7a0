//! Device tensors: memory with a shape and strides.

use super::memory::{Element, View, ViewMut};
use crate::error::{Error, Result};

/// Sizes and strides of a tensor `[outer, middle, inner]` whose inner dimension is dense.
///
/// All tensors of the operations have three dimensions (mostly tokens, heads, numbers of a head), so that a slice of a
/// wider one needs no copy: the rope part of `[T, H, Dn + R]` is `[T, H, R]` with the strides of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Outer, middle and inner size.
    pub sizes: [usize; 3],
    /// Elements from one outer, and from one middle index to the next.
    pub strides: [usize; 2],
}

impl Shape {
    /// Without gaps.
    #[must_use]
    pub fn dense(sizes: [usize; 3]) -> Self {
        let row = sizes[1].saturating_mul(sizes[2]);
        Self { sizes, strides: [row, sizes[2]] }
    }

    /// Elements from the first to behind the last; `None` if they cannot be counted.
    fn extent(&self) -> Option<usize> {
        if self.sizes.contains(&0) {
            return Some(0);
        }
        let outer = (self.sizes[0] - 1).checked_mul(self.strides[0])?;
        let middle = (self.sizes[1] - 1).checked_mul(self.strides[1])?;
        outer.checked_add(middle)?.checked_add(self.sizes[2])
    }

    /// Whether rows may share elements, which a tensor that is written must not.
    fn overlaps(&self) -> bool {
        let [outer, middle, inner] = self.sizes;
        let [far, near] = self.strides;
        // Rows in either order of strides: each step must clear what the smaller one spans.
        let nested = |big: usize, small: usize, small_count: usize| {
            small >= inner && big >= small.saturating_mul(small_count.saturating_sub(1)).saturating_add(inner)
        };
        match (outer > 1, middle > 1) {
            (false, false) => false,
            (true, false) => far < inner,
            (false, true) => near < inner,
            (true, true) => !nested(far, near, middle) && !nested(near, far, outer),
        }
    }

    fn check(&self, len: usize) -> Result<()> {
        match self.extent() {
            Some(extent) if extent <= len => Ok(()),
            extent => Err(Error::Shape {
                what: "tensor",
                expected: format!("{self:?} within {len} elements of memory"),
                got: extent.map_or("more than can be counted".into(), |extent| format!("{extent} elements")),
            }),
        }
    }
}

/// A tensor to read.
#[derive(Clone, Debug)]
pub struct Tensor<'a, T: Element> {
    view: View<'a, T>,
    shape: Shape,
}

impl<'a, T: Element> Tensor<'a, T> {
    /// A tensor over memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if its elements reach behind the memory.
    pub fn new(view: View<'a, T>, shape: Shape) -> Result<Self> {
        shape.check(view.len())?;
        Ok(Self { view, shape })
    }

    /// A tensor without gaps.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn dense(view: View<'a, T>, sizes: [usize; 3]) -> Result<Self> {
        Self::new(view, Shape::dense(sizes))
    }

    /// Its memory.
    #[must_use]
    pub fn view(&self) -> &View<'a, T> {
        &self.view
    }

    /// Its sizes and strides.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

/// A tensor to write.
#[derive(Debug)]
pub struct TensorMut<'a, T: Element> {
    view: ViewMut<'a, T>,
    shape: Shape,
}

impl<'a, T: Element> TensorMut<'a, T> {
    /// A tensor over memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if its elements reach behind the memory, or if two rows may share elements.
    pub fn new(view: ViewMut<'a, T>, shape: Shape) -> Result<Self> {
        shape.check(view.view().len())?;
        if shape.overlaps() {
            return Err(Error::Shape {
                what: "tensor to write",
                expected: "rows that share no elements".into(),
                got: format!("{shape:?}"),
            });
        }
        Ok(Self { view, shape })
    }

    /// A tensor without gaps.
    ///
    /// # Errors
    /// As [`TensorMut::new`].
    pub fn dense(view: ViewMut<'a, T>, sizes: [usize; 3]) -> Result<Self> {
        Self::new(view, Shape::dense(sizes))
    }

    /// The same tensor, to read.
    #[must_use]
    pub fn tensor(&self) -> Tensor<'_, T> {
        Tensor { view: self.view.view(), shape: self.shape }
    }

    /// The same tensor, for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> TensorMut<'_, T> {
        TensorMut { view: self.view.reborrow(), shape: self.shape }
    }

    /// Its sizes and strides.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }
}
