#!/bin/sh
# nvcc of CUDA 13.0 (13.0.88): accumulators that CUDA sets before an inline `wgmma.fence` are set behind it in the PTX.
#
# The PTX ISA (9.7.15.7.1) wants a `wgmma.fence` between ordinary writes of accumulators and the wgmma that adds to them;
# without it the result is undefined. An `asm volatile("wgmma.fence...", "memory")` orders memory, but an accumulator is a
# register: nvcc materialises its value where the next asm takes it, which is behind the fence. An empty
# `asm volatile("" : "+f"(d))` for every accumulator before the fence keeps the writes in place.
#
# Seen on Linux x86-64 (of four accumulators with one initial value, whose register is the first of them, how many are
# written before and behind the fence in the PTX):
#     as written  0 before, 3 behind
#     pinned      3 before, 0 behind
#
# Only compiled; no GPU is needed. Exits with 1 if that has changed. Needs python3 with pip, PyPI, and a host C++ compiler.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/cuda" nvidia-cuda-nvcc==13.0.88 \
    nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 2>"$folder/log" ||
    { cat "$folder/log" >&2; exit 1; }
python3 - "$folder" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
SOURCE = r"""
extern "C" __global__ void kernel(const float *from, float *to, unsigned long long b, unsigned a) {
    const float start = *from;
    float d[4] = {start, start, start, start};
    PIN
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, {%4, %4, %4, %4}, %5, p, 1, 1, 0;}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a), "l"(b));
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
    to[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
"""
PIN = 'asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]));'


def writes(pin):
    """Moves into accumulators before and behind the fence."""
    cuda, ptx = folder / "kernel.cu", folder / "kernel.ptx"
    cuda.write_text(SOURCE.replace("PIN", pin))
    nvcc = next((folder / "cuda").rglob("bin/nvcc"))
    subprocess.run([nvcc, "-ptx", "-arch=compute_90a", "-o", ptx, cuda], check=True)
    before, behind = ptx.read_text().split("wgmma.fence.sync.aligned;")
    accumulators = re.search(r"f32\.f16\.f16 \{([^}]*)\}", behind)[1].replace(" ", "").split(",")
    behind = behind[: behind.index("wgmma.mma_async")]
    moved = [sum(bool(re.search(rf"mov\.\w+\s+{re.escape(d)}\b", part)) for d in accumulators) for part in (before, behind)]
    return tuple(moved)


seen = {"as written": writes(""), "pinned": writes(PIN)}
for name, (before, behind) in seen.items():
    print(f"{name:10}  {before} before, {behind} behind")
if seen != {"as written": (0, 3), "pinned": (3, 0)}:
    sys.exit("this has changed")
PYTHON
