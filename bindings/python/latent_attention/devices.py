"""Devices and streams."""

import ctypes
import itertools
import operator
from ctypes import POINTER, byref, c_char_p, c_size_t, c_void_p

from .dtypes import dtype_of_view, name_and_size
from .errors import Error
from .loading import HANDLE, OUT, Handle, declare, library
from .memory import Buffer

declare(
    "device stream",
    la_device_cuda=[c_size_t, OUT],
    la_device_cpu=[OUT],
    la_device_simulated=[OUT],
    la_device_name=[HANDLE, POINTER(c_char_p)],
    la_device_synchronize=[HANDLE],
    la_stream_create=[HANDLE, OUT],
    la_stream_borrow=[HANDLE, c_void_p, OUT],
    la_stream_synchronize=[HANDLE],
)


class Device(Handle):
    """The first GPU, or another; `Device.cpu()` is the CPU, `Device.simulated()` the simulator."""

    _simulators = itertools.count()

    def __init__(self, ordinal=0):
        super().__init__("device", "la_device_cuda", ordinal)
        self.place = f"cuda:{ordinal}"

    @classmethod
    def cpu(cls):
        """The CPU, which takes memory of the process as it is: PyTorch's tensors on the CPU."""
        return cls._made("la_device_cpu", "cpu")

    @classmethod
    def simulated(cls):
        return cls._made("la_device_simulated", f"simulator {next(cls._simulators)}")

    @classmethod
    def _made(cls, function, place):
        device = cls.__new__(cls)
        Handle.__init__(device, "device", function)
        device.place = place
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
            return Handle("stream", "la_stream_create", self)
        return Handle("stream", "la_stream_borrow", self, borrowed)

    def upload(self, values, dtype=None):
        """A copy of what lies in memory without gaps: a numpy array, an array.array, bytes. Its elements are of the
        type that it says, where a uint16 stands for the bits of a bf16, or of the DTYPE_* that is given."""
        view = memoryview(values)
        if not view.c_contiguous:
            raise Error("SHAPE", f"values: expected memory without gaps, got {view.shape} with strides {view.strides}")
        dtype = dtype or dtype_of_view(view, "values")
        name, size = name_and_size(dtype)
        if view.nbytes % size:
            raise Error("SHAPE", f"values: expected whole elements of {name}, got {view.nbytes} bytes")
        buffer = Buffer(self, view.nbytes, dtype)
        library().la_upload(self, buffer.address, (ctypes.c_char * view.nbytes).from_buffer_copy(view), view.nbytes)
        return buffer

    def allocate(self, elements, dtype):
        """Memory for so many elements of a DTYPE_*, which may hold anything."""
        (name, size), elements = name_and_size(dtype), operator.index(elements)
        if not 0 <= elements * size <= c_size_t(-1).value:
            raise Error("CONFIG", f"{elements} elements of {name}: must be from 0 to as many bytes as have addresses")
        return Buffer(self, elements * size, dtype)
