#!/bin/sh
# transformers 5.24.0: the norms over MLA's latents do not have the epsilon of the configuration, in most families.
#
# `kv_a_layernorm` and `q_a_layernorm` of 14 of the 18 families with such a norm are built without an epsilon, so that
# theirs is 1e-6 whatever `rms_norm_eps` says; six of these families have 1e-5 there by default. The other four use
# the configuration's. Readers and engines that pass `rms_norm_eps` on to these norms compute something else, and
# latents are small enough for that to show.
#
# Seen on Linux, Python 3.11, torch 2.15.0; three of the 18 lines:
#     deepseek_v3     default of rms_norm_eps 1e-06, set to 0.25, the latents' norms have [1e-06]
#     minicpm3        default of rms_norm_eps 1e-05, set to 0.25, the latents' norms have [1e-06]
#     dots3_note      default of rms_norm_eps 1e-05, set to 0.25, the latents' norms have [0.25]
#
# Prints what it sees, and exits with 1 if that has changed. Needs python3 with venv, and PyPI (torch is large).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0
"$folder/venv/bin/python" - <<'PYTHON' 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
import sys

import torch
from transformers import AutoConfig, AutoModel

BUILT_IN = {
    "axk1": 1e-6, "axk2": 1e-6, "bailing_hybrid": 1e-6, "deepseek_v2": 1e-6, "deepseek_v3": 1e-6,
    "deepseek_v32": 1e-6, "mistral4": 1e-6, "youtu": 1e-6,
    "glm4_moe_lite": 1e-5, "glm_moe_dsa": 1e-5, "hy_v4": 1e-5, "kimi_linear": 1e-5, "longcat_flash": 1e-5,
    "minicpm3": 1e-5,
}
CONFIGURED = {"dots3_note": 1e-5, "glm5_next": 1e-5, "hy_v4_vl": 1e-5, "mistral_large4": 1e-5}

changed = []
for family, expected_default in (BUILT_IN | CONFIGURED).items():
    config = AutoConfig.for_model(family)
    text = config.get_text_config()
    default, text.rms_norm_eps = text.rms_norm_eps, 0.25
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    norms = [m for n, m in model.named_modules() if n.endswith((".kv_a_layernorm", ".q_a_layernorm"))]
    found = {norm.variance_epsilon for norm in norms}
    print(f"{family:15} default of rms_norm_eps {default:g}, set to 0.25, the latents' norms have {sorted(found)}")
    if default != expected_default or found != ({1e-6} if family in BUILT_IN else {0.25}):
        changed.append(family)
if changed:
    sys.exit(f"this has changed: {changed}")
PYTHON
