"""The operations."""

from ctypes import POINTER, byref, c_size_t

from .arguments import (
    AbsorbConfig,
    AbsorbQueryArgs,
    CombineArgs,
    CombineConfig,
    DecodeArgs,
    DecodeConfig,
    ExpandOutputArgs,
    GatherArgs,
    GatherConfig,
    RopeAppendArgs,
    RopeAppendConfig,
    UpProjectArgs,
    UpProjectConfig,
)
from .cache import Batch
from .errors import Error
from .loading import HANDLE, OUT, Handle, declare, library
from .memory import Array, array
from .structs import Struct

declare(
    "rope_append absorb_query expand_output plan decode combine up_project gather",
    la_rope_append_create=[HANDLE, POINTER(RopeAppendConfig), OUT],
    la_rope_append_run=[HANDLE, HANDLE, POINTER(RopeAppendArgs)],
    la_absorb_query_create=[HANDLE, POINTER(AbsorbConfig), OUT],
    la_absorb_query_run=[HANDLE, HANDLE, POINTER(AbsorbQueryArgs)],
    la_expand_output_create=[HANDLE, POINTER(AbsorbConfig), OUT],
    la_expand_output_run=[HANDLE, HANDLE, POINTER(ExpandOutputArgs)],
    la_decode_create=[HANDLE, POINTER(DecodeConfig), OUT],
    la_decode_workspace_bytes=[HANDLE, POINTER(c_size_t)],
    la_decode_plan=[HANDLE, HANDLE, POINTER(Batch), c_size_t, Array, OUT],
    la_decode_run=[HANDLE, HANDLE, HANDLE, POINTER(DecodeArgs)],
    la_combine_create=[HANDLE, POINTER(CombineConfig), OUT],
    la_combine_run=[HANDLE, HANDLE, POINTER(CombineArgs)],
    la_up_project_create=[HANDLE, POINTER(UpProjectConfig), OUT],
    la_up_project_run=[HANDLE, HANDLE, POINTER(Batch), POINTER(UpProjectArgs)],
    la_gather_create=[HANDLE, POINTER(GatherConfig), OUT],
    la_gather_run=[HANDLE, HANDLE, POINTER(Batch), POINTER(GatherArgs)],
)


class Operation(Handle):
    """An operation by its name in the header, such as "absorb_query", made for a device and a configuration."""

    def __init__(self, device, name, config):
        super().__init__(name, f"la_{name}_create", device, byref(config))
        self._run, self._device = getattr(library(), f"la_{name}_run"), device

    def run(self, stream, *arguments):
        """Runs it: the arguments are structures (and, for decode, first a plan)."""
        self._run(self, stream, *(self._by_reference(a) if isinstance(a, Struct) else a for a in arguments))

    def _by_reference(self, arguments):
        for name, memory in arguments.memory.items():
            self._check_place(name, memory)
        return byref(arguments)

    def _check_place(self, name, memory):
        if memory.place not in (None, self._device.place):
            raise Error("CONFIG", f"{name}: is on {memory.place}, the operation on {self._device.place}")


class Decode(Operation):
    def __init__(self, device, config):
        super().__init__(device, "decode", config)

    def workspace_bytes(self):
        size = c_size_t()
        library().la_decode_workspace_bytes(self, byref(size))
        return size.value

    def plan(self, stream, batch, query_tokens, workspace):
        """A plan in `workspace`, bytes as array() takes them. It keeps them and the batch."""
        workspace = array(workspace, "workspace")
        self._check_place("workspace", workspace)
        plan = Handle("plan", "la_decode_plan", self, stream, self._by_reference(batch), query_tokens, workspace)
        plan.arguments = batch, workspace
        return plan
