"""That benches/peers/peers.py starts and says what is missing, whatever is."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "benches/peers/peers.py"
ROWS = [
    "ours, int4",
    "ours, bf16",
    "FlashMLA, bf16",
    "FlashAttention-3 q_v, bf16",
    "FlashAttention-3 q_v, bf16, planned",
    "vLLM Triton MLA, bf16",
    "FlashInfer MLA, bf16",
    "torch SDPA, flash, uncompressed",
    "torch SDPA, cuDNN, uncompressed",
    "FlashAttention-3, uncompressed",
]
NO_GPU = "import types\n__version__ = '0'\ncuda = types.SimpleNamespace(is_available=lambda: False)\n"

NO_FILE = "OSError: nowhere.so: cannot open shared object file: No such file or directory"

cases = [
    ("raise ImportError('no torch on this machine')", [], "ImportError: no torch on this machine"),
    (NO_GPU, [], "there is no GPU that torch can use"),
    (NO_GPU, ["--library", "nowhere.so"], NO_FILE),
]
for torch, arguments, reason in cases:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "torch.py").write_text(torch)
        path = Path(folder) / "report.json"
        command = [sys.executable, str(SCRIPT), "--json", str(path), *arguments]
        run = subprocess.run(command, env=os.environ | {"PYTHONPATH": folder}, capture_output=True, text=True)
        assert run.returncode == 0 and run.stderr == "", run
        assert all(f"  {name}: {reason}\n" in run.stdout for name in ROWS), run.stdout
        report = json.loads(path.read_text())
        assert report["rows"] == [] and report["environment"]["unavailable"] == reason, report
        assert report["missing"] == [{"name": name, "shape": None, "reason": reason} for name in ROWS], report
print("the peers' script says what is missing")
