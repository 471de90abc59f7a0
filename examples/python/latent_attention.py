"""The C library (bindings/c/include/latent_attention.h) through ctypes. Needs Python 3.10 or newer, and nothing else.

Structures have the header's names without `La`, fields the header's names; the header says what they mean, and
tests/python/mirror.py that they are the same.

The library is the file that LATENT_ATTENTION_LIBRARY names, or the one that `cargo xtask capi` has built.
"""

import ctypes
import itertools
import operator
import os
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

ABI_VERSION = 3
ROW_BF16, ROW_INT4, ROW_INT8 = 0, 1, 2
RANGE_MIN_MAX, RANGE_MSE = 0, 1
PAIRING_HALF, PAIRING_INTERLEAVED = 0, 1
DTYPE_U8, DTYPE_I32, DTYPE_U32, DTYPE_I64, DTYPE_U64, DTYPE_F32, DTYPE_BF16 = range(1, 8)
STATUS = (
    "OK NULL_POINTER GEOMETRY SHAPE INDEX CONFIG ALIGNMENT WORKSPACE_TOO_SMALL NO_DRIVER DRIVER_TOO_OLD NO_DEVICE "
    "UNSUPPORTED_ARCH NO_KERNEL_IMAGE DRIVER KERNEL INTERNAL"
).split()


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


class Error(RuntimeError):
    """A call that failed: `status` is the name of the header's LA_STATUS_*, the text is the library's. This module
    refuses in the same way what it can see of an argument and the library cannot."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class _Struct(Structure):
    """A struct whose fields take what fits and nothing else: numbers of their range; for arrays and tensors, what
    array() and tensor() take, which lives as long as the struct."""

    def __init__(self, *values, **named):
        super().__init__()
        names = [name for name, _ in self._fields_]
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} has {len(names)} fields, got {len(values)} values")
        for name, value in [*zip(names, values), *named.items()]:
            setattr(self, name, value)

    def __setattr__(self, name, value):
        kind = dict(self._fields_).get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__} has no field {name}")
        if kind in (Array, Tensor):
            value = (array if kind is Array else tensor)(value, name)
            self.memory[name] = value
        elif kind in (c_size_t, c_uint32, c_uint64) and kind(value).value != value:
            raise Error("CONFIG", f"{name} {value}: must be in 0..={kind(-1).value}")
        super().__setattr__(name, value)

    @property
    def memory(self):
        """The array or tensor that each field was set to."""
        return self.__dict__.setdefault("_memory", {})


def _fields(kind, names):
    return [(name, kind) for name in names.split()]


class Array(Structure):
    """Device memory: at `place`, such as "cuda:0", and `owner`'s, unless it was made of an address by hand."""

    _fields_ = [("address", c_uint64), ("elements", c_size_t), ("dtype", c_uint32)]
    place = owner = None


class Tensor(Structure):
    _fields_ = [("memory", Array), ("sizes", c_size_t * 3), ("strides", c_size_t * 2)]
    place = owner = None


class Geometry(_Struct):
    _fields_ = _fields(c_size_t, "query_heads kv_heads latent_rank rope_heads rope_dim nope_dim value_dim")

    @classmethod
    def named(cls, name):
        """The sizes of a named model, such as deepseek-v3."""
        geometry = cls()
        library().la_geometry_named(name.encode(), byref(geometry))
        return geometry


class CacheLayout(_Struct):
    _fields_ = [
        (name, c_size_t)
        for name in (
            "token_bytes page_bytes latent_row_bytes rope_offset rope_row_bytes affine_offset affine_row_bytes"
        ).split()
    ]


class CacheFormat(_Struct):
    _fields_ = [
        ("latent_row", c_uint32),
        ("latent_group", c_uint32),
        ("rope_row", c_uint32),
        ("rope_group", c_uint32),
        ("page_size", c_size_t),
        ("range", c_uint32),
    ]

    @classmethod
    def int4(cls, page_size, range=RANGE_MIN_MAX):
        format = cls()
        library().la_cache_format_int4(page_size, byref(format))
        format.range = range
        return format

    @classmethod
    def bf16(cls, page_size):
        return cls(ROW_BF16, 0, ROW_BF16, 0, page_size)

    def layout(self, geometry):
        """Where things lie in a page."""
        layout = CacheLayout()
        library().la_cache_layout(byref(geometry), byref(self), byref(layout))
        return layout


class Batch(_Struct):
    _fields_ = _fields(Array, "query_starts seq_lens page_table page_starts") + _fields(c_size_t, "max_pages page_count")


