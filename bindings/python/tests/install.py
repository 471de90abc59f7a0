"""That the package can be installed, then finds the library in each place that it says, and says what to do without one.

Needs pip and flit_core, and no network.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
ROOT = SOURCE.parents[1]
sys.path.insert(0, str(SOURCE))
from latent_attention.finding import NAME, VARIABLE  # noqa: E402

BUILT = ROOT / "target/capi" / NAME
# Merges the halves of one query's attention, which have the same weight.
PROGRAM = """
import json
from array import array
from importlib import metadata

import latent_attention as la

device = la.Device.simulated()
halves = [device.upload(array("f", numbers)) for numbers in ([1, 2, 3, 4], [0.5, 0.5])]
o_latent, lse = device.allocate(2, la.DTYPE_BF16), device.allocate(1, la.DTYPE_F32)
combine = la.Operation(device, "combine", la.CombineConfig(latent_rank=2, max_splits=2))
combine.run(device.stream(), la.CombineArgs(1, 2, *halves, o_latent, lse))
bits = memoryview(o_latent.download()).cast("H").tolist()
version = metadata.version("latent-attention")
print(json.dumps({"package": la.__file__, "library": la.library()._name, "version": version, "bits": bits}))
"""
BF16_2, BF16_3 = 0x4000, 0x4040


def install(source, folder):
    options = ["--quiet", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder, source], check=True)


def run(folder, variable=None):
    """Runs the program with the package in `folder`."""
    hidden = {VARIABLE, "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = str(folder)
    if variable is not None:
        environment[VARIABLE] = str(variable)
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True)


def check_runs(folder, library, variable=None):
    done = run(folder, variable)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert Path(said["package"]).is_relative_to(folder), said
    assert Path(said["library"]) == library and said["bits"] == [BF16_2, BF16_3], said
    assert f'version = "{said["version"]}"' in (ROOT / "Cargo.toml").read_text(), said


def check_refuses(folder, *texts, variable=None):
    done = run(folder, variable)
    assert done.returncode == 1 and "OSError: " in done.stderr, done
    assert all(text in done.stderr for text in ("`cargo xtask capi`", VARIABLE, *texts)), (texts, done.stderr)


with tempfile.TemporaryDirectory() as temporary:
    outside = Path(temporary).resolve()
    assert not outside.is_relative_to(ROOT), f"{outside} is in the checkout"
    installed, copied, elsewhere = outside / "installed", outside / "copied", outside / f"elsewhere-{NAME}"
    install(SOURCE, installed)
    shutil.copy(BUILT, elsewhere)

    check_runs(installed, BUILT)
    check_runs(installed, elsewhere, variable=elsewhere)
    check_refuses(installed, f"\n  {outside / 'nowhere.so'}\n", variable=outside / "nowhere.so")

    # A package that was installed from no checkout has its own folder and the system's loader.
    shutil.copytree(SOURCE, outside / "source")
    install(outside / "source", copied)
    beside = copied / "latent_attention" / NAME
    check_refuses(copied, f"\n  {beside}\n  {NAME}, by the system's loader\n")
    check_runs(copied, elsewhere, variable=elsewhere)
    elsewhere.rename(beside)
    check_runs(copied, beside)
print("the package can be installed, and finds the library or says how to build it")
