"""Torch's tensors as the memory of our operations."""

import torch


class TorchMemory:
    """Tensors as the library's arguments. For the simulator, which has memory of its own, they are copied."""

    def __init__(self, la, device, torch_device):
        self._la, self._device, self._torch_device = la, device, torch_device
        self._is_cuda, self._copies = torch_device.type == "cuda", {}

    def zeros(self, *sizes, dtype):
        return torch.zeros(sizes, dtype=getattr(torch, dtype), device=self._torch_device)

    def copy(self, tensor):
        return tensor.clone()

    def stream(self):
        return torch.cuda.current_stream().cuda_stream if self._is_cuda else 0

    def array(self, tensor):
        if self._is_cuda:
            return self._la.array(tensor)
        return self._copy(tensor).array()

    def tensor(self, tensor):
        if self._is_cuda:
            return self._la.tensor(tensor)
        return self._copy(tensor).tensor(*tensor.shape)

    def fetch(self, tensor):
        """The tensor with what the device has written to it."""
        if not self._is_cuda:
            tensor.view(torch.uint8).flatten()[:] = torch.frombuffer(self._copy(tensor).download(), dtype=torch.uint8)
        return tensor

    def _copy(self, tensor):
        if tensor.data_ptr() not in self._copies:
            values = tensor.contiguous().view(torch.uint8).numpy()
            self._copies[tensor.data_ptr()] = self._device.upload(values, self._la.dtype_of(tensor))
        return self._copies[tensor.data_ptr()]