class RopeAppendConfig(_Struct):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat), ("pairing", c_uint32)]


class RopeAppendArgs(_Struct):
    _fields_ = [
        ("q_rope", Tensor),
        ("q_rotated", Tensor),
        ("k_rope", Tensor),
        ("c_kv", Tensor),
        ("positions", Array),
        ("slots", Array),
        ("cos", Array),
        ("sin", Array),
        ("frequencies", c_size_t),
        ("frequency_index", Array),
        ("norm_gain", Array),
        ("norm_epsilon", c_float),
        ("bias", Array),
        ("cache", Array),
        ("counters", Array),
    ]


class AbsorbConfig(_Struct):
    _fields_ = [("geometry", Geometry), ("batch_invariant", c_uint32)]


class AbsorbQueryArgs(_Struct):
    _fields_ = [("up_key", Tensor), ("q_nope", Tensor), ("q_latent", Tensor)]


class ExpandOutputArgs(_Struct):
    _fields_ = [("up_value", Tensor), ("value_bias", Array), ("o_latent", Tensor), ("out", Tensor)]


class DecodeConfig(_Struct):
    _fields_ = [
        ("geometry", Geometry),
        ("format", CacheFormat),
        ("scale", c_float),
        ("fixed_tokens", c_size_t),
        ("max_query_tokens", c_size_t),
        ("max_tokens", c_size_t),
    ]


class DecodeArgs(_Struct):
    _fields_ = [("q_latent", Tensor), ("q_rope", Tensor), ("cache", Array), ("o_latent", Array), ("lse", Array)]


class CombineConfig(_Struct):
    _fields_ = [("latent_rank", c_size_t), ("max_splits", c_size_t)]


class CombineArgs(_Struct):
    _fields_ = _fields(c_size_t, "rows splits") + _fields(Array, "o_partial lse_partial o_latent lse")


class UpProjectConfig(_Struct):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat)]


class UpProjectArgs(_Struct):
    _fields_ = [
        ("cache", Array),
        ("token_starts", Array),
        ("up_key", Tensor),
        ("up_value", Tensor),
        ("value_bias", Array),
        ("keys", Tensor),
        ("values", Tensor),
    ]


class GatherConfig(_Struct):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat)]


class GatherArgs(_Struct):
    _fields_ = [("cache", Array), ("token_starts", Array), ("first_tokens", Array), ("gathered", Tensor)]


# The arguments of every function that returns a status, and of every one that returns nothing.
_HANDLE, _OUT = c_void_p, POINTER(c_void_p)
_STATUS_FUNCTIONS = {
    "la_geometry_named": [c_char_p, POINTER(Geometry)],
    "la_cache_format_int4": [c_size_t, POINTER(CacheFormat)],
    "la_cache_layout": [POINTER(Geometry), POINTER(CacheFormat), POINTER(CacheLayout)],
    "la_device_cuda": [c_size_t, _OUT],
    "la_device_simulated": [_OUT],
    "la_device_name": [_HANDLE, POINTER(c_char_p)],
    "la_device_synchronize": [_HANDLE],
    "la_stream_create": [_HANDLE, _OUT],
    "la_stream_borrow": [_HANDLE, c_void_p, _OUT],
    "la_stream_synchronize": [_HANDLE],
    "la_buffer_create": [_HANDLE, c_size_t, _OUT],
    "la_buffer_address": [_HANDLE, POINTER(c_uint64)],
    "la_upload": [_HANDLE, c_uint64, c_void_p, c_size_t],
    "la_download": [_HANDLE, c_uint64, c_void_p, c_size_t],
    "la_rope_append_create": [_HANDLE, POINTER(RopeAppendConfig), _OUT],
    "la_rope_append_run": [_HANDLE, _HANDLE, POINTER(RopeAppendArgs)],
    "la_absorb_query_create": [_HANDLE, POINTER(AbsorbConfig), _OUT],
    "la_absorb_query_run": [_HANDLE, _HANDLE, POINTER(AbsorbQueryArgs)],
    "la_expand_output_create": [_HANDLE, POINTER(AbsorbConfig), _OUT],
    "la_expand_output_run": [_HANDLE, _HANDLE, POINTER(ExpandOutputArgs)],
    "la_decode_create": [_HANDLE, POINTER(DecodeConfig), _OUT],
    "la_decode_workspace_bytes": [_HANDLE, POINTER(c_size_t)],
    "la_decode_plan": [_HANDLE, _HANDLE, POINTER(Batch), c_size_t, Array, _OUT],
    "la_decode_run": [_HANDLE, _HANDLE, _HANDLE, POINTER(DecodeArgs)],
    "la_combine_create": [_HANDLE, POINTER(CombineConfig), _OUT],
    "la_combine_run": [_HANDLE, _HANDLE, POINTER(CombineArgs)],
    "la_up_project_create": [_HANDLE, POINTER(UpProjectConfig), _OUT],
    "la_up_project_run": [_HANDLE, _HANDLE, POINTER(Batch), POINTER(UpProjectArgs)],
    "la_gather_create": [_HANDLE, POINTER(GatherConfig), _OUT],
    "la_gather_run": [_HANDLE, _HANDLE, POINTER(Batch), POINTER(GatherArgs)],
}
_HANDLES = "device stream buffer rope_append absorb_query expand_output plan decode combine up_project gather".split()
_library = None


