"""The files of a wheel of vLLM that the peers are in, compressed, for a machine to which little can be carried.

    pip download --no-deps --dest target vllm==0.25.1
    python3 benches/peers/pack.py target/vllm-*.whl target/gpu/wheel
"""

import lzma
import sys
import zipfile
from pathlib import Path

# As latent_peers.py and dense_peers.py ask for them.
FILES = ["_flashmla_C.abi3.so", "_vllm_fa3_C.abi3.so", "triton_decode_attention.py"]


def main(wheel, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            found = [path for path in archive.namelist() if Path(path).name == name]
            if not found:
                sys.exit(f"there is no {name} in {wheel}")
            packed = lzma.compress(archive.read(found[0]), preset=9)
            (folder / (name + ".xz")).write_bytes(packed)
            print(f"{folder / name}.xz: {len(packed) / 1e6:.1f} MB")


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
