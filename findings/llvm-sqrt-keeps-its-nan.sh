#!/bin/sh
# LLVM 20.1.8 (llvmlite 0.45.1): a NaN chosen in place of a square root that is none is dropped, and the root's stays.
#
# `if root.is_nan() { CANONICAL } else { root }`, by which a program gives a result the one NaN that its format or its
# reference has, is first turned into a choice by the operand's sign, and then the code generator replaces the choice by
# the root alone: its NaN counts as good as any. Differences and products keep the NaN that was chosen. So bits depend
# on the operation, and on the level of optimisation: it happens from level 1 on. rustc 1.95.0 does it to f32 and f64
# alike. Choose between the bits as integers instead.
#
# Seen on Linux x86-64, Python 3.11:
#     square root of -1    as written 7fffffff, optimised ffc00000
#     infinity - infinity  as written 7fffffff, optimised 7fffffff
#     infinity * 0         as written 7fffffff, optimised 7fffffff
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 with venv, PyPI, and an x86-64 processor.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llvmlite==0.45.1
"$folder/venv/bin/python" -I - <<'PYTHON'
import ctypes
import sys

import llvmlite.binding as llvm

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

CASES = {
    "square root of -1": ("call float @llvm.sqrt.f32(float %x)", 0xBF800000, 0xFFC00000),
    "infinity - infinity": ("fsub float %x, %x", 0x7F800000, 0x7FFFFFFF),
    "infinity * 0": ("fmul float %x, 0.0", 0x7F800000, 0x7FFFFFFF),
}


def run(operation, bits, optimised):
    """The bits of the operation's result, or of the chosen NaN if it is not a number."""
    module = llvm.parse_assembly(f"""
        declare float @llvm.sqrt.f32(float)
        define i32 @chosen(i32 %bits) {{
            %x = bitcast i32 %bits to float
            %result = {operation}
            %none = fcmp uno float %result, 0.0
            %chosen = select i1 %none, float 0x7FFFFFFFE0000000, float %result
            %out = bitcast float %chosen to i32
            ret i32 %out
        }}""")
    machine = llvm.Target.from_default_triple().create_target_machine()
    if optimised:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
        builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    function = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(engine.get_function_address("chosen"))
    return function(bits)


changed = []
for name, (operation, bits, expected) in CASES.items():
    written, optimised = run(operation, bits, False), run(operation, bits, True)
    print(f"{name:20} as written {written:x}, optimised {optimised:x}")
    if (written, optimised) != (0x7FFFFFFF, expected):
        changed.append(name)
if changed:
    sys.exit(f"this has changed: {changed}")
PYTHON
