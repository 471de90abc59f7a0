"""What the header's structs of arguments have in common."""

from ctypes import Structure, c_size_t, c_uint32, c_uint64

from .errors import Error
from .memory import Array, Tensor, array, tensor


class Struct(Structure):
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


def fields(kind, names):
    return [(name, kind) for name in names.split()]
