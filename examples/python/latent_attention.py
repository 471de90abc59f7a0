"""The C library (include/latent_attention.h) through ctypes. Needs Python 3.10 or newer, and nothing else.

Structures have the header's names without `La`, fields the header's names; the header says what they mean, and
tests/python/mirror.py that they are the same.

The library is the file that LATENT_ATTENTION_LIBRARY names, or the one that `cargo xtask capi` has built.
"""

import ctypes
import os
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

ABI_VERSION = 1
ROW_BF16, ROW_INT4, ROW_INT8 = 0, 1, 2
PAIRING_HALF, PAIRING_INTERLEAVED = 0, 1
STATUS = (
    "OK NULL_POINTER GEOMETRY SHAPE INDEX CONFIG ALIGNMENT WORKSPACE_TOO_SMALL NO_DRIVER DRIVER_TOO_OLD NO_DEVICE "
    "UNSUPPORTED_ARCH NO_KERNEL_IMAGE DRIVER KERNEL INTERNAL"
).split()


class Array(Structure):
    _fields_ = [("address", c_uint64), ("elements", c_size_t)]


class Tensor(Structure):
    _fields_ = [("memory", Array), ("sizes", c_size_t * 3), ("strides", c_size_t * 2)]


class Geometry(Structure):
    _fields_ = [
        (name, c_size_t)
        for name in "query_heads kv_heads latent_rank rope_heads rope_dim nope_dim value_dim".split()
    ]

    @classmethod
    def named(cls, name):
        """The sizes of a named model, such as deepseek-v3."""
        geometry = cls()
        library().la_geometry_named(name.encode(), byref(geometry))
        return geometry


class CacheLayout(Structure):
    _fields_ = [
        (name, c_size_t)
        for name in (
            "token_bytes page_bytes latent_row_bytes rope_offset rope_row_bytes affine_offset affine_row_bytes"
        ).split()
    ]


class CacheFormat(Structure):
    _fields_ = [
        ("latent_row", c_uint32),
        ("latent_group", c_uint32),
        ("rope_row", c_uint32),
        ("rope_group", c_uint32),
        ("page_size", c_size_t),
    ]

    @classmethod
    def int4(cls, page_size):
        format = cls()
        library().la_cache_format_int4(page_size, byref(format))
        return format

    @classmethod
    def bf16(cls, page_size):
        return cls(ROW_BF16, 0, ROW_BF16, 0, page_size)

    def layout(self, geometry):
        """Where things lie in a page."""
        layout = CacheLayout()
        library().la_cache_layout(byref(geometry), byref(self), byref(layout))
        return layout


class Batch(Structure):
    _fields_ = [
        ("query_starts", Array),
        ("seq_lens", Array),
        ("page_table", Array),
        ("page_starts", Array),
        ("max_pages", c_size_t),
        ("page_count", c_size_t),
    ]


class RopeAppendConfig(Structure):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat), ("pairing", c_uint32)]


class RopeAppendArgs(Structure):
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


class AbsorbConfig(Structure):
    _fields_ = [("geometry", Geometry), ("batch_invariant", c_uint32)]


class AbsorbQueryArgs(Structure):
    _fields_ = [("up_key", Tensor), ("q_nope", Tensor), ("q_latent", Tensor)]


class ExpandOutputArgs(Structure):
    _fields_ = [("up_value", Tensor), ("value_bias", Array), ("o_latent", Tensor), ("out", Tensor)]


class DecodeConfig(Structure):
    _fields_ = [
        ("geometry", Geometry),
        ("format", CacheFormat),
        ("scale", c_float),
        ("fixed_tokens", c_size_t),
        ("max_query_tokens", c_size_t),
        ("max_tokens", c_size_t),
    ]


class DecodeArgs(Structure):
    _fields_ = [("q_latent", Tensor), ("q_rope", Tensor), ("cache", Array), ("o_latent", Array), ("lse", Array)]


class CombineConfig(Structure):
    _fields_ = [("latent_rank", c_size_t), ("max_splits", c_size_t)]


class CombineArgs(Structure):
    _fields_ = [
        ("rows", c_size_t),
        ("splits", c_size_t),
        ("o_partial", Array),
        ("lse_partial", Array),
        ("o_latent", Array),
        ("lse", Array),
    ]


