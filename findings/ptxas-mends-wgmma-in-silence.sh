#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): a `wgmma` without its `fence` gets one, of which 13.0 tells and 13.5 does
# not; one without its `commit_group` is committed, of which neither tells.
#
# Registers that a `wgmma.mma_async` reads must stand behind a `wgmma.fence`, and only what is committed can be waited for.
# A kernel that forgets either runs all the same, as ptxas mends it. 13.0 prints a line of class info on the fence (C7519),
# which `--warning-as-error` does not make an error; 13.5 prints nothing, so that who reads the notices of one version
# misses it with the other. A missing wait is told by both (C7517).
#
# Seen on Linux x86-64 (what is missing: what the machine code has, as if it were there; the notice):
#     13.0.88  nothing  1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, silent
#     13.0.88  fence    1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, C7519
#     13.0.88  commit   1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, silent
#     13.0.88  wait     1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, C7517
#     13.5.37  nothing  1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, silent
#     13.5.37  fence    1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, silent
#     13.5.37  commit   1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, silent
#     13.5.37  wait     1 ARRIVE, 1 HGMMA gsb0, 1 DEPBAR, C7517
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
LINES = {
    "fence": "wgmma.fence.sync.aligned;",
    "product": "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %x0, %x1, p, 1, 1, 0, 0;",
    "commit": "wgmma.commit_group.sync.aligned;",
    "wait": "wgmma.wait_group.sync.aligned 0;",
}
NOTICES = {"13.0.88": {"fence": "C7519", "wait": "C7517"}, "13.5.37": {"wait": "C7517"}}


def source(missing):
    lines = "\n    ".join(line for name, line in LINES.items() if name != missing)
    return f"""
.version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to, .param .u64 from) .maxntid 128 .minnctapersm 1 {{
    .reg .f32 %d<4>;
    .reg .b64 %x<2>, %to, %from;
    .reg .pred p;
    setp.eq.u32 p, 0, 0;
    ld.param.u64 %to, [to];
    ld.param.u64 %from, [from];
    ld.global.v2.u64 {{%x0, %x1}}, [%from];
    ld.global.v4.f32 {{%d0, %d1, %d2, %d3}}, [%from+32];
    {lines}
    st.global.v4.f32 [%to], {{%d0, %d1, %d2, %d3}};
    ret;
}}
"""


def compiled(version, missing):
    """What of the wgmma is in the machine code, and the notices."""
    ptx, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    ptx.write_text(source(missing))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    options = ["-arch=sm_90a", "-v", "--warning-as-error", "-o", cubin, ptx]
    said = subprocess.run([ptxas, *options], check=True, capture_output=True, text=True).stderr
    nvdisasm = next((folder / "disassembler").rglob("bin/nvdisasm"))
    code = subprocess.run([nvdisasm, cubin], check=True, capture_output=True, text=True).stdout
    found = [len(re.findall(name, code)) for name in (r"WARPGROUP\.ARRIVE", r"HGMMA.*gsb0", r"WARPGROUP\.DEPBAR")]
    return found, ", ".join(re.findall(r"\((C\d+)\)", said)) or "silent"


changed = []
for version, told in NOTICES.items():
    for missing in ("nothing", "fence", "commit", "wait"):
        (fences, products, waits), notices = compiled(version, missing)
        print(f"{version}  {missing:7}  {fences} ARRIVE, {products} HGMMA gsb0, {waits} DEPBAR, {notices}")
        if [fences, products, waits] != [1, 1, 1] or notices != told.get(missing, "silent"):
            changed.append((version, missing))
if changed:
    sys.exit(f"this has changed: {changed}")
PYTHON