def library(path=None):
    """The library, loaded at the first call: from `path` if it is given then."""
    global _library
    if _library is not None:
        return _library
    name = {"darwin": "liblatent_attention.dylib", "win32": "latent_attention.dll"}.get(
        sys.platform, "liblatent_attention.so"
    )
    built = Path(__file__).resolve().parents[2] / "target/capi" / name
    loaded = ctypes.CDLL(str(path or os.environ.get("LATENT_ATTENTION_LIBRARY") or built))
    loaded.la_abi_version.restype = c_uint32
    if loaded.la_abi_version() != ABI_VERSION:
        raise ImportError(f"{loaded._name} has ABI version {loaded.la_abi_version()}, this module is for {ABI_VERSION}")
    loaded.la_last_error.restype = c_char_p

    def check(status, function, arguments):
        if status != 0:
            name = STATUS[status] if status < len(STATUS) else str(status)
            raise Error(name, f"{function.__name__}: {loaded.la_last_error().decode()}")

    for name, arguments in _STATUS_FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype, function.errcheck = arguments, c_int, check
    for name in _HANDLES:
        function = getattr(loaded, f"la_{name}_destroy")
        function.argtypes, function.restype = [_HANDLE], None
    _library = loaded
    return _library


class _Handle:
    """Something of the library's that is destroyed with this object."""

    def __init__(self, kind, create, *arguments):
        self._destroy = getattr(library(), f"la_{kind}_destroy")
        self._as_parameter_ = None
        handle = c_void_p()
        getattr(library(), create)(*arguments, byref(handle))
        self._as_parameter_ = handle

    def __del__(self):
        if getattr(self, "_as_parameter_", None) is not None:
            self._destroy(self._as_parameter_)


class Device(_Handle):
    """The first GPU, or another; `Device.simulated()` is the simulator."""

    _simulators = itertools.count()

    def __init__(self, ordinal=0):
        super().__init__("device", "la_device_cuda", ordinal)
        self.place = f"cuda:{ordinal}"

    @classmethod
    def simulated(cls):
        device = cls.__new__(cls)
        _Handle.__init__(device, "device", "la_device_simulated")
        device.place = f"simulator {next(cls._simulators)}"
        return device

    @property
    def name(self):
        name = c_char_p()
        library().la_device_name(self, byref(name))
        return name.value.decode()

    def synchronize(self):
        library().la_device_synchronize(self)

    def stream(self, borrowed=None):
        """A new stream, or that of someone else: torch.cuda.current_stream().cuda_stream is one."""
        if borrowed is None:
            return _Handle("stream", "la_stream_create", self)
        return _Handle("stream", "la_stream_borrow", self, borrowed)

    def upload(self, values, dtype=None):
        """A copy of what lies in memory without gaps: a numpy array, an array.array, bytes. Its elements are of the
        type that it says, where a uint16 stands for the bits of a bf16, or of the DTYPE_* that is given."""
        view = memoryview(values)
        if not view.c_contiguous:
            raise Error("SHAPE", f"values: expected memory without gaps, got {view.shape} with strides {view.strides}")
        dtype = dtype or _dtype("values", 2, f"{_KINDS.get(view.format, view.format)}{view.itemsize}")
        name, size = _named(dtype)
        if view.nbytes % size:
            raise Error("SHAPE", f"values: expected whole elements of {name}, got {view.nbytes} bytes")
        buffer = Buffer(self, view.nbytes, dtype)
        library().la_upload(self, buffer.address, (ctypes.c_char * view.nbytes).from_buffer_copy(view), view.nbytes)
        return buffer

    def allocate(self, elements, dtype):
        """Memory for so many elements of a DTYPE_*, which may hold anything."""
        (name, size), elements = _named(dtype), operator.index(elements)
        if not 0 <= elements * size <= c_size_t(-1).value:
            raise Error("CONFIG", f"{elements} elements of {name}: must be from 0 to as many bytes as have addresses")
        return Buffer(self, elements * size, dtype)


