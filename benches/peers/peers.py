"""Our attention kernels beside those of others, in one process and on the same numbers. README.md says how to run it.

Whatever is missing or fails is listed with its reason; without torch or a GPU, that is everything.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings/python"))
import latent_attention as la  # noqa: E402
from report import Times, commit, one_line, output  # noqa: E402

START = time.monotonic()
SHAPES = ["deepseek-v2-lite", "deepseek-v3", "llama2-7b-d64", "llama2-7b-d16", "llama3-8b-d64"]
OURS = ["ours, int4", "ours, bf16"]
# Peers by the functions of latent_peers.py and of dense_peers.py, which need torch to be imported.
LATENT = {
    "FlashMLA, bf16": "flashmla",
    "FlashAttention-3 q_v, bf16": "flash_attention_3_latent",
    "FlashAttention-3 q_v, bf16, planned": "flash_attention_3_latent_planned",
    "vLLM Triton MLA, bf16": "triton_mla",
    "FlashInfer MLA, bf16": "flashinfer",
}
DENSE = {
    "torch SDPA, flash, uncompressed": "sdpa_flash",
    "torch SDPA, cuDNN, uncompressed": "sdpa_cudnn",
    "FlashAttention-3, uncompressed": "flash_attention_3_dense",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="MODEL", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--batch", type=int, default=16, help="sequences, one query token each (default: 16)")
    parser.add_argument("--cached", type=int, default=16384, help="tokens in each sequence's cache (default: 16384)")
    parser.add_argument("--library", help="the C library (default: what latent_attention finds)")
    parser.add_argument("--vllm", metavar="DIR", help="a folder with files of vLLM's wheel (default: installed vllm)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="begin no row after so many seconds")
    parser.add_argument("--json", metavar="FILE", help="write everything to this file, too")
    parser.add_argument("--simulate", action="store_true", help="our rows only, on the simulator: errors, no times")
    return parser.parse_args()


def environment(options):
    """What the run is made with; `unavailable` says why nothing can be measured, if so."""
    found = {"python": sys.version.split()[0], "unavailable": None}
    try:
        import torch

        found["torch"] = torch.__version__
        la.library(options.library)
        if options.simulate:
            found["device"] = la.Device.simulated().name
        elif not torch.cuda.is_available():
            found["unavailable"] = "there is no GPU that torch can use"
        else:
            found["device"], found["cuda"] = torch.cuda.get_device_name(), torch.version.cuda
            found["driver"] = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
            found["commit"] = commit()
    except (ImportError, OSError) as error:
        found["unavailable"] = one_line(error)
    return found


class Bench:
    """The rows of one shape, none of which begins after `deadline`."""

    def __init__(self, report, inputs, clock, deadline):
        self.report, self.inputs, self.clock, self.deadline = report, inputs, clock, deadline
        self.expected, self.ours_us = inputs.reference(), None

    def row(self, name, token_bytes, make):
        """Makes, checks and times one of the functions. Its failure is a line of the report."""
        import torch

        if time.monotonic() > self.deadline:
            self.report.missing(name, self.inputs.name, "the time limit was reached")
            return
        try:
            attend = make()
            error = attend().float().view_as(self.expected) - self.expected
            row = {
                "shape": self.inputs.name,
                "batch": self.inputs.batch,
                "cached": self.inputs.cached,
                "name": name,
                "token_bytes": token_bytes,
                "max_error": error.abs().max().item(),
                "relative_error": (error.norm() / self.expected.norm()).item(),
            }
            row |= self.clock.time(attend) if self.clock else {"us": None, "range_us": None, "graph": None}
            if name == OURS[0]:
                self.ours_us = row["us"]
            row["ratio"] = self.ours_us and row["us"] / self.ours_us
            self.report.row(row)
        except Exception as error:
            self.report.missing(name, self.inputs.name, one_line(error))
        if self.clock:
            torch.cuda.empty_cache()
            torch.cuda.synchronize()  # If a kernel has broken the context, nothing after it can be measured.


def measure(options, report):
    import torch
    import dense_peers
    import latent_peers
    from clock import Clock
    from inputs import Inputs
    from ours import Ours
    from torch_memory import TorchMemory

    torch.backends.cuda.matmul.allow_tf32 = False  # The reference is f32.
    device = la.Device.simulated() if options.simulate else la.Device(torch.cuda.current_device())
    torch_device = torch.device("cpu" if options.simulate else "cuda")
    clock = None if options.simulate else Clock()
    deadline = START + (options.time_limit or float("inf"))
    for shape in options.shapes:
        if time.monotonic() > deadline:
            report.missing("all", shape, "the time limit was reached")
            continue
        inputs = Inputs(la, shape, options.batch, options.cached, torch_device)
        report.begin(inputs)
        bench = Bench(report, inputs, clock, deadline)
        for name, form, cache in zip(OURS, (inputs.int4, inputs.bf16), (inputs.cache_int4, inputs.cache_bf16)):
            memory = TorchMemory(la, device, torch_device)
            token_bytes = form.layout(inputs.g).token_bytes
            bench.row(name, token_bytes, lambda: Ours(la, device, memory, inputs, form, cache))
        if options.simulate:
            continue
        g = inputs.g
        if inputs.is_converted:
            module, peers, width = dense_peers, DENSE, g.kv_heads * (g.nope_dim + g.rope_dim + g.value_dim)
        else:
            module, peers, width = latent_peers, LATENT, g.latent_rank + g.rope_dim
        for name, function in peers.items():
            bench.row(name, 2 * width, lambda: getattr(module, function)(inputs, options.vllm))


def main():
    options = arguments()
    found = environment(options)
    print(", ".join(f"{key} {value}" for key, value in found.items() if value is not None))
    report = Times(options.json, found)
    try:
        if found["unavailable"] is None:
            measure(options, report)
        else:
            for name in [*OURS, *LATENT, *DENSE]:
                report.missing(name, None, found["unavailable"])
    except Exception as error:
        report.missing("all that would have come after", None, one_line(error))
    report.close()


main()
