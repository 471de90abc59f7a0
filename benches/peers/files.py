"""Files of vLLM's wheel, which hold several peers and need no installed vLLM."""

import functools
import importlib.util
import lzma
import sys
import tempfile
import types
from pathlib import Path

import torch


class Missing(Exception):
    """A peer that is not here, with the reason."""


def find(folder, name):
    """The file in `folder` or, without one, in the installed package; an .xz beside it is unpacked."""
    if folder is None:
        package = importlib.util.find_spec("vllm")
        if package is None:
            raise Missing(f"no {name}: vllm is not installed, and --vllm names no folder with files of its wheel")
        folder = package.submodule_search_locations[0]
    for path in sorted(Path(folder).rglob(name)):
        return path
    for path in sorted(Path(folder).rglob(name + ".xz")):
        unpacked = Path(tempfile.mkdtemp(prefix="peers-")) / name
        unpacked.write_bytes(lzma.decompress(path.read_bytes()))
        return unpacked
    raise Missing(f"no {name} in {folder}")


@functools.cache
def operators(folder, library, namespace):
    """The torch operators of a shared library."""
    torch.ops.load_library(str(find(folder, library)))
    return getattr(torch.ops, namespace)


@functools.cache
def triton_decode(folder):
    """vLLM's Triton kernel: one file, which asks vLLM for Triton, and whether this is an AMD GPU."""
    path = find(folder, "triton_decode_attention.py")
    import triton
    import triton.language

    platform = types.SimpleNamespace(is_rocm=lambda: False)
    stand_ins = {
        "vllm": {},
        "vllm.platforms": {"current_platform": platform},
        "vllm.triton_utils": {"triton": triton, "tl": triton.language},
        # It asks whether Triton is older than 3.2, to explain a warning.
        "packaging": {"version": types.SimpleNamespace(parse=lambda text: tuple(map(int, text.split(".")[:2])))},
    }
    replaced = {name: sys.modules.get(name) for name in stand_ins}
    for name, contents in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        sys.modules[name] = module
    try:
        spec = importlib.util.spec_from_file_location("triton_decode_attention", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name, before in replaced.items():
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
    return module
