#!/bin/sh
# hqq 0.2.8.post1 (Python): keys and values in 4 bits cannot be stored in an odd number of groups, and what is read back of
# a token depends on the other tokens of the call.
#
# `Quantizer.quantize(axis=1, group_size=64)`, as transformers' HQQ cache calls it for keys of shape [batch, heads, tokens, 64],
# makes a row of every 64 numbers and packs the first half of the rows with the second half. Of an odd number of rows the
# halves differ, and `quantize` raises RuntimeError about sizes of tensors; of a single row it keeps no codes at all, and
# `dequantize` raises. 2 bits need a multiple of four. So a model with 3 KV heads of 64 can keep a prompt of 128 tokens,
# and not one of 129.
#
# The solver that moves a group's zero ends when the mean error of the whole call no longer falls. A head's numbers are
# read back as other ones, from the fourth digit on, when other heads or tokens are stored along with them: a cache filled at
# once is not the cache filled in two calls.
#
# Seen on Linux x86-64, Python 3.11, torch 2.7.1, on the CPU:
#     4 bits, read back of 1 to 8 groups: no yes no yes no yes no yes
#     2 bits, read back of 1 to 8 groups: no no no yes no no no yes
#     the zero of one group beside copies of itself 7.93598, beside another group 7.93791
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 and PyPI; torch is 3 GB.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-cache-dir torch==2.7.1 numpy==2.2.6
"$folder/env/bin/pip" install --quiet --no-cache-dir --no-deps hqq==0.2.8.post1 termcolor==3.1.0 tqdm==4.67.1 \
    accelerate==1.10.1 einops==0.8.1 huggingface_hub==0.35.3 safetensors==0.6.2 packaging==25.0 pyyaml==6.0.2 \
    requests==2.32.5 psutil==7.1.0 urllib3==2.5.0 idna==3.10 certifi==2025.8.3 charset-normalizer==3.4.3 hf-xet==1.1.10
"$folder/env/bin/python" -I - <<'PYTHON'
import math
import sys

import torch
from hqq.core.quantize import Quantizer


def stored(keys, bits):
    codes, meta = Quantizer.quantize(
        keys, axis=1, device="cpu", compute_dtype=torch.float32, nbits=bits, group_size=64
    )
    meta["compute_dtype"] = torch.float32
    return codes, meta


def comes_back(tokens, bits):
    keys = torch.arange(tokens * 64, dtype=torch.float32).mul(1.7).sin().reshape(1, 1, tokens, 64)
    try:
        read = Quantizer.dequantize(*stored(keys, bits))
    except RuntimeError:
        return False
    assert read.shape == keys.shape and (read - keys).abs().mean() < 0.5
    return True


seen = {bits: [comes_back(tokens, bits) for tokens in range(1, 9)] for bits in (4, 2)}
for bits, back in seen.items():
    print(f"{bits} bits, read back of 1 to 8 groups:", *("yes" if b else "no" for b in back))

head = torch.tensor([round(256 * math.sin(1.7 * i)) * (4 if i % 9 == 0 else 1) / 256 for i in range(64)])
zeros = [
    float(stored(torch.stack(heads).reshape(1, 1, -1, 64), 4)[1]["zero"].flatten()[0])
    for heads in ([head, head], [head, -3 * head])
]
print("the zero of one group beside copies of itself {:.5f}, beside another group {:.5f}".format(*zeros))
expected = {4: [t % 2 == 0 for t in range(1, 9)], 2: [t % 4 == 0 for t in range(1, 9)]}
if seen != expected or abs(zeros[0] - zeros[1]) < 1e-4:
    sys.exit("this has changed")
PYTHON
