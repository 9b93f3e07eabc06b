"""Processes that the tool starts, and free ports for them.

Rule: The tool signals only processes that this cluster started.
"""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

from .jars import die
from .wire import HOST


class Process:
    """A process of this cluster.  The pid is in a file, and a mark on the command line identifies the process, so that the
    tool never signals another process that has got the same pid."""

    def __init__(self, pid_file, mark):
        self.pid_file, self.mark = Path(pid_file), str(mark)

    def look(self):
        """Returns (pid, state letter), or (None, "") if the process has ended."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None, ""
        try:  # Linux: faster than ps
            for _ in range(100):
                state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                args = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if args or state in "ZX":
                    break
                time.sleep(0.01)  # a new process has no command line for a moment
        except OSError:
            if Path("/proc/self/stat").exists():
                return None, ""
            shown = subprocess.run(["ps", "-ww", "-o", "stat=", "-o", "args=", "-p", str(pid)],
                                   capture_output=True, text=True).stdout.strip()
            state, _, args = shown.partition(" ")
        return (pid, state[0]) if state and state[0] not in "ZX" and self.mark in args else (None, "")

    @property
    def pid(self):
        """Returns the pid if the process is alive, else None."""
        return self.look()[0]

    @property
    def state(self):
        pid, letter = self.look()
        return "down" if pid is None else "paused" if letter == "T" else "up"

    def start(self, command, log, cwd):
        with open(log, "ab") as out:
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                       cwd=cwd, start_new_session=True)
        self.pid_file.write_text(f"{started.pid}\n")
        return started

    def signal(self, sig):
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, sig)
        return True

    def wait_gone(self, seconds):
        end = time.time() + seconds
        while self.pid is not None:
            if time.time() > end:
                return False
            time.sleep(0.05)
        return True

    def end(self, grace=0.0):
        """Ends the process: SIGTERM, up to `grace` seconds to end, then SIGKILL."""
        if grace and self.signal(signal.SIGTERM):
            self.signal(signal.SIGCONT)  # a paused process cannot react
            if self.wait_gone(grace):
                return
        if self.signal(signal.SIGKILL):
            self.wait_gone(10)


def free_ports(count):
    """Returns free loopback ports below the kernel's ephemeral range.  An outgoing connection can't take such a port of a
    killed broker before the broker starts again."""
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    span = range(15000, low) if low > 16000 else range(low, 65000)
    ports, held = [], []
    try:
        for port in random.SystemRandom().sample(span, len(span)):
            if len(ports) == count:
                return ports
            s = socket.socket()
            try:
                s.bind((HOST, port))
            except OSError:
                s.close()
                continue
            held.append(s)  # stays bound until all ports are found
            ports.append(port)
    finally:
        for s in held:
            s.close()
    die("no free ports")
