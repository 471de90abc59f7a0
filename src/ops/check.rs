//! What the operations check of their arguments.

use crate::device::{Device, Element, Shape, Tensor, TensorMut, View};
use crate::error::{Error, Result, check_len};

/// Returns [`Error::Shape`] unless the tensor has the named sizes, [`Error::OtherDevice`] unless it is on the device,
/// and its strides as kernels take them.
pub(crate) fn tensor<T: Element>(
    what: &'static str,
    device: &Device,
    tensor: &Tensor<T>,
    dims: [(&str, usize); 3],
) -> Result<[u32; 2]> {
    device.check_same(what, tensor.view().device())?;
    shape(what, tensor.shape(), dims)
}

/// [`tensor`], of one that is written.
pub(crate) fn tensor_mut<T: Element>(
    what: &'static str,
    device: &Device,
    tensor: &TensorMut<T>,
    dims: [(&str, usize); 3],
) -> Result<[u32; 2]> {
    self::tensor(what, device, &tensor.tensor(), dims)
}

fn shape(what: &'static str, shape: Shape, dims: [(&str, usize); 3]) -> Result<[u32; 2]> {
    if shape.sizes != dims.map(|(_, n)| n) {
        let dims: Vec<String> = dims.iter().map(|(name, n)| format!("{name} {n}")).collect();
        return Err(Error::Shape {
            what,
            expected: format!("[{}]", dims.join(", ")),
            got: format!("{:?}", shape.sizes),
        });
    }
    let [outer, middle] = shape.strides;
    Ok([count(what, outer)?, count(what, middle)?])
}

/// Returns [`Error::Shape`] unless the view has as many elements as the named sizes say, [`Error::OtherDevice`]
/// unless it is on the device.
pub(super) fn view<T: Element>(
    what: &'static str,
    device: &Device,
    view: &View<T>,
    dims: &[(&str, usize)],
) -> Result<()> {
    device.check_same(what, view.device())?;
    check_len(what, view.len(), dims)
}

/// Returns [`Error::Alignment`] unless the view begins on a multiple of `bytes`.
pub(super) fn alignment<T: Element>(what: &'static str, view: &View<T>, bytes: u64) -> Result<()> {
    if view.address().is_multiple_of(bytes) {
        Ok(())
    } else {
        Err(Error::Alignment { what, expected: format!("a multiple of {bytes} bytes"), got: view.address() })
    }
}

/// A size as kernels take it.
pub(super) fn count(what: &'static str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Shape { what, expected: "less than 2^32".into(), got: n.to_string() })
}
