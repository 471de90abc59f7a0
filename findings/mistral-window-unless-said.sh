#!/bin/sh
# transformers 5.24.0: a Mistral configuration that does not mention `sliding_window` has one of 4096 tokens.
#
# Only null says that there is none. Likewise a configuration that does not mention `num_key_value_heads` has 8, where one
# of Llama has as many as query heads. A reader that takes a missing key for "none", which it is in Llama's files of the
# same layout, attends to tokens that the model never saw, and wrong sizes are found only if a tensor's shape gives them
# away. Published files of v0.1 name both keys; what converters and fine-tuning scripts write need not.
#
# Seen on Linux, Python 3.11:
#     llama, neither key                sliding_window none of that name, num_key_value_heads 32
#     mistral, neither key              sliding_window 4096, num_key_value_heads 8
#     mistral, sliding_window null      sliding_window None, num_key_value_heads 8
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 with venv, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
cat > "$folder/read.py" <<'PYTHON'
import json
import pathlib
import sys
import tempfile

from transformers import AutoConfig

SIZES = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "max_position_embeddings": 32768}
MISSING = "none of that name"
CASES = [
    ("llama, neither key", {"model_type": "llama"}, (MISSING, 32)),
    ("mistral, neither key", {"model_type": "mistral"}, (4096, 8)),
    ("mistral, sliding_window null", {"model_type": "mistral", "sliding_window": None}, (None, 8)),
]

same = True
for name, keys, expected in CASES:
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps({**SIZES, **keys}))
        config = AutoConfig.from_pretrained(folder)
    seen = getattr(config, "sliding_window", MISSING), config.num_key_value_heads
    print(f"{name:<33} sliding_window {seen[0]}, num_key_value_heads {seen[1]}")
    same = same and seen == expected
sys.exit(not same)
PYTHON
"$folder/venv/bin/python" -I "$folder/read.py" 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
