#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): basic blocks with `cp.async` begin their copies with three loads that are
# switched off.
#
# Before the first LDGSTS of a basic block stand three `@!PT LDS RZ, [RZ]`: loads of shared memory whose predicate is never
# true and whose result goes nowhere. For sm_80 to sm_89 the first block with copies has none, the others do; from sm_90 on
# all of them. They load nothing, but each takes an issue slot, so that a copy behind a branch of its own costs four
# instructions where its PTX has one. Several copies in one block, predicated where need be, pay once.
#
# Seen on Linux x86-64 (LDS / LDGSTS), with both versions:
#                       sm_80   sm_89   sm_90a   sm_100   sm_120
#     one copy          0 / 1   0 / 1   3 / 1    3 / 1    3 / 1
#     four in a row     0 / 4   0 / 4   3 / 4    3 / 4    3 / 4
#     behind a branch   0 / 1   0 / 1   3 / 1    3 / 1    3 / 1
#     in two blocks     3 / 2   3 / 2   6 / 2    6 / 2    6 / 2
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
COPY = "cp.async.ca.shared.global [%to+{0}], [%from+{0}], 16;"
BODIES = {
    "one copy": COPY.format(0),
    "four in a row": "\n    ".join(COPY.format(16 * i) for i in range(4)),
    "behind a branch": f"setp.eq.u32 p, %left, 0;\n    @p bra done;\n    {COPY.format(0)}\ndone:",
    "in two blocks": f"setp.eq.u32 p, %left, 0;\n    @p bra done;\n    {COPY.format(0)}\n    bar.sync 0;\n"
    f"    setp.eq.u32 p, %left, 1;\n    @p bra done;\n    {COPY.format(16)}\ndone:",
}
# Loads of the first block with copies; others have 3 each.
FIRST = {"sm_80": 0, "sm_89": 0, "sm_90a": 3, "sm_100": 3, "sm_120": 3}


def source(arch, body):
    return f"""
.version 8.7
.target {arch}
.address_size 64
.visible .entry kernel(.param .u64 from, .param .u32 number) {{
    .reg .b64 %from;
    .reg .b32 %to, %left;
    .reg .pred p;
    .shared .align 16 .b8 room[4096];
    ld.param.u64 %from, [from];
    ld.param.u32 %left, [number];
    mov.u32 %to, room;
    {body}
    cp.async.wait_all;
    ret;
}}
"""


def counts(version, arch, body):
    ptx, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    ptx.write_text(source(arch, body))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    subprocess.run([ptxas, f"-arch={arch}", "-o", cubin, ptx], check=True)
    nvdisasm = next((folder / "disassembler").rglob("bin/nvdisasm"))
    code = subprocess.run([nvdisasm, cubin], check=True, capture_output=True, text=True).stdout
    return code.count("@!PT LDS RZ, [RZ]"), code.count("LDGSTS")


changed = False
for version in ("13.0.88", "13.5.37"):
    for name, body in BODIES.items():
        copies, further = body.count("cp.async"), 1 if name == "in two blocks" else 0
        for arch, first in FIRST.items():
            found = counts(version, arch, body)
            print(f"{version}  {name:<16} {arch:<7} {found[0]} / {found[1]}")
            changed |= found != (first + 3 * further, copies)
sys.exit(changed)
PYTHON
