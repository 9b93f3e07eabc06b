"""The scenarios and the clients' commands.

Rules: every client has the same flags, data and buffer size. Other settings keep the client's defaults, except limits that
would end a batch below the scenario's size.
"""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Scenario:
    messages: int
    size: int
    compression: str
    linger_ms: int = 5
    rate: int = 0  # messages per second, 0 for the full rate
    partitions: int = 6
    batch_bytes: int = MIB
    threads: int = 1
    round_trip_ms: int = 0  # added by a proxy
    count: int = 0  # records per batch, 0 for a bound by bytes alone

    def words(self):
        words = [f"{self.messages:,} x {self.size} B", self.compression, f"linger {self.linger_ms} ms",
                 f"{self.partitions} partition{'s' * (self.partitions > 1)}"]
        words.append(f"batches of {self.count} records" if self.count else f"batches to {self.batch_bytes >> 10} KiB")
        words.append(f"{self.rate:,} a second" if self.rate else "full rate")
        if self.threads > 1:
            words.append(f"{self.threads} producing threads")
        if self.round_trip_ms:
            words.append(f"round trip {self.round_trip_ms} ms")
        return ", ".join(words)

    def flags(self):
        # Most clients bound a batch by bytes alone. A record takes some 15 bytes beyond its value here, a batch 61.
        batch = self.count * (self.size + 15) + 61 if self.count else self.batch_bytes
        return ["--messages", self.messages, "--size", self.size, "--compression", self.compression, "--linger-ms",
                self.linger_ms, "--batch-bytes", batch, "--rate", self.rate, "--threads", self.threads]


SCENARIOS = {
    "small-snappy": Scenario(2_000_000, 100, "snappy"),
    "small-plain": Scenario(2_000_000, 100, "none"),
    "large-snappy": Scenario(1_000_000, 1000, "snappy"),
    "large-plain": Scenario(1_000_000, 1000, "none"),
    "events": Scenario(1_000_000, 400, "snappy"),
    "two-threads": Scenario(2_000_000, 100, "snappy", threads=2),
    "hundred": Scenario(2_000_000, 100, "snappy", count=100),
    "paced-20k": Scenario(400_000, 500, "snappy", rate=20_000),
    "paced-1k": Scenario(10_000, 500, "snappy", linger_ms=0, rate=1_000),
    "far-1": Scenario(1_000_000, 100, "snappy", partitions=1, round_trip_ms=20),
    "far-100": Scenario(1_000_000, 100, "snappy", partitions=100, round_trip_ms=20),
}

LEAST_EVENT = 400  # bytes: the JSON of an event without data takes 290

# Variants of kafka-courier, each in the scenarios that it informs.
VARIANTS = {
    "courier-typed": lambda s: s.size >= LEAST_EVENT,
    "courier-default": lambda s: not (s.rate or s.round_trip_ms or s.count),
    "courier-lean": lambda s: not (s.rate or s.round_trip_ms or s.count or s.threads > 1),
    "courier-linger": lambda s: s.rate and s.linger_ms,
}
OURS = ("courier", *VARIANTS)
DEFAULT_BUFFER = 32 * MIB  # the default of buffer_memory
LEAN_BUFFER = 8 * MIB


def takes_part(client, scenario):
    return client not in VARIANTS or bool(VARIANTS[client](scenario))


def commands(here: Path, built: Path, classpath: str):
    """Returns each client's command as a function of the scenario."""
    def ours(*more):
        # flush_messages bounds a batch by count. A scenario that bounds batches by bytes alone raises it out of reach.
        return lambda s: [built / "release/courier-peer", "--x-flush-messages", s.count or 1_000_000, *more]

    def rskafka(s):
        # rskafka's aggregator counts only keys and values. A batch of a full MiB would exceed the broker's limit.
        return [built / "release/rskafka-peer", *(() if s.count else ("--x-batch", s.batch_bytes * 15 // 16))]

    java = ["java", "-Xmx512m", "-cp", f"{built}/peers-java:{classpath}", "Load"]
    return {
        "courier": ours(),
        "courier-typed": ours("--x-typed", 1),
        "courier-default": ours("--x-buffer", DEFAULT_BUFFER),
        "courier-lean": ours("--x-buffer", LEAN_BUFFER),
        "courier-linger": ours("--x-expedite", 0),
        "java": lambda s: java,
        "librdkafka": lambda s: [built / "release/rdkafka-peer"],
        "franz-go": lambda s: [built / "peers-go/franz"],
        "sarama": lambda s: [built / "peers-go/sarama"],
        "krafka": lambda s: [built / "release/krafka-peer"],
        "rskafka": rskafka,
    }
