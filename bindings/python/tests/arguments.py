"""That the package refuses by name what is not the memory that an argument is."""

import sys
from array import array
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import latent_attention as la  # noqa: E402


class TorchTensor:
    """What the package asks of a tensor of PyTorch's."""

    class Device(str):
        type = property(lambda self: self.partition(":")[0])

    def __init__(self, shape, stride=None, dtype="bfloat16", device="cuda:0", memory=None):
        self.shape, self.dtype, self.device, self._memory = shape, f"torch.{dtype}", TorchTensor.Device(device), memory
        dense = [1]
        for size in reversed(shape[1:]):
            dense.insert(0, dense[0] * size)
        self._dense, self._stride = tuple(dense), stride or tuple(dense)

    def data_ptr(self):
        return 4096 if self._memory is None else self._memory.buffer_info()[0]

    def numel(self):
        return self.shape[0] * self._dense[0]

    def stride(self):
        return self._stride

    def is_contiguous(self):
        return self._stride == self._dense


def refused(call, status, *texts):
    try:
        call()
    except la.Error as error:
        assert error.status == status and all(text in str(error) for text in texts), (error.status, str(error))
    else:
        raise AssertionError(f"not refused: {texts}")


device = la.Device.simulated()
stream = device.stream()
g, form = la.Geometry(2, 2, 32, 1, 8, 8, 8), la.CacheFormat.bf16(8)
decode = la.Decode(device, la.DecodeConfig(g, form, 1.0, 0, 2, 8))
workspace = device.allocate(decode.workspace_bytes(), la.DTYPE_U8)
cache = device.upload(bytes(3 * form.layout(g).page_bytes))
queries = [device.upload(bytes(2 * 2 * inner * 2), la.DTYPE_BF16).tensor(2, 2, inner) for inner in (32, 8)]
o_latent, lse = device.allocate(2 * 2 * 32, la.DTYPE_BF16), device.allocate(4, la.DTYPE_F32)


def batch(code, place=device):
    """Two sequences of 3 and 4 tokens, with indices of a type of array.array."""
    lists = [0, 1, 2], [3, 4], [0, 2]
    return la.Batch(*(place.upload(array(code, numbers)) for numbers in lists), max_pages=1, page_count=3)


# All scores are 0, so that the sum of their exponentials is the number of tokens.
plan = decode.plan(stream, batch("i"), 2, workspace)
arguments = la.DecodeArgs(*queries, cache, o_latent, lse)
decode.run(stream, plan, arguments)
assert [round(x, 5) for x in memoryview(lse.download()).cast("f")] == [1.09861, 1.09861, 1.38629, 1.38629]

# Elements of the wrong type, of every argument.
for code, got in (("q", "i64"), ("f", "f32"), ("I", "u32")):
    indices, text = batch(code), f"page table: expected elements of i32, got {got}"
    refused(lambda: decode.plan(stream, indices, 2, workspace), "SHAPE", text)
refused(lambda: decode.plan(stream, batch("i"), 2, lse), "SHAPE", "workspace: expected elements of u8, got f32")
for name in ("q_latent", "q_rope", "cache", "o_latent", "lse"):
    wrong = la.DecodeArgs(*queries, cache, o_latent, lse)
    value = getattr(wrong, name)
    (value.memory if isinstance(value, la.Tensor) else value).dtype = la.DTYPE_U64
    refused(lambda: decode.run(stream, plan, wrong), "SHAPE", f"{name}: expected elements of ", "got u64")
refused(lambda: o_latent.tensor(2, -2, 32), "SHAPE", "tensor: expected sizes")
refused(lambda: device.upload(bytes(6), la.DTYPE_F32), "SHAPE", "values: expected whole elements of f32, got 6 bytes")
for elements in (-1, 1 << 62):
    refused(lambda: device.allocate(elements, la.DTYPE_F32), "CONFIG", f"{elements} elements of f32")
for call in (lambda: device.allocate(1, 99), lambda: device.upload(bytes(4), 99)):
    refused(call, "CONFIG", "dtype 99: must be one of the DTYPE_*")
by_hand = la.DecodeArgs(*queries, cache, o_latent, la.Array(lse.address, 4))
refused(lambda: decode.run(stream, plan, by_hand), "SHAPE", "lse: expected elements of f32, got dtype 0")

