"""Times on the CPU, and their ratios: rows take turns, round after round, so that what else the machine does hits all
alike. A time by itself says little; a ratio is of one round."""

import statistics
import time

# Seconds of calls that a sample is taken of, and the most calls.
SPAN = 0.03
MOST_CALLS = 50
# Seconds in which other libraries' threads, which spin for a while when they have worked, come to rest.
REST = 0.01
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def sample(work, clock):
    """Seconds of a call, the median of some in a row. The first of them finds its cache cold, and is not counted."""
    time.sleep(REST)
    now = CLOCKS[clock]
    start = now()
    work()
    expected = now() - start
    times = []
    for _ in range(max(1, min(MOST_CALLS, int(SPAN / max(expected, 1e-9))))):
        start = now()
        work()
        times.append(now() - start)
    return statistics.median(times)


def take_turns(works, rounds, clock):
    """Seconds of each work in each round, by name. Every other round goes backwards."""
    times = {name: [] for name in works}
    for number in range(rounds):
        order = list(works.items())
        for name, work in order if number % 2 == 0 else reversed(order):
            times[name].append(work() if clock is None else sample(work, clock))
    return times


class Ratio:
    """Of each round's times: the median of their ratios, and the quartiles."""

    def __init__(self, times, others, factor=1.0):
        ratios = [factor * time / other for time, other in zip(times, others)]
        self.median = statistics.median(ratios)
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else 3 * ratios
        self.quartiles = [low, high]

    def __str__(self):
        low, high = self.quartiles
        return f"{self.median:.2f} ({low:.2f}-{high:.2f})"

    def json(self):
        return {"median": self.median, "quartiles": self.quartiles}
