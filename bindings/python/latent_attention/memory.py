"""Device memory: the library's own and PyTorch's, as arrays and tensors."""

import ctypes
import operator
from ctypes import POINTER, Structure, byref, c_size_t, c_uint32, c_uint64, c_void_p

from .dtypes import dtype_of, name_and_size
from .errors import Error
from .loading import HANDLE, OUT, Handle, declare, library

declare(
    "buffer",
    la_buffer_create=[HANDLE, c_size_t, OUT],
    la_buffer_address=[HANDLE, POINTER(c_uint64)],
    la_upload=[HANDLE, c_uint64, c_void_p, c_size_t],
    la_download=[HANDLE, c_uint64, c_void_p, c_size_t],
)


class Array(Structure):
    """Device memory: at `place`, such as "cuda:0" or "cpu", and `owner`'s, unless it was made of an address by hand."""

    _fields_ = [("address", c_uint64), ("elements", c_size_t), ("dtype", c_uint32)]
    place = owner = None


class Tensor(Structure):
    _fields_ = [("memory", Array), ("sizes", c_size_t * 3), ("strides", c_size_t * 2)]
    place = owner = None


class Buffer(Handle):
    """Device memory of the library's own."""

    def __init__(self, device, nbytes, dtype):
        super().__init__("buffer", "la_buffer_create", device, nbytes)
        self.device, self.nbytes, self.dtype = device, nbytes, dtype
        address = c_uint64()
        library().la_buffer_address(self, byref(address))
        self.address = address.value

    def array(self):
        elements = self.nbytes // name_and_size(self.dtype)[1]
        return _placed(Array(self.address, elements, self.dtype), self.device.place, self)

    def tensor(self, *sizes):
        """The memory as a tensor [outer, middle, inner] without gaps."""
        return dense(self.array(), sizes)

    def download(self):
        values = bytearray(self.nbytes)
        library().la_download(self.device, self.address, (ctypes.c_char * self.nbytes).from_buffer(values), self.nbytes)
        return values


def _placed(struct, place, owner):
    struct.place, struct.owner = place, owner
    return struct


def _check_is_tensor(value, name):
    if not hasattr(value, "data_ptr"):
        raise Error("CONFIG", f"{name}: expected device memory or a tensor of PyTorch's, got {type(value).__name__}")
    if value.device.type not in ("cuda", "cpu"):
        raise Error("CONFIG", f"{name}: is on {value.device}, not on a GPU or the CPU")


def dense(array, sizes):
    """A tensor [outer, middle, inner] without gaps."""
    sizes = [operator.index(size) for size in sizes]
    if len(sizes) != 3 or min(sizes) < 0:
        raise Error("SHAPE", f"tensor: expected sizes [outer, middle, inner], got {sizes}")
    return _placed(Tensor(array, tuple(sizes), (sizes[1] * sizes[2], sizes[2])), array.place, array)


def array(value, name="array"):
    """A Buffer, or a dense tensor of PyTorch's on a GPU or the CPU, as an array: its memory, which must stay while
    operations run and does as long as the array. Refusals say `name`."""
    if isinstance(value, Array):
        return value
    if isinstance(value, Buffer):
        return value.array()
    _check_is_tensor(value, name)
    if not value.is_contiguous():
        raise Error("SHAPE", f"{name}: expected memory without gaps, got {_described(value)}")
    return _placed(Array(value.data_ptr(), value.numel(), dtype_of(value, name)), str(value.device), value)


def tensor(value, name="tensor"):
    """A tensor [outer, middle, inner] of PyTorch's on a GPU or the CPU, possibly a slice: its memory, as above."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Buffer):
        raise Error("SHAPE", f"{name}: expected a tensor, got a buffer: its .tensor(outer, middle, inner) is one")
    _check_is_tensor(value, name)
    sizes, strides = tuple(value.shape), value.stride()
    if len(sizes) != 3:
        raise Error("SHAPE", f"{name}: expected sizes [outer, middle, inner], got {_described(value)}")
    if strides[2] != 1 and sizes[2] > 1:
        raise Error("SHAPE", f"{name}: expected a dense inner dimension, got {_described(value)}")
    span = 0 if 0 in sizes else (sizes[0] - 1) * strides[0] + (sizes[1] - 1) * strides[1] + sizes[2]
    memory = Array(value.data_ptr(), span, dtype_of(value, name))
    return _placed(Tensor(memory, sizes, strides[:2]), str(value.device), value)


def _described(torch_tensor):
    return f"sizes {tuple(torch_tensor.shape)}, strides {tuple(torch_tensor.stride())}"
