#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): the parts of an opcode may stand in nearly any order, types before
# modes and modes before `.sync`, though the ISA prints one order for each instruction and speaks of no other.
#
# Libraries rely on it in inline assembly, so whoever reads PTX meets orders that no syntax of the ISA has: CUB's radix
# sort, for one, has `vote.ballot.sync.b32`. There are exceptions without a rule that could be seen: `mul` wants its
# type last, and `mad` does not.
#
# Seen on Linux x86-64, both versions: each of these orders gives the machine code of the printed one, to the byte,
#     vote.ballot.sync.b32, vote.ballot.b32.sync        of  vote.sync.ballot.b32
#     shfl.b32.idx.sync                                 of  shfl.sync.idx.b32
#     ld.u32.global.gpu.relaxed                         of  ld.relaxed.gpu.global.u32
#     atom.u32.global.add                               of  atom.global.add.u32
#     add.s32.sat                                       of  add.sat.s32
#     cvt.s32.rzi.f32                                   of  cvt.rzi.s32.f32
#     ldmatrix.b16.x1.aligned.shared.sync.m8n8          of  ldmatrix.sync.aligned.m8n8.x1.shared.b16
# and mul.u32.lo and mad.u32.lo are refused: "Unexpected instruction types specified for 'mul'".
#
# Only compiled; no GPU is needed. Exits with 1 if that has changed. Needs python3 with pip, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 13.0.88 13.5.37; do
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/$version" \
        nvidia-cuda-nvcc==$version
done
python3 - "$folder" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
SAME = [
    ("vote.sync.ballot.b32", "vote.ballot.sync.b32", "%r1, %p0, 0xffffffff"),
    ("vote.sync.ballot.b32", "vote.ballot.b32.sync", "%r1, %p0, 0xffffffff"),
    ("shfl.sync.idx.b32", "shfl.b32.idx.sync", "%r1, %r0, 1, 31, 0xffffffff"),
    ("ld.relaxed.gpu.global.u32", "ld.u32.global.gpu.relaxed", "%r1, [%d0]"),
    ("atom.global.add.u32", "atom.u32.global.add", "%r1, [%d0], 1"),
    ("add.sat.s32", "add.s32.sat", "%r1, %r0, 5"),
    ("cvt.rzi.s32.f32", "cvt.s32.rzi.f32", "%r1, %f0"),
    (
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16",
        "ldmatrix.b16.x1.aligned.shared.sync.m8n8",
        "{%r1}, [tile]",
    ),
]
PTX = """.version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 a) {
.reg .pred %p<2>;
.reg .b32 %r<2>;
.reg .f32 %f<1>;
.reg .b64 %d<1>;
.shared .align 16 .b8 tile[128];
ld.param.u64 %d0, [a];
mov.u32 %r0, %tid.x;
setp.eq.u32 %p0, %r0, 1;
mov.b32 %f0, %r0;
INSTRUCTION
st.global.u32 [%d0], %r1;
ret;
}
"""


def compiled(version, instruction):
    """The machine code of a kernel with the instruction, or what ptxas says against it."""
    source, image = folder / "k.ptx", folder / "k.cubin"
    source.write_text(PTX.replace("INSTRUCTION", instruction + ";"))
    ptxas = next((folder / version).rglob("bin/ptxas"))
    ran = subprocess.run([ptxas, "-arch=sm_90a", source, "-o", image], capture_output=True, text=True)
    return ran.stderr + ran.stdout if ran.returncode else image.read_bytes()


failed = False
for version in ["13.0.88", "13.5.37"]:
    for printed, other, operands in SAME:
        one, two = (compiled(version, f"{opcode} {operands}") for opcode in (printed, other))
        same = isinstance(one, bytes) and one == two
        print(f"{version}: {other} of {printed}: {'the same bytes' if same else two}")
        failed |= not same
    for root, operands in [("mul", "%r1, %r0, 5"), ("mad", "%r1, %r0, 5, 6")]:
        refused = compiled(version, f"{root}.u32.lo {operands}")
        told = isinstance(refused, str) and f"Unexpected instruction types specified for '{root}'" in refused
        print(f"{version}: {root}.u32.lo: {'refused' if told else 'taken, or refused in other words'}")
        failed |= not told
sys.exit(failed)
PYTHON
