"""Multi-head Latent Attention served from a 4-bit paged cache: the C library of latent-attention through ctypes. Needs
Python 3.10 or newer, and no other package.

Structures have the names of the header (bindings/c/include/latent_attention.h) without `La`, fields the header's names;
the header says what they mean, and tests/mirror.py that they are the same. All names are to be had from this module.

The library is loaded when something of it is first needed; `library()` says from where.
"""

from .arguments import (
    AbsorbConfig,
    AbsorbQueryArgs,
    CombineArgs,
    CombineConfig,
    DecodeArgs,
    DecodeConfig,
    ExpandOutputArgs,
    GatherArgs,
    GatherConfig,
    RopeAppendArgs,
    RopeAppendConfig,
    UpProjectArgs,
    UpProjectConfig,
)
from .cache import Batch, CacheFormat, CacheLayout, Geometry
from .constants import (
    ABI_VERSION,
    DTYPE_BF16,
    DTYPE_F32,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_U8,
    DTYPE_U32,
    DTYPE_U64,
    PAIRING_HALF,
    PAIRING_INTERLEAVED,
    RANGE_MIN_MAX,
    RANGE_MSE,
    ROW_BF16,
    ROW_INT4,
    ROW_INT8,
    STATUS,
)
from .devices import Device
from .dtypes import dtype_of
from .errors import Error
from .loading import library
from .memory import Array, Buffer, Tensor, array, dense, tensor
from .operations import Decode, Operation

__all__ = [
    "ABI_VERSION",
    "AbsorbConfig",
    "AbsorbQueryArgs",
    "Array",
    "Batch",
    "Buffer",
    "CacheFormat",
    "CacheLayout",
    "CombineArgs",
    "CombineConfig",
    "DTYPE_BF16",
    "DTYPE_F32",
    "DTYPE_I32",
    "DTYPE_I64",
    "DTYPE_U8",
    "DTYPE_U32",
    "DTYPE_U64",
    "Decode",
    "DecodeArgs",
    "DecodeConfig",
    "Device",
    "Error",
    "ExpandOutputArgs",
    "GatherArgs",
    "GatherConfig",
    "Geometry",
    "Operation",
    "PAIRING_HALF",
    "PAIRING_INTERLEAVED",
    "RANGE_MIN_MAX",
    "RANGE_MSE",
    "ROW_BF16",
    "ROW_INT4",
    "ROW_INT8",
    "RopeAppendArgs",
    "RopeAppendConfig",
    "STATUS",
    "Tensor",
    "UpProjectArgs",
    "UpProjectConfig",
    "array",
    "dense",
    "dtype_of",
    "library",
    "tensor",
]
