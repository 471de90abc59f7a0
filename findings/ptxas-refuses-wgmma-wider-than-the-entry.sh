#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): a `wgmma` with more accumulators than a kernel has registers at its entry is
# refused, though `setmaxnreg` has raised them before.
#
# A block of 512 threads begins with 128 registers a thread. `setmaxnreg.inc` gives a warpgroup up to 240 of them, and code
# behind it may use these: 180 numbers that live at the same time stand in registers without a spill, in as many as the
# instruction grants. One product of 64 x 256 needs 128 accumulators and some registers beside them. It ends ptxas with C7602,
# "Try to compile with register target of 154 or higher", whatever number `setmaxnreg` has, while a product of 64 x 192
# assembles. With 384 threads (168 registers at entry) 64 x 256 does too. So three warpgroups that multiply beside one that
# copies, at 160 registers each, cannot have the widest products.
#
# Seen on Linux x86-64, sm_90a, with both versions (threads, registers by setmaxnreg, columns of the product or live numbers):
#     384, 240, 256 columns  assembles, no spills
#     512, 240, 192 columns  assembles, no spills
#     512, 160, 256 columns  C7602
#     512, 240, 256 columns  C7602
#     512, 240, 180 live     assembles, no spills
#     512, none, 180 live    assembles, spills
#
# Only compiled; no GPU is needed. Exits with 1 if that has changed. Needs python3 with pip, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 13.0.88 13.5.37; do
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/$version" "nvidia-cuda-nvcc==$version"
done
python3 - "$folder" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
# Threads, registers by setmaxnreg (0: none), what is computed, and what ptxas says of it.
CASES = [
    (384, 240, "256 columns", "assembles, no spills"),
    (512, 240, "192 columns", "assembles, no spills"),
    (512, 160, "256 columns", "C7602"),
    (512, 240, "256 columns", "C7602"),
    (512, 240, "180 live", "assembles, no spills"),
    (512, 0, "180 live", "assembles, spills"),
]


def product(columns):
    names = [f"%d{i}" for i in range(columns // 2)]
    return [
        "wgmma.fence.sync.aligned;",
        "setp.ne.u64 p, %x0, %x0;",
        f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16 {{{', '.join(names)}}}, %x0, %x1, p, 1, 1, 0, 0;",
        "wgmma.commit_group.sync.aligned;",
        "wgmma.wait_group.sync.aligned 0;",
        *(f"st.global.f32 [%to+{4 * i}], {name};" for i, name in enumerate(names)),
    ]


def live(count):
    loads = [f"ld.volatile.global.f32 %d{i}, [%from+{4 * i}];" for i in range(count)]
    return loads + [f"st.volatile.global.f32 [%to+{4 * i}], %d{count - 1 - i};" for i in range(count)]


def source(threads, registers, what):
    count, kind = what.split()
    lines = (product if kind == "columns" else live)(int(count))
    if registers:
        lines.insert(0, f"setmaxnreg.inc.sync.aligned.u32 {registers};")
    body = "\n    ".join(lines)
    return f"""
.version 8.7
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to, .param .u64 from) .maxntid {threads} .minnctapersm 1 {{
    .reg .f32 %d<256>;
    .reg .b64 %x<2>, %to, %from;
    .reg .b32 %thread;
    .reg .pred p;
    ld.param.u64 %to, [to];
    ld.param.u64 %from, [from];
    ld.global.v2.u64 {{%x0, %x1}}, [%from];
    mov.u32 %thread, %tid.x;
    setp.ge.u32 p, %thread, 128;
    @p bra COPY;
    {body}
    ret;
COPY:
    {"setmaxnreg.dec.sync.aligned.u32 40;" if registers else ""}
    ret;
}}
"""


def said(version, case):
    ptx = folder / "kernel.ptx"
    ptx.write_text(source(*case))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    options = ["-arch=sm_90a", "-v", "-o", folder / "kernel.cubin", ptx]
    result = subprocess.run([ptxas, *options], capture_output=True, text=True)
    text = result.stdout + result.stderr
    if result.returncode:
        return ", ".join(re.findall(r"\((C\d+)\)", text)) or text
    return "assembles, " + ("no spills" if " 0 bytes spill stores" in text else "spills")


changed = False
for version in ("13.0.88", "13.5.37"):
    for *case, expected in CASES:
        found = said(version, case)
        threads, registers, what = case
        print(f"{version}  " + f"{threads}, {registers or 'none'}, {what}".ljust(22), found)
        changed |= found != expected
sys.exit(changed)
PYTHON
