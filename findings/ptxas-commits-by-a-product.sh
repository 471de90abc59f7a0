#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): a `wgmma.commit_group` that does not stand in the same basic block as a
# product before it becomes one more product of the tensor cores.
#
# In machine code no instruction commits: the last `HGMMA` of a group does, by its operand `gsb0`. Where products stand in a loop
# over k and the commit behind it, as the ISA's model of groups suggests, ptxas does not know the last one and appends
# `HGMMA.64x8x16.F16 RZ, gdesc[URZ], RZ, !UPT, gsb0`, a product of what a descriptor of zeros names with nobody as its result,
# and another `WARPGROUP.ARRIVE` before it. It takes the tensor cores and reads shared memory, in every round of the loop around.
# Nothing is said of it. An unrolled loop, or a commit in the loop, has none.
#
# Seen on Linux x86-64, sm_90a, with both versions (where the commit stands: products of nothing):
#     behind four products        0
#     in the loop                 0
#     behind the loop             1
#     behind a branch             1
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
import re
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
FENCE = "wgmma.fence.sync.aligned;"
PRODUCT = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %x0, %x1, p, 1, 1, 0, 0;"
NEXT = "add.s64 %x0, %x0, 2;"
COMMIT = "wgmma.commit_group.sync.aligned;"
AGAIN = ["sub.u32 %n, %n, 1;", "setp.ne.u32 q, %n, 0;", "@q bra LOOP;"]
CASES = {
    "behind four products": ([FENCE, *[PRODUCT, NEXT] * 4, COMMIT], 0),
    "in the loop": (["LOOP:", FENCE, PRODUCT, COMMIT, NEXT, *AGAIN], 0),
    "behind the loop": (["LOOP:", FENCE, PRODUCT, NEXT, *AGAIN, COMMIT], 1),
    "behind a branch": ([FENCE, PRODUCT, NEXT, "setp.eq.u32 q, %n, 0;", "@q bra END;", PRODUCT, "END:", COMMIT], 1),
}


def source(lines):
    body = "\n    ".join(lines)
    return f"""
.version 8.7
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to, .param .u64 from, .param .u32 n) .maxntid 128 .minnctapersm 1 {{
    .reg .f32 %d<4>;
    .reg .b64 %x<2>, %to, %from;
    .reg .b32 %n;
    .reg .pred p, q;
    setp.eq.u32 p, 0, 0;
    ld.param.u64 %to, [to];
    ld.param.u64 %from, [from];
    ld.param.u32 %n, [n];
    ld.global.v2.u64 {{%x0, %x1}}, [%from];
    ld.global.v4.f32 {{%d0, %d1, %d2, %d3}}, [%from+32];
    {body}
    wgmma.wait_group.sync.aligned 0;
    st.global.v4.f32 [%to], {{%d0, %d1, %d2, %d3}};
    ret;
}}
"""


def products_of_nothing(version, lines):
    ptx, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    ptx.write_text(source(lines))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    subprocess.run([ptxas, "-arch=sm_90a", "-o", cubin, ptx], check=True, stdout=subprocess.DEVNULL)
    nvdisasm = next((folder / "disassembler").rglob("bin/nvdisasm"))
    code = subprocess.run([nvdisasm, cubin], check=True, capture_output=True, text=True).stdout
    return len(re.findall(r"HGMMA\S* RZ, gdesc\[URZ\], RZ, !UPT, gsb0", code))


changed = False
for version in ("13.0.88", "13.5.37"):
    for name, (lines, expected) in CASES.items():
        found = products_of_nothing(version, lines)
        print(f"{version}  {name:<27} {found}")
        changed |= found != expected
sys.exit(changed)
PYTHON
