"""That benches/peers/cpu.py measures our rows where there is numpy, and says what is missing, whatever is."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "benches/peers/cpu.py"
NO_TORCH = "ImportError: no torch on this machine"
SHAPES = ["llama3-8b-d64", "deepseek-v2-lite"]
FEW = "--tokens 100 --rounds 2 --levels portable sse9 --growth 64 128 --scaling 1 2".split()
NO_LEVEL = "Error: la_device_cpu: LATENT_ATTENTION_CPU=sse9: known levels are portable, "


def run(modules, *arguments):
    """What the script prints and reports, where these modules cannot be imported."""
    with tempfile.TemporaryDirectory() as folder:
        for module in modules:
            (Path(folder) / f"{module}.py").write_text(f"raise ImportError('no {module} on this machine')")
        path = Path(folder) / "report.json"
        command = [sys.executable, str(SCRIPT), "--json", str(path), *arguments]
        # Packages that the test was given stay to be found, behind those that stand in for others.
        paths = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        result = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
        assert result.returncode == 0 and result.stderr == "", result
        return result.stdout, json.loads(path.read_text())


# Without torch and llama.cpp, ours are measured, and checked against the reference.
printed, report = run(["torch"], "--shapes", *SHAPES, *FEW, "--llama", "nowhere", str(SCRIPT.parent))
rows = report["rows"]
beside = [row for row in rows if "x ours" in row]
assert [(row["shape"], row["name"]) for row in beside] == [(shape, "ours, portable") for shape in SHAPES], rows
assert all(row["error"] < 1e-2 and row["x ours"]["portable"]["median"] == 1 for row in beside), rows
assert [row["tokens"] for row in rows if "time of a token" in row] == [64, 128], rows
assert [row["threads"] for row in rows if "speed-up" in row] == [1, 2], rows
assert "| ours, portable | 1.00 (1.00-1.00) |" in printed, printed
missing = {entry["name"]: entry["reason"] for entry in report["missing"]}
assert missing.pop("ours, sse9").startswith(NO_LEVEL), missing
assert missing == {
    "torch SDPA, bf16": NO_TORCH,
    "torch products, bf16": NO_TORCH,
    "llama.cpp, nowhere": "Missing: nowhere is not there",
    f"llama.cpp, {SCRIPT.parent}": f"Missing: {SCRIPT.parent} has no libggml-base.so*",
}, missing

# Without numpy or the library there is nothing.
NO_FILE = "OSError: nowhere.so: cannot open shared object file: No such file or directory"
for modules, arguments, reason in [
    (["numpy"], [], "ImportError: no numpy on this machine"),
    (["torch"], ["--library", "nowhere.so"], NO_FILE),
]:
    printed, report = run(modules, "--levels", "avx2", *arguments)
    assert report["rows"] == [] and report["environment"]["unavailable"] == reason, report
    names = ["ours, avx2", "torch", "llama.cpp"]
    assert report["missing"] == [{"name": name, "shape": None, "reason": reason} for name in names], report
    assert all(f"  {name}: {reason}\n" in printed for name in names), printed
print("the peers' script for the CPU measures ours, and says what is missing")
