"""The cluster directory, and the processes of its brokers and its proxy."""

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

from .jars import HEAP, classpath, die, java_command
from .process import Process
from .wire import ERRORS, HOST, ask_metadata


class Cluster:
    """A cluster directory.  `cluster.json` describes the set-up and never changes."""

    def __init__(self, directory):
        self.dir = Path(directory).resolve()
        try:
            self.plan = json.loads((self.dir / "cluster.json").read_text())
        except FileNotFoundError:
            die(f"no cluster in {self.dir} (start one with `kafka up`, or name its directory with --dir or $COURIER_TEST_CLUSTER)")
        self.brokers = {int(n): b for n, b in self.plan["brokers"].items()}

    # -- paths and addresses

    def home(self, n):
        if n not in self.brokers:
            die(f"no broker {n}: this cluster has {', '.join(map(str, self.brokers))}")
        return self.dir / f"broker-{n}"

    def properties(self, n):
        return self.home(n) / "server.properties"

    def process(self, n):
        return Process(self.home(n) / "pid", self.properties(n))

    @property
    def proxy(self):
        control = self.plan.get("proxy_control")
        return Process(self.dir / "proxy.pid", f"--control {HOST}:{control}") if control else None

    @property
    def internal_bootstrap(self):
        return ",".join(f"{HOST}:{b['internal']}" for b in self.brokers.values())

    # -- life cycle

    def launch(self, n):
        return self.process(n).start(
            java_command("broker", HEAP) + ["-cp", classpath(), "kafka.Kafka", str(self.properties(n))],
            self.home(n) / "server.log", self.home(n))

    def wait_ready(self, nodes, seconds):
        """Waits until each of `nodes` answers, and all of them are in the metadata of each (registered and unfenced)."""
        end = time.time() + seconds
        waiting = set(nodes)
        while waiting:
            for n in sorted(waiting):
                if self.process(n).pid is None:
                    die(f"broker {n} ended during its start. The end of {self.home(n)}/server.log:\n" + tail(self.home(n) / "server.log"))
                try:
                    known, _ = ask_metadata(self.brokers[n]["internal"], [], timeout=2)
                    if set(nodes) <= set(known):
                        waiting.discard(n)
                except OSError:
                    pass
            if waiting and time.time() > end:
                die(f"broker {sorted(waiting)} is not ready after {seconds} s: see {self.home(min(waiting))}/server.log")
            if waiting:
                time.sleep(0.1)

    # -- metadata

    def metadata(self, topics=None):
        """Returns the metadata of the first running broker that answers."""
        last = "no broker is running"
        for n, b in self.brokers.items():
            if self.process(n).state != "up":
                continue
            try:
                return ask_metadata(b["internal"], topics, timeout=3)
            except OSError as e:
                last = f"broker {n}: {e}"
        die(f"no broker answers ({last})")

    def topic(self, name):
        topic = self.metadata([name])[1][name]
        if topic["error"]:
            die(f"topic {name}: {ERRORS.get(topic['error'], topic['error'])}")
        return topic


def tail(path, lines=15):
    """Returns the end of a log: the lines from the last error on if it is among the last 500 lines, else the last lines."""
    try:
        rows = Path(path).read_text(errors="replace").splitlines()
    except OSError as e:
        return str(e)
    errors = [i for i, row in enumerate(rows) if " ERROR " in row or " FATAL " in row]
    first = errors[-1] if errors and errors[-1] >= len(rows) - 500 else len(rows) - lines
    return "\n".join(rows[max(0, first):][:lines]) or "(empty)"


def proxy_program():
    """Returns the path of kproxy: $KAFKA_PROXY, else the newest build of cargo, else the program on PATH."""
    top = Path(__file__).resolve().parents[3]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or top / "target")
    built = [p for p in (target / "release/kproxy", target / "debug/kproxy") if p.exists()]
    built.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for place in (os.environ.get("KAFKA_PROXY"), *built, shutil.which("kproxy")):
        if place and os.access(place, os.X_OK):
            return str(place)
    die("--proxied needs the kproxy program: cargo build --release -p kafka-courier-tests --bin kproxy, "
        "or name it in $KAFKA_PROXY", 127)


def start_proxy(cluster):
    routes = [f"{n}={b['advertised']}:{b['client']}" for n, b in cluster.brokers.items()]
    command = [proxy_program(), "--control", f"{HOST}:{cluster.plan['proxy_control']}", *routes]
    cluster.proxy.start(command, cluster.dir / "proxy.log", cluster.dir)
    end = time.time() + 5
    while True:
        try:
            socket.create_connection((HOST, cluster.plan["proxy_control"]), timeout=1).close()
            return
        except OSError:
            if time.time() > end or cluster.proxy.pid is None:
                die("the proxy did not start:\n" + tail(cluster.dir / "proxy.log"))
            time.sleep(0.02)


def stop_all(cluster, grace=0.0):
    """Ends the brokers and the proxy.  With `grace`, all brokers first get SIGTERM and this time in seconds."""
    if grace:
        for n in cluster.brokers:
            cluster.process(n).signal(signal.SIGTERM)
            cluster.process(n).signal(signal.SIGCONT)
        end = time.time() + grace
        for n in cluster.brokers:
            cluster.process(n).wait_gone(max(0.0, end - time.time()))
    for n in cluster.brokers:
        cluster.process(n).end()
    if cluster.proxy:
        cluster.proxy.end()
