"""Our attention in a process of its own, for `cpu.py`: the library has one pool of threads in each process, as many as
RAYON_NUM_THREADS says. Answers each line, the name of a level, with the seconds of a call.

    python3 scaling.py LIBRARY SHAPE TOKENS LEVEL...
"""

import os
import subprocess
import sys


class Worker:
    """The other end: a process with so many threads."""

    def __init__(self, library, shape, tokens, levels, threads):
        command = [sys.executable, __file__, library or "", shape, str(tokens), *levels]
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe)

    def seconds(self, level):
        print(level, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process for threads ended with status {self._process.wait()}")
        return float(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def main(library, shape, tokens, *levels):
    from host_inputs import HostInputs
    from host_ours import host_ours, la
    from rounds import sample

    la.library(library or None)
    inputs = HostInputs(la, shape, int(tokens))
    works = {level: host_ours(inputs, level) for level in levels}
    for line in sys.stdin:
        print(sample(works[line.strip()], "wall"), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
