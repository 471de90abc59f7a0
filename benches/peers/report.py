"""What was measured, as a table and as JSON."""

import json
import subprocess
from pathlib import Path


def one_line(error):
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def output(*command):
    """The first line of what a program prints; None if it is not there or fails."""
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return lines[0] if lines else None
    except (OSError, subprocess.CalledProcessError):
        return None


def commit():
    return output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40")


class Report:
    """Rows and missing peers, written to the JSON file after each: a crash loses nothing that was measured."""

    def __init__(self, path, environment):
        self._path = path and Path(path)
        self.content = {"environment": environment, "rows": [], "missing": []}
        self._write()

    def row(self, row):
        self.content["rows"].append(row)
        self._write()

    def missing(self, name, shape, reason):
        """A peer without a row, and why; the shape is None if it is so for all."""
        reason = " ".join(str(reason).split())[:300] or "no reason given"
        self.content["missing"].append({"name": name, "shape": shape, "reason": reason})
        self._write()

    def close(self):
        reasons = {}
        for entry in self.content["missing"]:
            reasons.setdefault((entry["name"], entry["reason"]), []).append(entry["shape"])
        if reasons:
            print("\nNot measured:")
        for (name, reason), shapes in reasons.items():
            where = ", ".join(shape for shape in shapes if shape)
            print(f"  {name}{where and f' ({where})'}: {reason}")
        if self._path:
            print(f"\nwrote {self._path}")

    def _write(self):
        if self._path:
            self._path.write_text(json.dumps(self.content, indent=1) + "\n")


class Times(Report):
    """Times on a GPU, or on the simulator errors alone."""

    def begin(self, inputs):
        print(f"\n{inputs.name}: {inputs.batch} sequences of {inputs.cached} tokens")
        print(f"  {'':38} {'time, us':>20}  {'x ours':>7}  {'cache, B':>8}  {'largest error':>13}  {'relative':>9}")

    def row(self, row):
        """`us` is None where nothing can be timed, `ratio` if ours could not be either."""
        super().row(row)
        time = "-"
        if row["us"] is not None:
            low, high = row["range_us"]
            time = f"{row['us']:.1f} ({low:.0f}-{high:.0f})" + ("" if row["graph"] else " *")
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        errors = f"{row['max_error']:13.2e}  {row['relative_error']:9.2e}"
        print(f"  {row['name']:38} {time:>20}  {ratio:>7}  {row['token_bytes']:8}  {errors}", flush=True)

    def close(self):
        if any(not row["graph"] for row in self.content["rows"] if row["us"] is not None):
            print("\n* not captured in a CUDA graph: the time includes its launches")
        super().close()


class Ratios(Report):
    """Ratios of times on the CPU, as tables in Markdown."""

    def table(self, *heads):
        print("\n| " + " | ".join(heads) + " |\n|---" + "|---:" * (len(heads) - 1) + "|", flush=True)

    def line(self, *cells):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
