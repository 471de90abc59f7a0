"""Our attention on the CPU, over numpy's arrays in place."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings/python"))
import latent_attention as la  # noqa: E402
from host_memory import HostMemory  # noqa: E402
from ours import Ours  # noqa: E402


def device(level):
    """The CPU with the instructions of a level, which the library reads from the environment when a device is made."""
    os.environ["LATENT_ATTENTION_CPU"] = level
    return la.Device.cpu()


def host_ours(inputs, level):
    """A function that attends once, bf16 [1, H, V]. All levels of the same inputs attend over one cache."""
    cpu, memory = device(level), HostMemory(la)
    if inputs.cache is None:
        inputs.cache = inputs.int4_cache(la, cpu, memory)
    return Ours(la, cpu, memory, inputs, inputs.int4, inputs.cache)
