//! The operand `[tensorMap, {coordinates}]`, and where a box may lie in shared memory.

use super::access::from_generic;
use crate::ast::{Operand, Space, Type};
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, FRAME_PARAMS, Source, Target};
use crate::fault::{Fault, SpaceName};
use crate::tensor_map::{TENSOR_MAP_ALIGNMENT, TENSOR_MAP_BYTES, Tiled};

/// A box in shared memory begins at a multiple of this many bytes (CUDA programming guide, alignment of tensor copies).
const SHARED_ALIGNMENT: u64 = 128;

/// A tensor map and the coordinates of a box.
pub(super) struct TensorOperand {
    /// Register of the map's generic address.
    map: Source,
    coordinates: Vec<Source>,
}

impl TensorOperand {
    /// Operand `index`, for a tensor of `rank` dimensions.
    pub fn decode(operands: &Operands, index: usize, rank: usize) -> Result<Self, DecodeError> {
        let parts = match operands.operand(index)? {
            Operand::TensorAddress(parts) => parts.as_slice(),
            other => return operands.error(format!("expected a tensor map and coordinates, found {other:?}")),
        };
        let [map, Operand::Vector(coordinates)] = parts else {
            return operands.error("expected a tensor map and a vector of coordinates");
        };
        if coordinates.len() != rank {
            return operands.error(format!("expected {rank} coordinates, found {}", coordinates.len()));
        }
        // ptxas takes no offset behind the register either.
        if operands.register_type(map).is_none_or(|ty| ty.size() != 8) {
            return operands.error("expected the generic address of a tensor map in a 64-bit register");
        }
        let coordinates = coordinates.iter().map(|coordinate| operands.agreeing_value(coordinate, Type::S32));
        Ok(Self { map: operands.value(map, Type::U64)?, coordinates: coordinates.collect::<Result<_, _>>()? })
    }

    /// The map and the coordinates that a lane names.
    pub fn read(&self, context: &mut Context, lane: usize) -> Result<(Tiled, Vec<i32>), Fault> {
        let address = context.read(self.map)[lane];
        let coordinates = self.coordinates.iter().map(|source| context.read(*source)[lane] as i32).collect();
        let map = tensor_map(context, lane, address)?;
        if map.rank() != self.coordinates.len() {
            let (rank, wanted) = (map.rank(), self.coordinates.len());
            return Err(Fault::Trap(format!("a tensor map of rank {rank} in an instruction of {wanted} dimensions")));
        }
        Ok((map, coordinates))
    }
}

/// The tensor map at a generic address.
fn tensor_map(context: &mut Context, lane: usize, generic: u64) -> Result<Tiled, Fault> {
    let (space, address) = from_generic(generic);
    let of_kernel = match space {
        Space::Param => address < FRAME_PARAMS as u64,
        Space::Global | Space::Const => true,
        Space::Shared | Space::Local | Space::Reg => false,
    };
    let name = SpaceName(space);
    if !of_kernel {
        let places = "where tensor maps lie in kernel parameters, constant or global memory";
        return Err(Fault::Trap(format!("the address of a tensor map is {address:#x} of {name} memory, {places}")));
    }
    let part = TENSOR_MAP_ALIGNMENT as usize;
    if !address.is_multiple_of(TENSOR_MAP_ALIGNMENT) {
        let (action, size) = ("read of a tensor map", TENSOR_MAP_BYTES);
        return Err(Fault::Misaligned { action, space: name, address, size, alignment: part });
    }
    let mut bytes = [0; TENSOR_MAP_BYTES];
    // In parts that are as long as the map is aligned.
    for (i, bytes) in bytes.chunks_exact_mut(part).enumerate() {
        Target { lane, space, address: address + (i * part) as u64, strong: false }.read(context, bytes)?;
    }
    let none = || Fault::Trap(format!("there is no tensor map at {name} address {address:#x}"));
    Tiled::decode(&bytes).ok_or_else(none)
}

/// Returns an error unless a box of `size` bytes may begin at a shared address.
pub(super) fn aligned(address: u64, size: u64) -> Result<(), Fault> {
    if address.is_multiple_of(SHARED_ALIGNMENT) {
        return Ok(());
    }
    let (space, size, alignment) = (SpaceName(Space::Shared), length(size), SHARED_ALIGNMENT as usize);
    Err(Fault::Misaligned { action: "tensor copy", space, address, size, alignment })
}

/// Bytes as this computer counts them; more than it can have become more than there are.
pub(super) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
