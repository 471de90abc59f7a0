"""numpy's arrays as the memory of our operations on the CPU, in place; and bf16, which numpy has not."""

import numpy as np

# Bytes, as a workspace of the library's wants it. numpy aligns its own memory to 16 bytes, within lines of the caches.
ALIGNMENT = 256
# A bf16 number is a uint16 with its bits.
DTYPES = {"bfloat16": np.uint16, "float32": np.float32, "uint8": np.uint8}


def zeros(*sizes, dtype):
    """An array of zeros that begins on a multiple of ALIGNMENT."""
    size = int(np.prod(sizes)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(sizes)


def aligned(values):
    """A copy that begins on a multiple of ALIGNMENT."""
    copy = zeros(*values.shape, dtype=values.dtype)
    copy[...] = values
    return copy


def bf16(values):
    """Rounds to bf16, the upper half of an f32; ties go to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return aligned(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16))


def wide(bits):
    """bf16 numbers as f32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class HostMemory:
    """Arrays as the library's arguments."""

    def __init__(self, la):
        self._la = la
        self._dtypes = {
            np.dtype(np.uint8): la.DTYPE_U8,
            np.dtype(np.uint16): la.DTYPE_BF16,
            np.dtype(np.int32): la.DTYPE_I32,
            np.dtype(np.int64): la.DTYPE_I64,
            np.dtype(np.uint64): la.DTYPE_U64,
            np.dtype(np.float32): la.DTYPE_F32,
        }
        self._kept = []  # The library's structs hold addresses alone.

    def zeros(self, *sizes, dtype):
        return zeros(*sizes, dtype=DTYPES[dtype])

    def copy(self, array):
        return aligned(array)

    def stream(self):
        return 0

    def array(self, array):
        assert array.flags.c_contiguous
        self._kept.append(array)
        return self._la.Array(array.ctypes.data, array.size, self._dtypes[array.dtype])

    def tensor(self, array):
        return self._la.dense(self.array(array), array.shape)

    def fetch(self, array):
        return array
