#!/bin/sh
# ptxas of CUDA 13.0 (13.0.88) and 13.5 (13.5.37): `bfe` and `bfi` of 64 bits take position and length as they are, where
# the forms of 32 bits, and the PTX ISA's pseudo-code for both, take them modulo 256.
#
# The ISA (9.7.1.19 and 20) restricts both operands to 0 to 255 and computes with `b & 0xff` and `c & 0xff`. ptxas refuses
# a literal beyond that, but not a register. With 260 in one, bfe.u32 is compiled as if 4 were written there, and bfe.u64
# as if 64 were: a field that begins past the end. So a bit field that was tested with 32 bits changes its meaning with
# 64, and an emulator that follows the pseudo-code differs from the machine.
#
# Seen on Linux x86-64, both versions (which literal has the same machine code as a register with 260):
#     bfe.u32: position as 4, length as 4
#     bfe.u64: position as 64, length as 64
#     bfi.b32: position as 4, length as 4
#     bfi.b64: position as 64, length as 64
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
REGISTER = {"32": "%r", "64": "%x"}


def kernel(instruction, position, length, field="%position, %length"):
    """Extracts from, or inserts into, words that are read from memory. Position and length are in registers."""
    bits = instruction[-2:]
    word = REGISTER[bits]
    operands = f"{word}1, {word}0" if instruction.startswith("bfi") else f"{word}0"
    return f"""
.version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 to) {{
    .reg .b32 %r<4>, %position, %length;
    .reg .b64 %x<4>, %to;
    ld.param.u64 %to, [to];
    ld.global.b{bits} {word}0, [%to];
    ld.global.b{bits} {word}1, [%to+8];
    mov.b32 %position, {position};
    mov.b32 %length, {length};
    {instruction} {word}2, {operands}, {field};
    st.global.b{bits} [%to+16], {word}2;
    ret;
}}
"""


def compiled(version, text):
    """The machine code of a kernel, or what ptxas says."""
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(text)
    ptxas = folder / version / "nvidia/cu13/bin/ptxas"
    run = subprocess.run([ptxas, "-arch=sm_90a", "-o", cubin, source], capture_output=True, text=True)
    if run.returncode:
        return run.stderr
    nvdisasm = folder / "disassembler/nvidia/cu13/bin/nvdisasm"
    return subprocess.run([nvdisasm, "-hex", cubin], capture_output=True, text=True, check=True).stdout


def same(version, instruction, place):
    """Which of 4 and 64 has the code of 260 as position or as length."""

    def code(number):
        position, length = (number, 8) if place == "position" else (8, number)
        return compiled(version, kernel(instruction, position, length))

    alike = [number for number in (4, 64) if code(number) == code(260)]
    return alike[0] if len(alike) == 1 else None


EXPECTED = {"bfe.u32": 4, "bfe.u64": 64, "bfi.b32": 4, "bfi.b64": 64}
as_seen = True
for version in ("13.0.88", "13.5.37"):
    refused = "expected to be in range [0..255]" in compiled(version, kernel("bfe.u64", 0, 0, "260, 8"))
    as_seen &= refused
    print(f"ptxas {version}: a literal 260 is {'refused' if refused else 'accepted'}")
    for instruction, number in EXPECTED.items():
        found = {place: same(version, instruction, place) for place in ("position", "length")}
        as_seen &= set(found.values()) == {number}
        print(f"    {instruction}: " + ", ".join(f"{place} as {number}" for place, number in found.items()))
if not as_seen:
    sys.exit("no longer as seen")
PYTHON
