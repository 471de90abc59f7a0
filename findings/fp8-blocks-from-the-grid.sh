#!/bin/sh
# transformers 5.24.0: FP8 weights are dequantised in blocks that are not those of the configuration, where 128 does not divide.
#
# `weight_block_size` [128, 128] means a factor for each 128 rows and columns, the last block being what is left over:
# DeepSeek-V3 is published so, and its kernels read it so. `Fp8Dequantize`, which every model without an FP8 GPU goes
# through, divides the matrix evenly by the grid of factors instead. Of 192 rows with two factors the first 96 get the
# first one, and 32 rows a wrong weight, silently; 576 rows with five factors (`kv_a_proj_with_mqa` of DeepSeek-V3 itself)
# are an error.
#
# Seen on Linux, Python 3.11, torch 2.13.0:
#     192 rows of ones with factors 1 and 2 for blocks of 128: loaded as 96 rows of 1 and 96 rows of 2
#     576 rows with five factors: Weight shape (576, 192) not divisible by scale grid (5, 2).
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 with venv, and PyPI (torch is large).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.13.0 accelerate==1.15.0 numpy==2.4.6 safetensors==0.8.0
FOLDER="$folder" "$folder/venv/bin/python" - <<'PYTHON' 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
import json
import os
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

folder = pathlib.Path(os.environ["FOLDER"]) / "model"
LlamaForCausalLM(
    LlamaConfig(hidden_size=192, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=8)
).save_pretrained(folder)
config = json.loads((folder / "config.json").read_text())
config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
(folder / "config.json").write_text(json.dumps(config))
tensors = load_file(folder / "model.safetensors")
for name in [name for name in tensors if "_proj" in name]:
    rows, cols = tensors[name].shape
    grid = -(-rows // 128), -(-cols // 128)
    tensors[name] = torch.ones(rows, cols).to(torch.float8_e4m3fn)
    tensors[name + "_scale_inv"] = torch.arange(1.0, grid[0] + 1)[:, None].repeat(1, grid[1])
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
column = model.model.layers[0].self_attn.q_proj.weight[:, 0]
counts = [int((column == factor).sum()) for factor in (1, 2)]
print(f"192 rows of ones with factors 1 and 2 for blocks of 128: loaded as {counts[0]} rows of 1 and {counts[1]} rows of 2")
try:
    Fp8Dequantize(None)._dequantize_one(torch.ones(576, 192).to(torch.float8_e4m3fn), torch.ones(5, 2))
    refusal = "no error"
except ValueError as error:
    refusal = str(error)
print(f"576 rows with five factors: {refusal}")
if counts != [96, 96] or "not divisible" not in refusal:
    sys.exit("this has changed")
PYTHON
