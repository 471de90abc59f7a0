"""Writes tests/data/oracle: tiny checkpoints of every family, and what transformers computes with them in f64.

    python3 -m venv /tmp/oracle
    /tmp/oracle/bin/pip install -r validate/oracle/requirements.txt
    /tmp/oracle/bin/python validate/oracle/oracle.py tests/data/oracle [FAMILY ...]

Each folder holds the model as transformers saves it, with random weights in bf16, and `expected.safetensors`: for each
run of tokens its `tokens` and `positions`, the input of every attention layer and what the layer adds to the residual
stream, and the logits. Weights are so large that softmax is far from even, and norms, biases and correction terms are
none of the numbers that they start from, so that one left out shows.

Angles are computed in f64 from transformers' own f32 frequencies: its f32 angles are off by up to 6e-3 at position
100000, which is no property of a model. Norms are f32 in transformers, whatever the model's type: runs on the same weights
differ in the last bits of f32.
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers
from families import FAMILIES, FP8
from safetensors.torch import load_file, save_file

# Tokens at positions that follow each other, far out, and with a gap that no table of near positions covers.
RUNS = {
    "near": list(range(10)),
    "far": list(range(100000, 100006)),
    "gap": [0, 1, 2, 3000, 3001, 3002],
}
ATTENTION = ("Attention", "MLA")
# Families with a factor on what a layer adds to the residual stream, which lies outside of their attention's class.
RESIDUAL_FACTOR = {
    "minicpm3": lambda config: config.scale_depth / config.num_hidden_layers**0.5,
    "granite": lambda config: config.residual_multiplier,
}


def randomize(model, seed):
    """Weights for which attention matters, rounded to bf16."""
    generator = torch.Generator().manual_seed(seed)
    tensors = list(model.named_parameters()) + [
        (name, buffer) for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")
    ]
    for name, tensor in tensors:
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith("norm.weight"):
            values = 1 + 0.3 * noise
        elif tensor.dim() < 2:
            values = 0.3 * noise
        elif "embed_tokens" in name:
            values = noise
        else:
            values = noise * 1.6 / tensor.shape[-1] ** 0.5
        with torch.no_grad():
            tensor.copy_(values.to(torch.bfloat16))


def quantise(folder, model, block, scale_fmt):
    """Makes e4m3 numbers in blocks of the projections in the folder, and gives the model what these stand for."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "scale_fmt": scale_fmt,
        "weight_block_size": block,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = load_file(folder / "model.safetensors")
    parameters = dict(model.named_parameters())
    for name in [name for name in tensors if name.endswith("_proj.weight") or "kv_a_proj" in name]:
        weight = tensors[name].float()
        codes, scales = torch.empty(weight.shape, dtype=torch.float8_e4m3fn), []
        for top in range(0, weight.shape[0], block[0]):
            scales.append([])
            for left in range(0, weight.shape[1], block[1]):
                part = weight[top : top + block[0], left : left + block[1]]
                scale = part.abs().max() / 448
                scale = scale.log2().ceil().exp2() if scale_fmt == "ue8m0" else scale
                stored = (part / scale).to(torch.float8_e4m3fn)
                codes[top : top + block[0], left : left + block[1]] = stored
                scales[-1].append(scale)
                with torch.no_grad():
                    whole = parameters[name]
                    whole[top : top + block[0], left : left + block[1]] = (stored.float() * scale).to(whole.dtype)
        tensors[name] = codes
        kind = torch.float8_e8m0fnu if scale_fmt == "ue8m0" else torch.float32
        tensors[name + "_scale_inv"] = torch.tensor(scales).to(kind)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def exact_angles(rotary):
    """Replaces the forward of a rotary embedding by one that computes angles in f64."""

    def forward(x, position_ids, *_, **__):
        angles = position_ids[..., None].double() * rotary.inv_freq.float().double()
        if type(rotary).__name__.startswith("DeepseekV2"):
            return torch.polar(torch.ones_like(angles), angles) * rotary.attention_scaling
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling

    rotary.forward = forward


def is_attention(module):
    """Whether a module is the attention of a layer that attends to all tokens."""
    name = type(module).__name__
    return name.endswith(ATTENTION) and "Delta" not in name


def record(model, seed):
    """What the model computes, run by run."""
    factor = RESIDUAL_FACTOR.get(model.config.model_type, lambda _: 1.0)(model.config)
    expected, calls = {}, []

    def hook(module, args, kwargs, output):
        state = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        calls.append((module, state, output[0] * factor))

    for module in model.modules():
        if hasattr(module, "inv_freq") and "Rotary" in type(module).__name__:
            exact_angles(module)
        if is_attention(module):
            module.register_forward_hook(hook, with_kwargs=True)
    generator = torch.Generator().manual_seed(seed + 1)
    for run, positions in RUNS.items():
        calls.clear()
        tokens = torch.randint(model.config.vocab_size, (1, len(positions)), generator=generator)
        with torch.no_grad():
            # Without a mask transformers takes a gap between positions for the start of another sequence
            # (findings/positions-with-a-gap.sh).
            mask = torch.ones_like(tokens)
            positions_of = torch.tensor([positions])
            output = model(input_ids=tokens, attention_mask=mask, position_ids=positions_of, use_cache=False)
        expected[f"{run}.tokens"] = tokens[0]
        expected[f"{run}.positions"] = torch.tensor(positions)
        expected[f"{run}.logits"] = output.logits[0].float()
        for module, state, output in calls:
            layer = module.layer_idx
            expected[f"{run}.attention.{layer}.input"] = state[0].float()
            expected[f"{run}.attention.{layer}.output"] = output[0].float()
    return {name: tensor.contiguous() for name, tensor in expected.items()}


def write(folder, family):
    """Writes the folder of one family."""
    class_name, keys = FAMILIES[family]
    model_class = getattr(transformers, class_name)
    config_class = model_class.config_class
    if family == "sarvam_mla":
        config_class = transformers.SarvamMLAConfig
    seed = sum(family.encode())
    model = model_class(config_class(**keys))
    randomize(model, seed)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    # Read back in f64, so that what is recorded is what the files say.
    model = model_class.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager", local_files_only=True
    ).eval()
    if family in FP8:
        quantise(folder, model, *FP8[family])
    metadata = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    save_file(record(model, seed), folder / "expected.safetensors", metadata=metadata)
    size = sum(file.stat().st_size for file in folder.iterdir())
    named = json.loads((folder / "config.json").read_text())
    print(f"{family:20} {named['model_type']:15} {named['architectures']} {size} bytes")


def main():
    root = pathlib.Path(sys.argv[1])
    for family in sys.argv[2:] or FAMILIES:
        write(root / family, family)


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    main()
