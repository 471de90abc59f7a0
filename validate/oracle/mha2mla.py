"""Writes checkpoints that MHA2MLA's own code converts, and what its attention computes with them in f64.

    git clone https://github.com/JT-Ushio/MHA2MLA /tmp/MHA2MLA
    git -C /tmp/MHA2MLA checkout 7a56785
    /tmp/oracle/bin/python validate/oracle/mha2mla.py /tmp/MHA2MLA tests/data/oracle [NAME ...]

Folders are those of oracle.py. The models are converted and run by the clone's `patch_model` and attention, which are
handed to the transformers that are installed.
"""

import importlib
import pathlib
import shutil
import sys
import types

import torch
import transformers
from families import DENSE, LLAMA3
from oracle import randomize, record
from safetensors.torch import load_file, save_file

LLAMA = dict(DENSE, num_hidden_layers=1, rope_parameters=LLAMA3)
QWEN2 = {key: value for key, value in LLAMA.items() if key != "head_dim"}
# Two pairs of each head's four stay rotated, and 3 latent dimensions for each KV head where there is a latent.
OWN = {
    "model_name_or_path": None,
    "partial_rope_version": "high",
    "rope_dim_for_mla": 4,
    "uniform_start_point": 0,
    "qk_tensor_path": None,
    "svd_init_method": "joint",
    "low_rank": 3,
    "is_baseline": False,
    "is_gqa2mha2mla": False,
    "is_mla_from_scratch": False,
}
# name of the folder: (class in transformers, its configuration, the keys of `mha2mla` that differ)
MODELS = {
    "mha2mla_none": ("Qwen2", QWEN2, {"svd_init_method": "none"}),
    "mha2mla_none_of_mha": ("Llama", dict(LLAMA, num_key_value_heads=4), {"svd_init_method": "none"}),
    "mha2mla_only_key": ("Qwen2", QWEN2, {"svd_init_method": "only_key", "partial_rope_version": "low"}),
    "mha2mla_only_value": ("Qwen2", QWEN2, {"svd_init_method": "only_value"}),
    "mha2mla_gqa": ("Llama", LLAMA, {"is_gqa2mha2mla": True, "partial_rope_version": "uniform"}),
}


def converted(family, config, own):
    """A model that the clone has converted, with its attention in place of transformers'."""
    model_class = getattr(transformers, f"{family}ForCausalLM")
    model = model_class(config)
    randomize(model, sum(own["svd_init_method"].encode()))
    model.to(torch.bfloat16)
    arguments = types.SimpleNamespace(**own)
    model, query_rows, key_rows = importlib.import_module("patching_model_load").patch_model(model, config, arguments)
    patching = importlib.import_module(f"patching_{family.lower()}")
    modeling = importlib.import_module(f"transformers.models.{family.lower()}.modeling_{family.lower()}")
    modeling.apply_rotary_pos_emb = patching.create_custom_apply_rotary_pos_emb(query_rows, key_rows)
    getattr(modeling, f"{family}Attention").forward = getattr(patching, f"custom_{family}Attention_forward")
    model.to(torch.bfloat16)
    # The numbers that it was made with; those of before are bf16 now.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def write(folder, name):
    """Writes the folder of one model."""
    family, keys, changes = MODELS[name]
    own = OWN | changes
    config = getattr(transformers, f"{family}Config")(**keys)
    config._attn_implementation = "eager"
    shutil.rmtree(folder, ignore_errors=True)
    model = converted(family, config, own)
    model.config.mha2mla = own
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    # The numbers that were saved, in f64.
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    metadata = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    save_file(record(model.double().eval(), sum(name.encode())), folder / "expected.safetensors", metadata=metadata)
    print(f"{name:20} {sum(file.stat().st_size for file in folder.iterdir())} bytes")


def main():
    clone, root = map(pathlib.Path, sys.argv[1:3])
    sys.path.append(str(clone / "src" / "mha2mla"))
    for name in sys.argv[3:] or MODELS:
        write(root / name, name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    main()
