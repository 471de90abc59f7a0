#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): a kernel whose launch bounds name only its threads loses every
# `setmaxnreg`, with success, and even where warnings are errors.
#
# A warp-specialised kernel gives registers of its producer to its consumers by `setmaxnreg`. Without a bound on the
# registers at entry, from `.minnctapersm` (the second number of `__launch_bounds__`) or `.maxnreg`, ptxas leaves the
# instructions out. It says so in a line of class info (C7508), which `--warning-as-error` does not make an error. So the
# kernel runs, with too few registers or too few blocks, and only its machine code or its speed tells.
#
# Seen on Linux x86-64, both versions (USETMAXREG in the machine code, of 2 setmaxnreg in the PTX; the notice):
#     .maxntid 384                   0, told
#     .reqntid 384                   0, told
#     .maxntid 384 .minnctapersm 1   2, silent
#     .maxntid 384 .maxnreg 168      2, silent
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
EXPECTED = {
    ".maxntid 384": (0, "told"),
    ".reqntid 384": (0, "told"),
    ".maxntid 384 .minnctapersm 1": (2, "silent"),
    ".maxntid 384 .maxnreg 168": (2, "silent"),
}


def source(bounds):
    """The last warpgroup gives registers back, the others take them."""
    return f"""
.version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to) {bounds} {{
    .reg .pred %p;
    .reg .b32 %r;
    .reg .b64 %to;
    ld.param.u64 %to, [to];
    mov.u32 %r, %tid.x;
    setp.lt.u32 %p, %r, 256;
    @%p bra consumer;
    setmaxnreg.dec.sync.aligned.u32 40;
    st.global.u32 [%to], %r;
    ret;
consumer:
    setmaxnreg.inc.sync.aligned.u32 232;
    st.global.u32 [%to+4], %r;
    ret;
}}
"""


def compiled(version, bounds):
    """How many instructions are left, and whether ptxas has said that it ignores some."""
    ptx, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    ptx.write_text(source(bounds))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    options = ["-arch=sm_90a", "-v", "--warning-as-error", "-o", cubin, ptx]
    said = subprocess.run([ptxas, *options], check=True, capture_output=True, text=True).stderr
    nvdisasm = next((folder / "disassembler").rglob("bin/nvdisasm"))
    code = subprocess.run([nvdisasm, cubin], check=True, capture_output=True, text=True).stdout
    return code.count("USETMAXREG"), "told" if "C7508" in said else "silent"


changed = []
for version in ("13.0.88", "13.5.37"):
    for bounds, expected in EXPECTED.items():
        seen = compiled(version, bounds)
        print(f"{version}  {bounds:30} {seen[0]}, {seen[1]}")
        if seen != expected:
            changed.append((version, bounds))
if changed:
    sys.exit(f"this has changed: {changed}")
PYTHON