class Buffer(_Handle):
    """Device memory of the library's own."""

    def __init__(self, device, nbytes, dtype):
        super().__init__("buffer", "la_buffer_create", device, nbytes)
        self.device, self.nbytes, self.dtype = device, nbytes, dtype
        address = c_uint64()
        library().la_buffer_address(self, byref(address))
        self.address = address.value

    def array(self):
        elements = self.nbytes // _named(self.dtype)[1]
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


def _dtype(name, column, said):
    for dtype, row in _DTYPES.items():
        if row[column] == said:
            return dtype
    raise Error("CONFIG", f"{name}: elements of {said} are of none of the library's types")


def _named(dtype):
    """Name and bytes of a DTYPE_*."""
    if dtype not in _DTYPES:
        raise Error("CONFIG", f"dtype {dtype}: must be one of the DTYPE_*")
    return _DTYPES[dtype][:2]


def dtype_of(torch_tensor, name="tensor"):
    """The DTYPE_* of a tensor of PyTorch's."""
    return _dtype(name, 3, str(torch_tensor.dtype))


def _check_is_on_gpu(value, name):
    if not hasattr(value, "data_ptr"):
        raise Error("CONFIG", f"{name}: expected device memory or a tensor of PyTorch's, got {type(value).__name__}")
    if value.device.type != "cuda":
        raise Error("CONFIG", f"{name}: is on {value.device}, not on a GPU")


def dense(array, sizes):
    """A tensor [outer, middle, inner] without gaps."""
    sizes = [operator.index(size) for size in sizes]
    if len(sizes) != 3 or min(sizes) < 0:
        raise Error("SHAPE", f"tensor: expected sizes [outer, middle, inner], got {sizes}")
    return _placed(Tensor(array, tuple(sizes), (sizes[1] * sizes[2], sizes[2])), array.place, array)


def array(value, name="array"):
    """A Buffer, or a dense tensor of PyTorch's on a GPU, as an array: its memory, which must stay while kernels run and
    does as long as the array. Refusals say `name`."""
    if isinstance(value, Array):
        return value
    if isinstance(value, Buffer):
        return value.array()
    _check_is_on_gpu(value, name)
    if not value.is_contiguous():
        raise Error("SHAPE", f"{name}: expected memory without gaps, got {_described(value)}")
    return _placed(Array(value.data_ptr(), value.numel(), dtype_of(value, name)), str(value.device), value)


def tensor(value, name="tensor"):
    """A tensor [outer, middle, inner] of PyTorch's on a GPU, possibly a slice: its memory, as above."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Buffer):
        raise Error("SHAPE", f"{name}: expected a tensor, got a buffer: its .tensor(outer, middle, inner) is one")
    _check_is_on_gpu(value, name)
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


class Operation(_Handle):
    """An operation by its name in the header, such as "absorb_query", made for a device and a configuration."""

    def __init__(self, device, name, config):
        super().__init__(name, f"la_{name}_create", device, byref(config))
        self._run, self._device = getattr(library(), f"la_{name}_run"), device

    def run(self, stream, *arguments):
        """Runs it: the arguments are structures (and, for decode, first a plan)."""
        self._run(self, stream, *(self._by_reference(a) if isinstance(a, _Struct) else a for a in arguments))

    def _by_reference(self, arguments):
        for name, memory in arguments.memory.items():
            self._check_place(name, memory)
        return byref(arguments)

    def _check_place(self, name, memory):
        if memory.place not in (None, self._device.place):
            raise Error("CONFIG", f"{name}: is on {memory.place}, the operation on {self._device.place}")


class Decode(Operation):
    def __init__(self, device, config):
        super().__init__(device, "decode", config)

    def workspace_bytes(self):
        size = c_size_t()
        library().la_decode_workspace_bytes(self, byref(size))
        return size.value

    def plan(self, stream, batch, query_tokens, workspace):
        """A plan in `workspace`, bytes as array() takes them. It keeps them and the batch."""
        workspace = array(workspace, "workspace")
        self._check_place("workspace", workspace)
        plan = _Handle("plan", "la_decode_plan", self, stream, self._by_reference(batch), query_tokens, workspace)
        plan.arguments = batch, workspace
        return plan
