"""The machine's load: a run beside other work measures that work too."""

import os
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def busy_seconds():
    """Returns the CPU seconds of all processes since boot."""
    with open("/proc/stat") as stat:
        times = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(times) - times[3] - times[4] - times[7]) / TICK


def process_seconds(pid):
    """Returns the CPU seconds of a process, 0 if it has exited."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def wait_quiet(cores, at_most):
    """Waits until other processes take less than `cores` for a second, at most `at_most` seconds."""
    end, quiet = time.time() + at_most, 0
    while time.time() < end and quiet < 2:
        before, began = busy_seconds(), time.time()
        time.sleep(0.5)
        quiet = quiet + 1 if (busy_seconds() - before) / (time.time() - began) < cores else 0


class Sampler(threading.Thread):
    """Samples the CPU of broker and machine every 50 ms while the context is entered."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.rows, self.stopped = pids, [], threading.Event()

    def run(self):
        while True:
            self.rows.append((time.time(), sum(map(process_seconds, self.pids)), busy_seconds()))
            if self.stopped.wait(0.05):
                break
        self.rows.append((time.time(), sum(map(process_seconds, self.pids)), busy_seconds()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()

    def between(self, start, end):
        """Returns the CPU seconds of broker and machine between two moments."""
        return tuple(self.at(end, column) - self.at(start, column) for column in (1, 2))

    def at(self, moment, column):
        for before, after in zip(self.rows, self.rows[1:]):
            if moment <= after[0]:
                share = max(0.0, moment - before[0]) / max(after[0] - before[0], 1e-9)
                return before[column] + (after[column] - before[column]) * share
        return self.rows[-1][column]
