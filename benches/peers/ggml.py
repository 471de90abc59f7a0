"""llama.cpp's tensors and operations: the public C functions of its shared libraries libggml-base and libggml-cpu, by
ctypes. Sizes are in ggml's order, the innermost first."""

import ctypes
from ctypes import POINTER, Structure, c_bool, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

# Types by their numbers in ggml.h, the numbers in a block and its bytes.
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q8_0": (8, 32, 34)}
# That sums are to be taken in f32, by its number in ggml.h.
PRECISION_F32 = 10
# Bytes for the descriptions of a graph and its tensors.
CONTEXT_BYTES = 1 << 20


class InitParams(Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


BASE = {
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor": (c_void_p, [c_void_p, c_int, c_int, POINTER(c_int64)]),
    "ggml_permute": (c_void_p, [c_void_p, c_void_p, c_int, c_int, c_int, c_int]),
    "ggml_view_3d": (c_void_p, [c_void_p, c_void_p, c_int64, c_int64, c_int64, c_size_t, c_size_t, c_size_t]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_soft_max_ext": (c_void_p, [c_void_p, c_void_p, c_void_p, c_float, c_float]),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_float, c_float]),
    "ggml_flash_attn_ext_set_prec": (None, [c_void_p, c_int]),
    "ggml_mul_mat_set_prec": (None, [c_void_p, c_int]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "ggml_nbytes": (c_size_t, [c_void_p]),
    "ggml_backend_alloc_ctx_tensors": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_tensor_get": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
    "ggml_backend_free": (None, [c_void_p]),
}
CPU = {
    "ggml_backend_cpu_init": (c_void_p, []),
    "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int]),
}


class Missing(Exception):
    """Why llama.cpp is not here."""


class Library:
    """llama.cpp's CPU backend: of a folder's, that which llama.cpp would choose for this CPU; or that of one file."""

    def __init__(self, path):
        path = Path(path)
        if not path.exists():
            raise Missing(f"{path} is not there")
        folder = path if path.is_dir() else path.parent
        self._base = _declared(_first(folder, "libggml-base.so*"), BASE)
        if path.is_dir():
            backends = [_declared(file, CPU) for file in sorted(folder.rglob("libggml-cpu*.so*"))]
            scored = [backend for backend in backends if _score(backend) > 0]
            if not scored:
                raise Missing(f"{path} has no libggml-cpu*.so for this CPU")
            self._cpu = max(scored, key=_score)
        else:
            self._cpu = _declared(path, CPU)
        if _score(self._cpu) == 0:
            raise Missing(f"{path} is not for this CPU")
        self.name = Path(self._cpu._name).name.removeprefix("lib").split(".so")[0]

    def __getattr__(self, name):
        return getattr(self._cpu if name in CPU else self._base, name)

    def version(self):
        self._base.ggml_version.restype = ctypes.c_char_p
        return self._base.ggml_version().decode()


class Graph:
    """Tensors, and an operation on them that a number of threads computes."""

    def __init__(self, library, threads):
        self.library = library
        self._backend = library.ggml_backend_cpu_init()
        library.ggml_backend_cpu_set_n_threads(self._backend, threads)
        self.context = library.ggml_init(InitParams(CONTEXT_BYTES, None, True))
        self._graph = library.ggml_new_graph(self.context)
        self._buffer, self._contents = None, []

    def tensor(self, kind, content, *sizes):
        """A tensor with what `encoded` made."""
        tensor = self.library.ggml_new_tensor(self.context, TYPES[kind][0], len(sizes), (c_int64 * len(sizes))(*sizes))
        assert self.library.ggml_nbytes(tensor) == content.nbytes, (sizes, content.shape)
        self._contents.append((tensor, content))
        return tensor

    def finish(self, result, *sizes):
        """Allocates all tensors and fills those that were given numbers. `sizes` are the result's, in numpy's order."""
        library = self.library
        library.ggml_build_forward_expand(self._graph, result)
        self._buffer = library.ggml_backend_alloc_ctx_tensors(self.context, self._backend)
        for tensor, content in self._contents:
            library.ggml_backend_tensor_set(tensor, content.ctypes.data, 0, content.nbytes)
        self._contents.clear()
        self._result, self._out = result, np.zeros(sizes, np.float32)
        assert library.ggml_nbytes(result) == self._out.nbytes
        return self

    def __call__(self):
        status = self.library.ggml_backend_graph_compute(self._backend, self._graph)
        if status != 0:
            raise RuntimeError(f"ggml_backend_graph_compute: status {status}")
        self.library.ggml_backend_tensor_get(self._result, self._out.ctypes.data, 0, self._out.nbytes)
        return self._out

    def __del__(self):
        if self._buffer:
            self.library.ggml_backend_buffer_free(self._buffer)
        self.library.ggml_free(self.context)
        self.library.ggml_backend_free(self._backend)


def encoded(library, kind, values):
    """f32 numbers as ggml holds them, rows quantised by its own function."""
    number, block, size = TYPES[kind]
    if kind in ("f32", "f16"):
        return np.ascontiguousarray(values, np.float32 if kind == "f32" else np.float16)
    values = np.ascontiguousarray(values, np.float32)
    width = values.shape[-1]
    rows = values.size // width
    out = np.zeros((rows, width // block * size), np.uint8)
    library.ggml_quantize_chunk(number, values.ctypes.data, out.ctypes.data, 0, rows, width, None)
    return out


def decoded(kind, content, sizes):
    """What `encoded` numbers stand for, in f32."""
    if kind in ("f32", "f16"):
        return content.astype(np.float32).reshape(sizes)
    blocks = content.reshape(-1, TYPES[kind][2])
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == "q8_0":
        codes = blocks[:, 2:].view(np.int8)
    else:
        codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    return (scales * codes).reshape(sizes)


def _first(folder, pattern):
    found = sorted(folder.rglob(pattern))
    if not found:
        raise Missing(f"{folder} has no {pattern}")
    return found[0]


def _declared(file, functions):
    try:
        loaded = ctypes.CDLL(str(file))
        for name, (result, arguments) in functions.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise Missing(str(error)) from error
    return loaded


def _score(backend):
    """How well a backend serves this CPU, as it says itself; 0: it does not run here. A build for one CPU has no such
    function."""
    try:
        return backend.ggml_backend_score()
    except AttributeError:
        return 1
