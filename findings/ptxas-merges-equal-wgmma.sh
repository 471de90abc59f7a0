#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): equal `wgmma.mma_async` between one `wgmma.fence` and its
# `commit_group` become one instruction, though each adds its product to the accumulators.
#
# Four times D += A B, the same descriptors and accumulators, is D += 4 A B. The machine code has one HGMMA, which adds
# A B once. Of two products that take turns three times, two instructions are left. With a fence and a commit around
# each, all stay. There is no warning. So a throughput test that repeats one wgmma measures fewer than it counts, and a
# kernel that adds the same tiles twice on purpose is wrong.
#
# Seen on Linux x86-64, both versions (wgmma in the PTX -> HGMMA in the machine code):
#     one 1 -> 1, two 2 -> 1, four 4 -> 1, alternating 6 -> 2, four_groups 4 -> 4
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
FENCE, COMMIT = "wgmma.fence.sync.aligned;", "wgmma.commit_group.sync.aligned;"


def product(tile):
    """D += A B, m64n8k16, with the descriptors of one tile."""
    shape = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16"
    return f"{shape} {{%d0, %d1, %d2, %d3}}, %{tile}0, %{tile}1, p, 1, 1, 0, 0;"


def kernel(name, lines):
    return f"""
.visible .entry {name}(.param .u64 to, .param .u64 from) .maxntid 128 .minnctapersm 1 {{
    .reg .f32 %d<4>;
    .reg .b64 %x<2>, %y<2>, %to, %from;
    .reg .pred p;
    setp.eq.u32 p, 0, 0;
    ld.param.u64 %to, [to];
    ld.param.u64 %from, [from];
    ld.global.v2.u64 {{%x0, %x1}}, [%from];
    ld.global.v2.u64 {{%y0, %y1}}, [%from+16];
    ld.global.v4.f32 {{%d0, %d1, %d2, %d3}}, [%from+32];
    {chr(10).join(lines)}
    wgmma.wait_group.sync.aligned 0;
    st.global.v4.f32 [%to], {{%d0, %d1, %d2, %d3}};
    ret;
}}
"""


def one_group(tiles):
    return [FENCE, *map(product, tiles), COMMIT]


# What stands in the PTX, and how many instructions are left.
KERNELS = {
    "one": (one_group("x"), 1),
    "two": (one_group("xx"), 1),
    "four": (one_group("xxxx"), 1),
    "alternating": (one_group("xyxyxy"), 2),
    "four_groups": (4 * one_group("x"), 4),
}
ptx, image = folder / "k.ptx", folder / "k.cubin"
ptx.write_text(".version 9.0\n.target sm_90a\n.address_size 64\n" + "".join(kernel(n, k) for n, (k, _) in KERNELS.items()))
changed = False
for version in ["13.0.88", "13.5.37"]:
    subprocess.run([folder / version / "nvidia/cu13/bin/ptxas", "-arch=sm_90a", "-o", image, ptx], check=True)
    nvdisasm = folder / "disassembler/nvidia/cu13/bin/nvdisasm"
    code = subprocess.run([nvdisasm, "-c", image], check=True, capture_output=True, text=True).stdout
    left, function = {}, None
    for line in code.splitlines():
        if line.startswith(".text."):
            function = line.removeprefix(".text.").rstrip(":")
        elif "HGMMA" in line:
            left[function] = left.get(function, 0) + 1
    for name, (lines, expected) in KERNELS.items():
        written = sum("mma_async" in line for line in lines)
        print(f"ptxas {version}: {name}: {written} wgmma -> {left[name]} HGMMA")
        changed |= left[name] != expected
sys.exit("this has changed" if changed else 0)
PYTHON
