"""One broker with default settings for a comparison, and the content of its topics.

Rules: topics are checked twice, with Kafka's own tool and in the broker's log files. Kafka's tools share one JVM, because
a JVM's start takes longer than many runs.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

KAFKA = Path(__file__).resolve().parents[3] / "tests/kafka/kafka"
HEADER = 61  # bytes of a record batch before its records


def kafka(*words, **more):
    return subprocess.run([KAFKA, *words], check=True, stdout=subprocess.PIPE, text=True, **more).stdout.strip()


class Cluster:
    """A broker that runs while the context is entered, behind a proxy if the scenario has a round trip."""

    def __init__(self, built, round_trip_ms):
        self.built, self.round_trip_ms = built, round_trip_ms
        self.parent = Path(tempfile.mkdtemp(prefix="bench-peers-"))
        self.dir, self.tools = self.parent / "kafka", None

    def __enter__(self):
        # The defaults of a broker. The test tool's own settings are small, for short tests.
        settings = dict(os.environ, KAFKA_HEAP="1g", KAFKA_JVM="-XX:+UseSerialGC")
        more = ["--proxied"] if self.round_trip_ms else []
        kafka("--dir", self.dir, "up", "--brokers", "1", "--set", "num.network.threads=3", "--set", "num.io.threads=8",
              *more, env=settings)
        if self.round_trip_ms:
            kafka("--dir", self.dir, "fault", f"latency_ms={self.round_trip_ms // 2}")
        self.bootstrap = (self.dir / "bootstrap").read_text().strip()
        pids = (self.dir / name for name in ("broker-1/pid", "proxy.pid"))
        self.pids = [int(pid.read_text().split()[0]) for pid in pids if pid.exists()]
        classes = f"{self.built}/peers-java:{kafka('classpath')}"
        self.tools = subprocess.Popen(
            ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classes, "Tools"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        return self

    def __exit__(self, *_):
        if self.tools:
            self.tools.stdin.close()
            self.tools.wait()
        kafka("--dir", self.dir, "down")
        shutil.rmtree(self.parent, ignore_errors=True)

    def tool(self, name, *words):
        """Runs one of Kafka's tools. Returns its output."""
        self.tools.stdin.write(" ".join([f"org.apache.kafka.tools.{name}", "--bootstrap-server", self.bootstrap, *words]) + "\n")
        self.tools.stdin.flush()
        lines = []
        for line in self.tools.stdout:
            if line.startswith("<<rc "):
                if line.strip() != "<<rc 0>>":
                    sys.exit(f"{name} {' '.join(words)}: {''.join(lines)}")
                return lines
            lines.append(line)
        sys.exit(f"the JVM of Kafka's tools has ended\n{''.join(lines)}")

    def create(self, topic, partitions):
        self.tool("TopicCommand", "--create", "--topic", topic, "--partitions", str(partitions))

    def delete(self, topic):
        self.tool("TopicCommand", "--delete", "--topic", topic)

    def end_offsets(self, topic):
        """Returns the sum of the partitions' end offsets."""
        lines = self.tool("GetOffsetShell", "--topic", topic, "--time", "latest")
        return sum(int(line.rsplit(":", 1)[1]) for line in lines if line.startswith(topic + ":"))

    def scan(self, topic):
        """Counts records, batches, bytes, codecs and idempotent batches in the broker's own files."""
        found = {"log_records": 0, "log_batches": 0, "log_bytes": 0, "log_idempotent_batches": 0, "log_codecs": set()}
        for path in self.dir.glob(f"broker-1/data/{topic}-*/*.log"):
            with open(path, "rb") as log:
                scan_log(log, found)
        found["log_codecs"] = sorted(found["log_codecs"])
        return found


def scan_log(log, found):
    position, end = 0, os.fstat(log.fileno()).st_size
    while position + HEADER <= end:
        log.seek(position)
        header = log.read(HEADER)
        length = struct.unpack(">i", header[8:12])[0]
        if length <= 0:  # preallocated and not yet written
            return
        found["log_batches"] += 1
        found["log_bytes"] += length + 12
        found["log_codecs"].add(struct.unpack(">h", header[21:23])[0] & 7)
        found["log_idempotent_batches"] += struct.unpack(">q", header[43:51])[0] >= 0
        found["log_records"] += struct.unpack(">i", header[57:61])[0]
        position += length + 12
