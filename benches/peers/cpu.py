"""Our attention on the CPU beside torch's and llama.cpp's, in one process, with the same numbers and as many threads.
README.md says how to run it.

Whatever is missing or fails is listed with its reason, and the rest is measured; without numpy, that is everything.
"""

import argparse
import os
import sys

from report import Ratios, commit, one_line

SHAPES = ["llama3-8b-d64", "deepseek-v2-lite", "deepseek-v3"]
LEVELS = ["avx2", "avx512vnni", "amx"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    named = os.environ.get("LATENT_ATTENTION_CPU")
    levels = [named] if named else LEVELS
    several = {"nargs": "+", "metavar": "N", "type": int}
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="MODEL", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens in the cache (default: 16384)")
    parser.add_argument("--threads", type=int, default=1, help="threads of everyone (default: 1)")
    parser.add_argument("--rounds", type=int, default=15, help="times that each has its turn (default: 15)")
    parser.add_argument(
        "--levels",
        nargs="+",
        default=levels,
        help=f"our instructions (default: what LATENT_ATTENTION_CPU names, or {' '.join(LEVELS)})",
    )
    parser.add_argument("--growth", default=[4096, 16384, 65536, 262144], help="tokens to compare ours at", **several)
    parser.add_argument("--scaling", default=[1, 2], help="threads to compare ours with", **several)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: without waiting for others; 1 thread"
    )
    parser.add_argument(
        "--llama",
        nargs="+",
        default=[],
        metavar="PATH",
        help="a folder with llama.cpp's shared libraries, or one libggml-cpu*.so among them",
    )
    parser.add_argument("--library", help="the C library (default: what latent_attention finds)")
    parser.add_argument("--json", metavar="FILE", help="write everything to this file, too")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        parser.error("--clock cpu adds up the time of all threads: it is for one")
    return options


def cpu_name():
    """What Linux calls this CPU, with the numbers of its design."""
    try:
        with open("/proc/cpuinfo") as file:
            fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, value in fields.items()}
        return "{model name} (family {cpu family}, model {model})".format(**found)
    except (OSError, KeyError):
        import platform

        return platform.processor() or platform.machine()


def environment(options):
    """What the run is made with; `unavailable` says why nothing can be measured, if so."""
    found = {"cpu": cpu_name(), "threads": options.threads, "clock": options.clock, "rounds": options.rounds}
    found |= {"python": sys.version.split()[0], "unavailable": None}
    try:
        import numpy
        from host_ours import la

        found["numpy"] = numpy.__version__
        la.library(options.library)
        found["commit"] = commit()
    except (ImportError, OSError) as error:
        found["unavailable"] = one_line(error)
    return found


def main():
    options = arguments()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    # numpy computes references alone, and its threads would spin beside what is timed.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # numpy asks for huge pages, in which ours and torch's tensors would lie, and llama.cpp's memory does not.
    os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"
    found = environment(options)
    report = Ratios(options.json, found)
    if found["unavailable"] is None:
        from cpu_tables import measure

        measure(options, report)
    else:
        for name in [*(f"ours, {level}" for level in options.levels), "torch", "llama.cpp"]:
            report.missing(name, None, found["unavailable"])
    print("\n" + ", ".join(f"{key} {value}" for key, value in found.items() if value is not None))
    report.close()


main()
