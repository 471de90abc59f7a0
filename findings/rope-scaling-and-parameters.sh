#!/bin/sh
# transformers 5.24.0: `rope_scaling` beside `rope_parameters` drops the latter, theta included, without a warning.
#
# transformers 5 saves a rotation as `rope_parameters`, with `rope_theta` among them; model cards written for
# version 4 tell users to add `rope_scaling` for long contexts. Where a config.json has both, the configuration that
# transformers reads is `rope_scaling` alone, and rope_theta falls back to 10000 although the file says 1000000.
# Every frequency but the first is then wrong, whatever the scaling does.
#
# Seen on Linux, Python 3.11:
#     as saved:          {'rope_theta': 1000000.0, 'rope_type': 'default'}
#     with rope_scaling: rope_theta 10000.0, rope_type yarn
#     lines of warning about it: 0
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 with venv, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON' 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
import json
import sys
from pathlib import Path

from transformers import AutoConfig, Qwen2Config

folder = Path(sys.argv[1])
Qwen2Config(rope_parameters={"rope_type": "default", "rope_theta": 1e6}).save_pretrained(folder)
path = folder / "config.json"
saved = json.loads(path.read_text())
print("as saved:         ", saved["rope_parameters"])

saved["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
path.write_text(json.dumps(saved))
read = AutoConfig.from_pretrained(folder).rope_parameters
print(f"with rope_scaling: rope_theta {read['rope_theta']}, rope_type {read['rope_type']}")
if saved["rope_parameters"]["rope_theta"] != 1e6 or read["rope_theta"] != 10000.0 or read["rope_type"] != "yarn":
    sys.exit("this has changed")
PYTHON
warnings=$(grep -c -i -e theta -e rope_parameters "$folder/log" || true)
echo "lines of warning about it: $warnings"
[ "$warnings" -eq 0 ]
