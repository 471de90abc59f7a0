#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): an arrival with release at a barrier of another block of the cluster is
# preceded by a fence of the whole GPU.
#
# `mbarrier.arrive.release.cluster` at a barrier in another block's shared memory asks for an order that the cluster sees.
# The machine code has `MEMBAR.ALL.GPU`, `ERRBAR` and `CGAERRBAR` before the arrival, which waits until everything that the
# thread has written is visible to the GPU, whatever it is; with `.relaxed` (PTX ISA 8.0) there is none of them. The same
# arrival at the block's own barrier has none either. And a wait with `.acquire.cluster` is followed by `CCTL.IVALL`, which
# throws away what the L1 cache holds, where one of the block's own scope is not. Nothing is said, so that one arrival in a
# loop over tiles costs more than the copies that it announces. Stores that complete a transaction (`st.async`) need neither.
#
# Seen on Linux x86-64, sm_90a, with both versions (MEMBAR.ALL.GPU / ERRBAR / CGAERRBAR / CCTL.IVALL):
#     arrive.release.cluster, another block's     1 / 1 / 1 / 0
#     arrive.relaxed.cluster, another block's     0 / 0 / 0 / 0
#     arrive.release.cta, own                     0 / 0 / 0 / 0
#     try_wait.acquire.cluster                    0 / 0 / 0 / 1
#     try_wait.acquire.cta                        0 / 0 / 0 / 0
#
# Only compiled and disassembled; no GPU is needed. Exits with 1 if that has changed. Needs python3 with pip, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
install() { # folder, packages
    target=$1
    shift
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/$target" "$@"
}
install disassembler nvidia-cuda-nvdisasm==13.2.51
install 13.0.88 nvidia-cuda-nvcc==13.0.88
install 13.5.37 nvidia-cuda-nvcc==13.5.37
python3 - "$folder" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
REMOTE = "mapa.shared::cluster.u32 %far, %near, %rank;\n    "
ARRIVE = "mbarrier.arrive.{}.cluster.shared::cluster.b64 _, [%far];"
WAIT = "mbarrier.try_wait.parity.acquire.{}.shared::cta.b64 p, [%near], 0;\n    selp.u32 %rank, 1, 0, p;"
BODIES = {
    "arrive.release.cluster, another block's": (REMOTE + ARRIVE.format("release"), (1, 1, 1, 0)),
    "arrive.relaxed.cluster, another block's": (REMOTE + ARRIVE.format("relaxed"), (0, 0, 0, 0)),
    "arrive.release.cta, own": ("mbarrier.arrive.release.cta.shared::cta.b64 _, [%near];", (0, 0, 0, 0)),
    "try_wait.acquire.cluster": (WAIT.format("cluster"), (0, 0, 0, 1)),
    "try_wait.acquire.cta": (WAIT.format("cta"), (0, 0, 0, 0)),
}


def source(body):
    return f"""
.version 8.7
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to, .param .u32 block) {{
    .reg .b64 %to;
    .reg .b32 %near, %far, %rank;
    .reg .pred p;
    .shared .align 8 .b8 barrier[8];
    ld.param.u64 %to, [to];
    ld.param.u32 %rank, [block];
    mov.u32 %near, barrier;
    {body}
    st.global.u32 [%to], %rank;
    ret;
}}
"""


def counts(version, body):
    ptx, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    ptx.write_text(source(body))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    subprocess.run([ptxas, "-arch=sm_90a", "-o", cubin, ptx], check=True)
    nvdisasm = next((folder / "disassembler").rglob("bin/nvdisasm"))
    code = subprocess.run([nvdisasm, cubin], check=True, capture_output=True, text=True).stdout
    words = code.replace(";", " ").split()
    return tuple(sum(word.startswith(name) for word in words) for name in ("MEMBAR.ALL.GPU", "ERRBAR", "CGAERRBAR", "CCTL.IVALL"))


changed = False
for version in ("13.0.88", "13.5.37"):
    for name, (body, expected) in BODIES.items():
        found = counts(version, body)
        print(f"{version}  {name:<41}", " / ".join(map(str, found)))
        changed |= found != expected
sys.exit(changed)
PYTHON
