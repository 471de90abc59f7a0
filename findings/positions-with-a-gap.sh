#!/bin/sh
# transformers 5.24.0: a gap between `position_ids` silently cuts attention, where no mask is given.
#
# Without `attention_mask` and cache, positions that do not follow each other by one are taken for several sequences that
# were packed into one, and tokens behind a gap do not attend to those before it. Whoever tests a rotation at far
# positions by `position_ids` alone, or leaves tokens out of a prompt and keeps the positions of the others, compares
# with a model that has forgotten what lies before the gap. A mask of ones, which says nothing new, brings it back.
#
# Seen on Linux, Python 3.11, torch 2.13.0:
#     positions [0, 1, 2, 3]: changing the first token changes the last logits without a mask, and with one
#     positions [0, 1, 100, 101]: changing the first token does not change the last logits without a mask, and does with one
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 with venv, and PyPI (torch is large).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON' 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(1)
sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.5)).eval()


def reaches(positions, mask):
    """Whether the first token has a say in the logits of the last."""
    first, second = torch.tensor([[1, 5, 9, 13]]), torch.tensor([[2, 5, 9, 13]])
    extra = dict(position_ids=torch.tensor([positions]), attention_mask=mask)
    with torch.no_grad():
        logits = [model(input_ids=tokens, use_cache=False, **extra).logits[0, -1] for tokens in (first, second)]
    return (logits[0] - logits[1]).abs().max().item() > 1e-6


seen = []
for positions in ([0, 1, 2, 3], [0, 1, 100, 101]):
    without, with_mask = reaches(positions, None), reaches(positions, torch.ones(1, 4, dtype=torch.long))
    seen.append((without, with_mask))
    words = {(True, True): "changes the last logits without a mask, and with one",
             (False, True): "does not change the last logits without a mask, and does with one"}
    print(f"positions {positions}: changing the first token {words.get((without, with_mask), (without, with_mask))}")
if seen != [(True, True), (False, True)]:
    sys.exit("this has changed")
PYTHON
