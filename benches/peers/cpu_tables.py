"""The tables of cpu.py: ours beside peers, with more tokens, and with more threads."""

import numpy as np
from host_inputs import HostInputs
from host_memory import wide
from host_ours import device, host_ours, la
from report import one_line
from rounds import Ratio, take_turns
from scaling import Worker

# Peers by the functions of torch_cpu_peers.py, and by those of llama_peers.py with the type of the cache.
TORCH = {"torch SDPA, bf16": "sdpa", "torch products, bf16": "products"}
LLAMA = {
    "flash, f16": ("flash", "f16"),
    "flash, q4_0": ("flash", "q4_0"),
    "flash, f16, by heads": ("flash_by_heads", "f16"),
    "flash, q4_0, by heads": ("flash_by_heads", "q4_0"),
    "products, f16": ("products", "f16"),
    "products, f16, shared": ("shared_products", "f16"),
}
# Norm of all differences relative to that of the result. What is rounded to 8 bits, queries or scores, reaches 2e-2.
LARGEST_ERROR = 3e-2


class Peers:
    """The peers that are here, by name: each makes, of inputs, a function that attends once and what its result should
    be."""

    def __init__(self, options, report):
        self.of_all, self.of_converted = {}, {}
        try:
            import torch
            import torch_cpu_peers

            torch.set_num_threads(options.threads)
            report.content["environment"]["torch"] = torch.__version__
            for name, function in TORCH.items():
                self.of_all[name] = getattr(torch_cpu_peers, function)
        except Exception as error:
            for name in TORCH:
                report.missing(name, None, one_line(error))
        if not options.llama:
            report.missing("llama.cpp", None, "--llama names none")
        for path in options.llama:
            self._add_llama(path, options.threads, report)

    def _add_llama(self, path, threads, report):
        try:
            import llama_peers
            from ggml import Library

            library = Library(path)
            prefix = f"llama.cpp ({library.name.removeprefix('ggml-cpu-')})"
            report.content["environment"][prefix] = f"ggml {library.version()}"
            for name, (function, kind) in LLAMA.items():
                make = getattr(llama_peers, function)
                peers = self.of_converted if function == "flash_by_heads" else self.of_all
                # Defaults, as a loop's variables would be the last ones.
                peers[f"{prefix} {name}"] = lambda inputs, make=make, kind=kind: make(library, inputs, threads, kind)
        except Exception as error:
            report.missing(f"llama.cpp, {path}", None, one_line(error))


def error_of(result, expected):
    """The relative error; raises if it is none that rounding explains."""
    error = float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
    if not error <= LARGEST_ERROR:
        raise ValueError(f"the result is wrong: relative error {error:.1e}")
    return error


def levels_here(options, report):
    """Those of our levels that the library and this machine have."""
    levels = []
    for level in options.levels:
        try:
            device(level)
            levels.append(level)
        except Exception as error:
            report.missing(f"ours, {level}", None, one_line(error))
    return levels


def beside_peers(options, report, levels, peers, name):
    """The table of one shape: of each row, its time as a multiple of ours."""
    inputs = HostInputs(la, name, options.tokens)
    works, errors = {}, {}

    def add(name, make):
        try:
            work, expected = make()
            errors[name], works[name] = error_of(work(), expected), work
        except Exception as error:
            report.missing(name, inputs.name, one_line(error))

    def ours(level):
        work = host_ours(inputs, level)
        return lambda: wide(work())[0], inputs.reference

    for level in levels:
        add(f"ours, {level}", lambda level=level: ours(level))
    for peer, make in (peers.of_all | (peers.of_converted if inputs.is_converted else {})).items():
        add(peer, lambda make=make: make(inputs))
    times = take_turns(works, options.rounds, options.clock)
    measured = [level for level in levels if f"ours, {level}" in times]
    report.table(f"{name}, {options.tokens} tokens", *(f"x ours, {level}" for level in measured), "error")
    for row, seconds in times.items():
        ratios = {level: Ratio(seconds, times[f"ours, {level}"]) for level in measured}
        report.line(row, *ratios.values(), f"{errors[row]:.1e}")
        of_level = {level: ratio.json() for level, ratio in ratios.items()}
        report.row(
            {
                "shape": name,
                "tokens": options.tokens,
                "name": row,
                "error": errors[row],
                "seconds": seconds,
                "x ours": of_level,
            }
        )


def growth(options, report, levels, name):
    """The table of our decode with more and more tokens: time per token as a multiple of that with the fewest."""
    all_inputs = [HostInputs(la, name, tokens) for tokens in options.growth]
    expected = [inputs.reference for inputs in all_inputs]
    ratios = {}
    for level in levels:
        works = {inputs.cached: host_ours(inputs, level) for inputs in all_inputs}
        for work, result in zip(works.values(), expected):
            error_of(wide(work())[0], result)
        decodes = {tokens: ours.decode for tokens, ours in works.items()}
        times = take_turns(decodes, options.rounds, options.clock)
        fewest = options.growth[0]
        ratios[level] = {tokens: Ratio(times[tokens], times[fewest], fewest / tokens) for tokens in works}
        for tokens, ratio in ratios[level].items():
            report.row({"shape": name, "tokens": tokens, "name": f"ours, {level}", "time of a token": ratio.json()})
    report.table(f"{name}, decode, time of a token", *levels)
    for tokens in options.growth:
        report.line(f"{tokens} tokens", *(ratios[level][tokens] for level in levels))


def scaling(options, report, levels, name):
    """The table of ours with more threads: how many times as fast as with the fewest."""
    threads = options.scaling
    workers = [Worker(options.library, name, options.tokens, levels, count) for count in threads]
    ratios = {}
    try:
        for level in levels:
            works = {worker: lambda worker=worker: worker.seconds(level) for worker in workers}
            times = list(take_turns(works, options.rounds, None).values())
            ratios[level] = [Ratio(times[0], seconds) for seconds in times]
            for count, ratio in zip(threads, ratios[level]):
                report.row({"shape": name, "threads": count, "name": f"ours, {level}", "speed-up": ratio.json()})
    finally:
        for worker in workers:
            worker.close()
    report.table(f"{name}, {options.tokens} tokens, as fast", *levels)
    for i, count in enumerate(threads):
        report.line(f"{count} thread{'s' * (count > 1)}", *(ratios[level][i] for level in levels))


def measure(options, report):
    levels, peers = levels_here(options, report), Peers(options, report)
    parts = [(name, beside_peers, (peers, name)) for name in options.shapes]
    if levels:
        parts += [(f"{part.__name__} of {options.shapes[0]}", part, (options.shapes[0],)) for part in (growth, scaling)]
    for name, part, rest in parts:
        try:
            part(options, report, levels, *rest)
        except Exception as error:
            report.missing(name, None, one_line(error))
