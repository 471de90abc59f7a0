"""Times on the GPU."""

import torch

REPETITIONS = 15
# Overwritten between repetitions: more bytes than any L2 cache holds.
FLUSH_BYTES = 256 << 20


class Clock:
    def __init__(self):
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def time(self, work):
        """Median, fastest and slowest of the repetitions in microseconds, each with a cold L2 cache; and whether they
        replay a CUDA graph. What cannot be captured is launched, and its time includes the launches."""
        # The first call may compile or choose; capturing wants it to have happened.
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                work()
            launch, is_graph = graph.replay, True
        except Exception:
            torch.cuda.synchronize()
            launch, is_graph = work, False
        times = []
        for repetition in range(REPETITIONS + 1):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.fill_(repetition)
            start.record()
            launch()
            end.record()
            end.synchronize()
            times.append(1000 * start.elapsed_time(end))
        times = sorted(times[1:])  # The first one warms up.
        return {"us": times[len(times) // 2], "range_us": [times[0], times[-1]], "graph": is_graph}
