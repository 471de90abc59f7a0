"""Types of elements: the DTYPE_*, and what Python and PyTorch call them."""

from .constants import DTYPE_BF16, DTYPE_F32, DTYPE_I32, DTYPE_I64, DTYPE_U8, DTYPE_U32, DTYPE_U64
from .errors import Error

# Name and bytes of each, what a buffer of Python's says (which has no bf16: its bits are a uint16), what PyTorch says.
_DTYPES = {
    DTYPE_U8: ("u8", 1, "u1", "torch.uint8"),
    DTYPE_I32: ("i32", 4, "i4", "torch.int32"),
    DTYPE_U32: ("u32", 4, "u4", "torch.uint32"),
    DTYPE_I64: ("i64", 8, "i8", "torch.int64"),
    DTYPE_U64: ("u64", 8, "u8", "torch.uint64"),
    DTYPE_F32: ("f32", 4, "f4", "torch.float32"),
    DTYPE_BF16: ("bf16", 2, "u2", "torch.bfloat16"),
}
_KINDS = {**dict.fromkeys("bhilq", "i"), **dict.fromkeys("BHILQ", "u"), **dict.fromkeys("efd", "f")}


def _dtype(name, column, said):
    for dtype, row in _DTYPES.items():
        if row[column] == said:
            return dtype
    raise Error("CONFIG", f"{name}: elements of {said} are of none of the library's types")


def name_and_size(dtype):
    """Name and bytes of a DTYPE_*."""
    if dtype not in _DTYPES:
        raise Error("CONFIG", f"dtype {dtype}: must be one of the DTYPE_*")
    return _DTYPES[dtype][:2]


def dtype_of(torch_tensor, name="tensor"):
    """The DTYPE_* of a tensor of PyTorch's."""
    return _dtype(name, 3, str(torch_tensor.dtype))


def dtype_of_view(view, name):
    """The DTYPE_* of a memoryview's elements."""
    return _dtype(name, 2, f"{_KINDS.get(view.format, view.format)}{view.itemsize}")