# What PyTorch has: types, gaps, devices.
tensor = TorchTensor((2, 3, 4))
assert la.array(tensor).elements == 24 and la.array(tensor).dtype == la.DTYPE_BF16
assert tuple(la.tensor(tensor).strides) == (12, 4) and la.tensor(tensor).place == "cuda:0"
assert la.tensor(TorchTensor((2, 3, 4), (24, 8, 1))).memory.elements == 24 + 16 + 4
assert la.tensor(TorchTensor((0, 3, 4))).memory.elements == 0
by_name = lambda **named: lambda: la.DecodeArgs(**named)  # noqa: E731
refused(by_name(q_rope=TorchTensor((2, 3, 4), dtype="float16")), "CONFIG", "q_rope: elements of torch.float16")
refused(by_name(lse=TorchTensor((4,), dtype="float64")), "CONFIG", "lse: elements of torch.float64")
refused(by_name(lse=TorchTensor((4,), (2,))), "SHAPE", "lse: expected memory without gaps", "strides (2,)")
refused(by_name(q_rope=TorchTensor((2, 3, 4), (1, 2, 6))), "SHAPE", "q_rope: expected a dense inner dimension")
refused(by_name(q_rope=TorchTensor((2, 3))), "SHAPE", "q_rope: expected sizes [outer, middle, inner]", "(2, 3)")
refused(by_name(cache=TorchTensor((8,), device="mps:0")), "CONFIG", "cache: is on mps:0, not on a GPU or the CPU")
refused(by_name(q_rope=TorchTensor((2, 3, 4), device="meta")), "CONFIG", "q_rope: is on meta, not on a GPU or the CPU")
refused(by_name(cache=bytes(8)), "CONFIG", "cache: expected device memory or a tensor of PyTorch's, got bytes")
refused(by_name(q_rope=o_latent), "SHAPE", "q_rope: expected a tensor, got a buffer")

# Memory of another device.
other = la.Device.simulated()
refused(lambda: decode.plan(stream, batch("i", other), 2, workspace), "CONFIG", "query_starts: is on simulator 1")
foreign = other.allocate(decode.workspace_bytes(), la.DTYPE_U8)
refused(lambda: decode.plan(stream, batch("i"), 2, foreign), "CONFIG", "workspace: is on simulator 1")
for place in ("cuda:1", "cpu"):
    arguments.lse = TorchTensor((4,), dtype="float32", device=place)
    refused(lambda: decode.run(stream, plan, arguments), "CONFIG", f"lse: is on {place}, the operation on simulator 0")

# On the CPU tensors are used where they are, read and written.
cpu = la.Device.cpu()
assert cpu.name.startswith("cpu (")
combine = la.Operation(cpu, "combine", la.CombineConfig(2, 2))
parts, part_lse = array("f", [1, 2, 3, 4]), array("f", [0.5, 0.5])
merged, merged_lse = array("H", [0, 0]), array("f", [0])
in_place = [
    TorchTensor(shape, dtype=dtype, device="cpu", memory=memory)
    for shape, dtype, memory in (
        ((2, 1, 2), "float32", parts),
        ((2, 1), "float32", part_lse),
        ((1, 2), "bfloat16", merged),
        ((1,), "float32", merged_lse),
    )
]
combine.run(cpu.stream(), la.CombineArgs(1, 2, *in_place))
assert [round(x, 5) for x in merged_lse] == [1.19315] and list(merged) == [0x4000, 0x4040], (merged_lse, merged)

# Host memory with gaps or of no type of the library's, numbers that a field cannot hold, fields that there are not.
refused(lambda: device.upload(memoryview(bytes(8))[::2]), "SHAPE", "values: expected memory without gaps")
refused(lambda: device.upload(array("d", [1.0])), "CONFIG", "values: elements of f8")
assert device.upload(array("H", [0x3F80])).array().dtype == la.DTYPE_BF16
refused(lambda: la.Batch(max_pages=-1), "CONFIG", "max_pages -1: must be in 0..=18446744073709551615")
refused(lambda: la.RopeAppendConfig(g, form, 1 << 32), "CONFIG", "pairing 4294967296: must be in 0..=4294967295")
refused(lambda: la.CacheFormat.int4(64, 7).layout(g), "CONFIG", "cache format: range 7")
for unknown in (lambda: la.Batch(seq_len=lse), lambda: la.Geometry(*range(8))):
    try:
        unknown()
    except (AttributeError, TypeError):
        continue
    raise AssertionError("a field that does not exist was accepted")

# More memory than there is, of the device and of addresses.
refused(lambda: device.allocate(1 << 46, la.DTYPE_U8), "DRIVER", "cannot allocate 70368744177664 bytes", "are in use")
refused(lambda: device.allocate(1 << 62, la.DTYPE_F32), "CONFIG", "4611686018427387904 elements of f32: must be from 0")
refused(lambda: device.allocate(-1, la.DTYPE_F32), "CONFIG", "-1 elements of f32")

# A scale that is no number.
for scale in (float("nan"), float("inf")):
    refused(lambda: la.Decode(device, la.DecodeConfig(g, form, scale, 0, 2, 8)), "CONFIG", "scale ", "must be finite")
print("the package refuses by name what is not the memory that an argument is")
