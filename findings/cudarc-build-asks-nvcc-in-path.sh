#!/bin/sh
# cudarc 0.19.10: with the feature `cuda-version-from-build-system`, whether a crate builds at all depends on the nvcc
# that happens to be in PATH, although cudarc opens the driver at run time and compiles nothing with nvcc.
#
# The build script runs `nvcc --version` and maps the release to one of the versions that it has bindings for. One that
# it does not know is no reason to take the newest bindings or those of the driver: the build script panics, also where
# `fallback-latest` is on, which only helps where no nvcc is found. So a newer toolkit (13.5 was on PyPI before cudarc
# knew it) ends every build on that machine, of crates that want nothing of it.
#
# Seen on Linux, rustc 1.95.0, with a script in the place of nvcc that prints a version and nothing else:
#     no nvcc in PATH: builds
#     nvcc 13.0: builds
#     nvcc 13.5: build script failed, Unsupported cuda toolkit version
#     nvcc 12.7: build script failed, Unsupported cuda toolkit version
#
# Prints what it sees, and exits with 1 if that has changed. Pins cudarc == 0.19.10. Needs cargo and crates.io.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src" "$folder/bin"
echo > "$folder/src/lib.rs"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "asks-nvcc"
version = "0.1.0"
edition = "2021"

[dependencies.cudarc]
version = "=0.19.10"
default-features = false
features = ["std", "driver", "fallback-dynamic-loading", "cuda-version-from-build-system", "fallback-latest"]
TOML
cd "$folder"
unset CUDARC_CUDA_VERSION CUDA_HOME CUDA_PATH CUDA_ROOT CUDA_TOOLKIT_ROOT_DIR NVCC || true
# PATH without any nvcc that the machine has, then with the stand-in first.
clean=$(printf %s "$PATH" | tr : '\n' | while read -r entry; do [ -x "$entry/nvcc" ] || printf '%s:' "$entry"; done)
changed=0
check() { # name, PATH, expected
    rm -rf target/debug/build/cudarc-* target/debug/.fingerprint/cudarc-*
    if PATH=$2 cargo check --quiet >log 2>&1; then
        seen=builds
    elif grep -q 'Unsupported cuda toolkit version' log; then
        seen='build script failed, Unsupported cuda toolkit version'
    else
        seen=$(grep -m 1 -i error log)
    fi
    echo "$1: $seen"
    [ "$seen" = "$3" ] || changed=1
}
check 'no nvcc in PATH' "$clean" builds
for release in 13.0 13.5 12.7; do
    cat > bin/nvcc <<SCRIPT
#!/bin/sh
printf '%s\n' 'nvcc: NVIDIA (R) Cuda compiler driver' 'Copyright' 'Built on' \
    'Cuda compilation tools, release $release, V$release.0'
SCRIPT
    chmod +x bin/nvcc
    expected='build script failed, Unsupported cuda toolkit version'
    [ "$release" = 13.0 ] && expected=builds
    check "nvcc $release" "$folder/bin:$clean" "$expected"
done
[ "$changed" = 0 ] || { echo 'this has changed' >&2; exit 1; }
