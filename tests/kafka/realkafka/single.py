"""One broker of any release of Apache Kafka from 0.11 on, on loopback: KRaft from 3.3 on, with a ZooKeeper before 3.3.

Rules: Processes listen only on loopback addresses, and this module signals only processes that it started.  Clients reach the
broker through a proxy, which can cut all connections and delay answers.
"""

import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from .cluster import tail
from .jars import die, fetch, java_command, version_number
from .process import Process, free_ports
from .wire import HOST, array, ask, ask_metadata, string

ZOOKEEPER = "2.8.2"  # the release whose ZooKeeper serves all releases, because older ones don't start on Java 17
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"


class Broker:
    def __init__(self, version, directory):
        if version_number(version) < (0, 11):
            die(f"Kafka {version} has no idempotent producers: use 0.11 or newer")
        self.version, self.number, self.dir = version, version_number(version), Path(directory).resolve()
        self.libs = fetch(version=version)
        self.zookeeper = self.number < (3, 3)
        self.proxy = None

    # -- life cycle

    def up(self):
        self.dir.mkdir(parents=True)
        self.internal, self.client, self.advertised, self.controller, self.zookeeper_port = free_ports(5)
        (self.dir / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in self.properties().items()))
        if self.zookeeper:
            self.start_zookeeper()
        else:
            done = subprocess.run([*self.java("192m"), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c",
                                   str(self.dir / "server.properties")], capture_output=True, text=True)
            if done.returncode:
                die(f"formatting failed:\n{done.stdout}{done.stderr}")
        self.proxy = Proxy(self.advertised, self.client)
        self.bootstrap = f"{HOST}:{self.advertised}"
        self.start()

    def java(self, heap="512m"):
        # Without SASL, a ZooKeeper client before 3.5 does not resolve its own name, which fails on Java 14 (ZOOKEEPER-3779).
        return [*java_command("broker", heap, self.version), "-Dzookeeper.sasl.client=false", "-cp", f"{self.libs}/*"]

    def start_zookeeper(self):
        config = self.dir / "zookeeper.properties"
        config.write_text(f"dataDir={self.dir}/zookeeper\nclientPort={self.zookeeper_port}\nclientPortAddress={HOST}\n"
                          "maxClientCnxns=0\nadmin.enableServer=false\ntickTime=500\n")
        command = [*java_command("broker", "192m", ZOOKEEPER), "-cp", f"{fetch(version=ZOOKEEPER)}/*",
                   "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)]
        self.process("zookeeper").start(command, self.dir / "zookeeper.log", self.dir)
        end = time.time() + 30
        while True:
            try:
                socket.create_connection((HOST, self.zookeeper_port), timeout=1).close()
                return
            except OSError:
                if time.time() > end:
                    die("ZooKeeper did not start:\n" + tail(self.dir / "zookeeper.log"))
                time.sleep(0.1)

    def properties(self):
        config = {
            "log.dirs": self.dir / "data", "auto.create.topics.enable": "false", "delete.topic.enable": "true",
            "offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1, "offsets.topic.num.partitions": 3, "transaction.state.log.num.partitions": 3,
            "num.network.threads": 2, "num.io.threads": 4, "log.cleaner.dedupe.buffer.size": 8 << 20,
            "inter.broker.listener.name": "INTERNAL",
            "listener.security.protocol.map": "INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT",
            "listeners": f"INTERNAL://{HOST}:{self.internal},CLIENT://{HOST}:{self.client}",
            "advertised.listeners": f"INTERNAL://{HOST}:{self.internal},CLIENT://{HOST}:{self.advertised}",
        }
        if self.zookeeper:
            return config | {"broker.id": 1, "zookeeper.connect": f"{HOST}:{self.zookeeper_port}",
                             "zookeeper.session.timeout.ms": 2000, "zookeeper.connection.timeout.ms": 18000}
        return config | {
            "process.roles": "broker,controller", "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self.controller}", "controller.listener.names": "CONTROLLER",
            "listeners": f"{config['listeners']},CONTROLLER://{HOST}:{self.controller}",
            "broker.session.timeout.ms": 6000, "broker.heartbeat.interval.ms": 1000,
        }

    def process(self, which="server"):
        return Process(self.dir / f"{which}.pid", self.dir / f"{which}.properties")

    def start(self, timeout=90):
        process = self.process()
        process.start([*self.java(), "kafka.Kafka", str(self.dir / "server.properties")], self.dir / "server.log", self.dir)
        end = time.time() + timeout
        while True:
            if process.pid is None:
                die("the broker stopped:\n" + tail(self.dir / "server.log"))
            try:
                if 1 in self.metadata([])[0]:
                    return
            except (OSError, struct.error):
                pass
            if time.time() > end:
                die("the broker is not ready:\n" + tail(self.dir / "server.log"))
            time.sleep(0.1)

    def kill(self):
        self.process().signal(signal.SIGKILL)
        self.process().wait_gone(10)

    def stop(self):
        self.process().end(grace=30)

    def down(self):
        self.process().end()
        if self.zookeeper:
            self.process("zookeeper").end()
        if self.proxy:
            self.proxy.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    # -- topics

    def metadata(self, topics):
        """Returns ({node: ..}, {topic: {"partitions": ..}}) like `ask_metadata`.  A broker of 0.11 knows only Metadata v4."""
        if self.number >= (1, 0):
            return ask_metadata(self.internal, topics, timeout=5)
        r = ask(self.internal, 3, 4, array(string(t) for t in topics) + b"\0", timeout=5)
        r.take("i")
        nodes = {n: (h, p) for n, h, p, _ in r.array(lambda: (r.take("i"), r.string(), r.take("i"), r.string()))}
        r.string(), r.take("i")

        def partition():
            error, index, leader = r.take("h"), r.take("i"), r.take("i")
            return index, {"error": error, "leader": leader, "replicas": r.ints(), "isr": r.ints()}

        return nodes, {name: {"error": error, "partitions": dict(parts)} for error, name, _, parts in r.array(
            lambda: (r.take("h"), r.string(), r.take("b"), r.array(partition)))}

    def create(self, topic, partitions):
        """Creates a topic and waits for its leaders."""
        body = array([string(topic) + struct.pack(">ih", partitions, 1) + array([]) + array([])])
        end = time.time() + 30
        while True:
            r = ask(self.internal, 19, 2, body + struct.pack(">i?", 15000, False), timeout=20)
            r.take("i")
            [(_, error, message)] = r.array(lambda: (r.string(), r.take("h"), r.string()))
            if error == 0:
                break
            if error not in (7, 41) or time.time() > end:
                die(f"topic {topic}: {error} {message}")
            time.sleep(0.1)
        while True:
            found = self.metadata([topic])[1][topic]["partitions"]
            if len(found) == partitions and all(p["leader"] >= 0 for p in found.values()):
                return
            if time.time() > end:
                die(f"topic {topic}: no leaders")
            time.sleep(0.05)


class Proxy:
    """A proxy for the broker's client listener.  `delay` delays answers, in seconds, and `cut` ends all connections."""

    def __init__(self, listen, to):
        self.to, self.live, self.delay = to, [], 0.0
        self.socket = socket.create_server((HOST, listen))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self.to))
            except OSError:
                client.close()
                continue
            self.live.append((client, server))
            threading.Thread(target=self.pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, True), daemon=True).start()

    def pump(self, source, sink, answers):
        try:
            while data := source.recv(1 << 16):
                if answers and self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def cut(self):
        while self.live:
            for end in self.live.pop():
                try:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.socket.close()
