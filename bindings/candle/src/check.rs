//! What is checked of the tensors that come in.

use candle_core::{DType, Device, Tensor};
use latent_attention::Error;

use crate::error::{Result, refused};

/// Returns an error that names the tensor unless it has these dimensions.
pub(crate) fn shape(what: &'static str, tensor: &Tensor, dims: &[(&str, usize)]) -> Result<()> {
    if tensor.dims().iter().eq(dims.iter().map(|(_, n)| n)) {
        return Ok(());
    }
    let dims: Vec<String> = dims.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let (expected, got) = (format!("[{}]", dims.join(", ")), format!("{:?}", tensor.dims()));
    Err(Error::Shape { what, expected, got }.into())
}

/// The size of the outermost dimension, by which the others are judged.
pub(crate) fn rows(what: &'static str, tensor: &Tensor) -> Result<usize> {
    let scalar = || Error::Shape { what, expected: "a dimension of tokens".into(), got: "a scalar".into() };
    Ok(*tensor.dims().first().ok_or_else(scalar)?)
}

/// Returns an error that names the tensor unless it holds one of these types.
pub(crate) fn dtype(what: &str, tensor: &Tensor, allowed: &[DType]) -> Result<()> {
    if allowed.contains(&tensor.dtype()) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(DType::as_str).collect();
    let why = format!("holds {}, must hold {}", tensor.dtype().as_str(), names.join(" or "));
    Err(refused(what, why))
}

/// Returns an error that names the tensor unless it is on the device.
pub(crate) fn device(what: &str, tensor: &Tensor, device: &Device) -> Result<()> {
    let (got, wanted) = (tensor.device(), device);
    if got.same_device(wanted) || share_stream(got, wanted) {
        return Ok(());
    }
    let why = if got.location() == wanted.location() {
        format!("is on another stream of {:?}", got.location())
    } else {
        format!("is on {:?}, not on {:?}", got.location(), wanted.location())
    };
    Err(refused(what, why))
}

/// Whether two devices of candle are the same GPU and order their work on the same stream, as all do that
/// `Device::new_cuda` makes.
fn share_stream(a: &Device, b: &Device) -> bool {
    match (a, b) {
        #[cfg(feature = "cuda")]
        (Device::Cuda(cuda), Device::Cuda(other)) => {
            a.location() == b.location() && cuda.cuda_stream().cu_stream() == other.cuda_stream().cu_stream()
        }
        _ => false,
    }
}

/// Returns an error that names the tensor unless its rows follow each other without gaps.
pub(crate) fn contiguous(what: &str, tensor: &Tensor) -> Result<()> {
    if tensor.is_contiguous() {
        return Ok(());
    }
    let why = format!("is not contiguous: {:?} with strides {:?}", tensor.dims(), tensor.stride());
    Err(refused(what, why))
}

/// The numbers of an integer tensor on any device. Those beyond i32 become negative, which no length or page id is.
pub(crate) fn integers(what: &str, tensor: &Tensor) -> Result<Vec<i32>> {
    dtype(what, tensor, &[DType::I32, DType::U32])?;
    let flat = tensor.flatten_all()?;
    match tensor.dtype() {
        DType::I32 => Ok(flat.to_vec1::<i32>()?),
        _ => Ok(flat.to_vec1::<u32>()?.into_iter().map(u32::cast_signed).collect()),
    }
}