class UpProjectConfig(Structure):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat)]


class UpProjectArgs(Structure):
    _fields_ = [
        ("cache", Array),
        ("token_starts", Array),
        ("up_key", Tensor),
        ("up_value", Tensor),
        ("value_bias", Array),
        ("keys", Tensor),
        ("values", Tensor),
    ]


class Error(RuntimeError):
    """A call that failed: `status` is the name of the header's LA_STATUS_*, the text is the library's."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


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
}
_HANDLES = "device stream buffer rope_append absorb_query expand_output plan decode combine up_project".split()
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

    def __init__(self, ordinal=0):
        super().__init__("device", "la_device_cuda", ordinal)

    @classmethod
    def simulated(cls):
        device = cls.__new__(cls)
        _Handle.__init__(device, "device", "la_device_simulated")
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

    def upload(self, values):
        """A copy of what lies in memory without gaps: a numpy array, bytes."""
        view = memoryview(values)
        buffer = Buffer(self, view.nbytes, view.itemsize)
        library().la_upload(self, buffer.address, (ctypes.c_char * view.nbytes).from_buffer_copy(view), view.nbytes)
        return buffer

    def allocate(self, elements, itemsize):
        """Memory for so many elements, which may hold anything."""
        return Buffer(self, elements * itemsize, itemsize)


class Buffer(_Handle):
    """Device memory of the library's own."""

    def __init__(self, device, nbytes, itemsize):
        super().__init__("buffer", "la_buffer_create", device, nbytes)
        self.device, self.nbytes, self.itemsize = device, nbytes, itemsize
        address = c_uint64()
        library().la_buffer_address(self, byref(address))
        self.address = address.value

    def array(self):
        return Array(self.address, self.nbytes // self.itemsize)

    def tensor(self, *sizes):
        """The memory as a tensor [outer, middle, inner] without gaps."""
        return dense(self.array(), sizes)

    def download(self):
        values = bytearray(self.nbytes)
        library().la_download(self.device, self.address, (ctypes.c_char * self.nbytes).from_buffer(values), self.nbytes)
        return values


def dense(array, sizes):
    """A tensor [outer, middle, inner] without gaps."""
    return Tensor(array, tuple(sizes), (sizes[1] * sizes[2], sizes[2]))


def array(torch_tensor):
    """A dense tensor of PyTorch's as an array: its memory, which it must keep while kernels run."""
    if not torch_tensor.is_contiguous():
        raise ValueError("an array has no gaps")
    return Array(torch_tensor.data_ptr(), torch_tensor.numel())


def tensor(torch_tensor):
    """A bf16 tensor [outer, middle, inner] of PyTorch's, possibly a slice: its memory, as above."""
    sizes, (outer, middle, inner) = tuple(torch_tensor.shape), torch_tensor.stride()
    if inner != 1 and sizes[2] > 1:
        raise ValueError("the inner dimension must be dense")
    span = 0 if 0 in sizes else (sizes[0] - 1) * outer + (sizes[1] - 1) * middle + sizes[2]
    return Tensor(Array(torch_tensor.data_ptr(), span), sizes, (outer, middle))


class Operation(_Handle):
    """An operation by its name in the header, such as "absorb_query", made for a device and a configuration."""

    def __init__(self, device, name, config):
        super().__init__(name, f"la_{name}_create", device, byref(config))
        self._run = getattr(library(), f"la_{name}_run")

    def run(self, stream, *arguments):
        """Runs it: the arguments are structures (and, for decode, first a plan)."""
        self._run(self, stream, *(byref(a) if isinstance(a, Structure) else a for a in arguments))


class Decode(Operation):
    def __init__(self, device, config):
        super().__init__(device, "decode", config)

    def workspace_bytes(self):
        size = c_size_t()
        library().la_decode_workspace_bytes(self, byref(size))
        return size.value

    def plan(self, stream, batch, query_tokens, workspace):
        """A plan in `workspace`, an array of bytes, which must stay as long as the plan."""
        return _Handle("plan", "la_decode_plan", self, stream, byref(batch), query_tokens, workspace)
