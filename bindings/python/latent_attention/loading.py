"""The shared library, loaded, and its functions with the types of their arguments."""

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_uint32, c_void_p
from pathlib import Path

from .constants import ABI_VERSION, STATUS
from .errors import Error
from .finding import ADVICE, places

HANDLE, OUT = c_void_p, POINTER(c_void_p)
# The arguments of every function that returns a status, by its name, and the kinds of handles, each of which has a
# function that destroys it. The modules of this package add what they call, before the first call.
STATUS_FUNCTIONS = {}
HANDLES = []
_library = None


def declare(handles="", **functions):
    """Adds kinds of handles, and functions with their arguments."""
    HANDLES.extend(handles.split())
    STATUS_FUNCTIONS.update(functions)


def library(path=None):
    """The library, loaded at the first call: from `path` if it is given then. Otherwise it is the file that
    LATENT_ATTENTION_LIBRARY names, or the first that there is of: one beside this package's modules, target/capi of the
    checkout that the package lies in or was installed from, what the system's loader finds.

    Raises OSError if there is none or it cannot be loaded, ImportError if it is of another version."""
    global _library
    if _library is None:
        _library = _prepared(_loaded([str(path)] if path else places()))
    return _library


def _loaded(paths):
    """The first of these files that there is."""
    *files, last = paths
    path = next((file for file in files if Path(file).is_file()), last)
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        searched = (path if os.path.dirname(path) else f"{path}, by the system's loader" for path in paths)
        raise OSError("\n  ".join([f"{error}\n{ADVICE}\nPlaces that were searched:", *searched])) from None


def _prepared(loaded):
    """The library, whose functions check their arguments' types and raise what they return."""
    loaded.la_abi_version.restype = c_uint32
    if loaded.la_abi_version() != ABI_VERSION:
        raise ImportError(
            f"{loaded._name} has ABI version {loaded.la_abi_version()}, this package is for {ABI_VERSION}\n{ADVICE}"
        )
    loaded.la_last_error.restype = c_char_p

    def check(status, function, arguments):
        if status != 0:
            name = STATUS[status] if status < len(STATUS) else str(status)
            raise Error(name, f"{function.__name__}: {loaded.la_last_error().decode()}")

    for name, arguments in STATUS_FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype, function.errcheck = arguments, c_int, check
    for name in HANDLES:
        function = getattr(loaded, f"la_{name}_destroy")
        function.argtypes, function.restype = [HANDLE], None
    return loaded


class Handle:
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
