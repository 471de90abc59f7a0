//! Nodes of candle's graph whose value is computed before they are made, and whose gradient is a closure.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::real::Real;

/// What an operation computed: its numbers and their shape.
pub struct Value<T>(pub Vec<T>, pub Shape);

impl<T: Real> Value<T> {
    /// Numbers of the given shape.
    pub fn new(data: Vec<T>, shape: impl Into<Shape>) -> Self {
        Self(data, shape.into())
    }
}

/// A value on its way into the graph: candle asks for it once.
struct Pending {
    name: &'static str,
    value: Mutex<Option<(CpuStorage, Shape)>>,
}

impl Pending {
    fn new<T: Real>(name: &'static str, Value(data, shape): Value<T>) -> Self {
        Self { name, value: Mutex::new(Some((T::to_cpu_storage_owned(data), shape))) }
    }

    fn take(&self) -> Result<(CpuStorage, Shape)> {
        match self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!("{} was run twice", self.name),
        }
    }
}

/// Gradients of the arguments, `None` where none is needed.
pub type Gradients<const N: usize> = [Option<Tensor>; N];

struct Node<F> {
    pending: Pending,
    backward: F,
}

impl<F: Fn([&Tensor; 1], &Tensor) -> Result<Gradients<1>>> CustomOp1 for Node<F> {
    fn name(&self) -> &'static str {
        self.pending.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.pending.take()
    }

    fn bwd(&self, a: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a] = (self.backward)([a], &gradient.contiguous()?)?;
        Ok(a)
    }
}

impl<F: Fn([&Tensor; 2], &Tensor) -> Result<Gradients<2>>> CustomOp2 for Node<F> {
    fn name(&self) -> &'static str {
        self.pending.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.pending.take()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = (self.backward)([a, b], &gradient.contiguous()?)?;
        Ok((a, b))
    }
}

impl<F: Fn([&Tensor; 3], &Tensor) -> Result<Gradients<3>>> CustomOp3 for Node<F> {
    fn name(&self) -> &'static str {
        self.pending.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.pending.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = (self.backward)([a, b, c], &gradient.contiguous()?)?;
        Ok((a, b, c))
    }
}

/// A tensor outside of any graph.
pub fn constant<T: Real>(Value(data, shape): Value<T>) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// `value` as a function of one tensor; a constant if that tensor leads to no variable.
pub fn node1<T: Real>(
    name: &'static str,
    a: &Tensor,
    value: Value<T>,
    backward: impl Fn([&Tensor; 1], &Tensor) -> Result<Gradients<1>> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !a.track_op() {
        return constant(value);
    }
    a.apply_op1(Node { pending: Pending::new(name, value), backward })
}

/// `value` as a function of two tensors; a constant if they lead to no variable.
pub fn node2<T: Real>(
    name: &'static str,
    [a, b]: [&Tensor; 2],
    value: Value<T>,
    backward: impl Fn([&Tensor; 2], &Tensor) -> Result<Gradients<2>> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !a.track_op() && !b.track_op() {
        return constant(value);
    }
    a.apply_op2(b, Node { pending: Pending::new(name, value), backward })
}

/// `value` as a function of three tensors; a constant if they lead to no variable.
pub fn node3<T: Real>(
    name: &'static str,
    [a, b, c]: [&Tensor; 3],
    value: Value<T>,
    backward: impl Fn([&Tensor; 3], &Tensor) -> Result<Gradients<3>> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !a.track_op() && !b.track_op() && !c.track_op() {
        return constant(value);
    }
    a.apply_op3(b, c, Node { pending: Pending::new(name, value), backward })
}

/// Calls `f` with the numbers of contiguous tensors, row by row.
///
/// # Errors
/// If a tensor is not contiguous, is not in host memory or holds other numbers than `T`; and those of `f`.
pub fn with_numbers<T: Real, R, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> Result<R>,
) -> Result<R> {
    let locked = tensors.map(Tensor::storage_and_layout);
    let mut numbers: [&[T]; N] = [&[]; N];
    for ((storage, layout), numbers) in locked.iter().zip(&mut numbers) {
        let Storage::Cpu(storage) = &**storage else { bail!("the tensor is not in host memory") };
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tensor is not contiguous") };
        *numbers = &T::cpu_storage_as_slice(storage)?[start..end];
    }
    f(numbers)
}

/// Refuses tensors of different types, and types that are not computed with; returns the type.
pub fn common_type(name: &str, tensors: &[&Tensor]) -> Result<DType> {
    let dtype = tensors.first().map_or(DType::F32, |tensor| tensor.dtype());
    if !matches!(dtype, DType::F32 | DType::F64) || tensors.iter().any(|tensor| tensor.dtype() != dtype) {
        let types: Vec<_> = tensors.iter().map(|tensor| tensor.dtype().as_str()).collect();
        bail!("{name}: all arguments must be f32, or all f64, not {}", types.join(", "))
    }
    Ok(dtype)
}

/// Calls a function that is generic over the number type with the one that a tensor holds.
macro_rules! by_type {
    ($dtype:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $dtype {
            candle_core::DType::F64 => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}
pub(super) use by_type;
