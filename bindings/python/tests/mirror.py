"""That the package declares what bindings/c/include/latent_attention.h does."""

import ctypes
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bindings/python"))
import latent_attention as la  # noqa: E402
from latent_attention import loading  # noqa: E402

SCALARS = {"size_t": ctypes.c_size_t, "uint64_t": ctypes.c_uint64, "uint32_t": ctypes.c_uint32, "float": ctypes.c_float}

header = re.sub(r"//.*", "", (ROOT / "bindings/c/include/latent_attention.h").read_text())


def ctype(name, length=None):
    scalar = SCALARS.get(name) or getattr(la, name.removeprefix("La"))
    return scalar * int(length) if length else scalar


structs = re.findall(r"typedef struct \{(.*?)\} La(\w+);", header, re.DOTALL)
assert len(structs) == 19, [name for _, name in structs]
for body, name in structs:
    fields = re.findall(r"(\w+) (\w+)(?:\[(\d+)\])?;", body)
    expected = [(field, ctype(kind, length)) for kind, field, length in fields]
    assert expected == getattr(la, name)._fields_, f"{name}: {expected}"

statuses = re.findall(r"LA_STATUS_(\w+) = (\d+),", header)
assert statuses == [(name, str(value)) for value, name in enumerate(la.STATUS)], statuses

constants = re.findall(r"#define LA_(\w+) (\d+)", header)
assert len(constants) == 15 and all(getattr(la, name) == int(value) for name, value in constants), constants

functions = {
    name: [argument.strip() for argument in arguments.split(",")]
    for name, arguments in re.findall(r"LaStatus (la_\w+)\((.*?)\);", header, re.DOTALL)
}
assert functions.keys() == loading.STATUS_FUNCTIONS.keys(), functions.keys() ^ loading.STATUS_FUNCTIONS.keys()


def argument_type(declared):
    kind = declared.rsplit(" ", 1)[0].removeprefix("const ").strip() + "*" * declared.count("*")
    name, stars = kind.rstrip("*").strip(), declared.count("*")
    if name.startswith("La") and hasattr(la, name[2:]) and issubclass(getattr(la, name[2:]), ctypes.Structure):
        return ctypes.POINTER(ctype(name)) if stars else ctype(name)
    if name.startswith("La") or name == "void":
        return [None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)][stars]
    if name == "char":
        return [None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)][stars]
    return ctypes.POINTER(ctype(name)) if stars else ctype(name)


for name, arguments in functions.items():
    expected = [argument_type(argument) for argument in arguments]
    assert expected == loading.STATUS_FUNCTIONS[name], f"{name}: {expected}"

handles = re.findall(r"void la_(\w+)_destroy", header)
assert sorted(handles) == sorted(loading.HANDLES), handles
print(f"the package has the header's {len(structs)} structs and {len(functions) + len(handles)} functions")
