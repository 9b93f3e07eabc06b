"""A minimal Kafka client for this tool's own requests.

The client knows non-flexible request versions on the plaintext INTERNAL listener.  It fetches metadata and creates topics in
milliseconds, without the start of a JVM.
"""

import socket
import struct

HOST = "127.0.0.1"

ERRORS = {0: "NONE", 3: "UNKNOWN_TOPIC_OR_PARTITION", 5: "LEADER_NOT_AVAILABLE", 7: "REQUEST_TIMED_OUT",
          17: "INVALID_TOPIC_EXCEPTION", 36: "TOPIC_ALREADY_EXISTS", 37: "INVALID_PARTITIONS",
          38: "INVALID_REPLICATION_FACTOR", 40: "INVALID_CONFIG", 41: "NOT_CONTROLLER"}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        (value,) = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return value

    def string(self):
        n = self.take("h")
        if n < 0:
            return None
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def array(self, item):
        return [item() for _ in range(max(0, self.take("i")))]

    def ints(self):
        return self.array(lambda: self.take("i"))


def string(s):
    return struct.pack(">h", -1) if s is None else struct.pack(">h", len(s.encode())) + s.encode()


def array(items):
    items = list(items)
    return struct.pack(">i", len(items)) + b"".join(items)


def ask(port, api, version, body, timeout=10.0):
    """Sends one request to a broker's INTERNAL listener and returns a Reader on the response body."""
    with socket.create_connection((HOST, port), timeout=timeout) as s:
        request = struct.pack(">hhi", api, version, 1) + string("kafka-test-tool") + body
        s.sendall(struct.pack(">i", len(request)) + request)

        def exactly(n):
            parts = bytearray()
            while len(parts) < n:
                got = s.recv(n - len(parts))
                if not got:
                    raise ConnectionError("connection closed by the broker")
                parts += got
            return bytes(parts)

        reply = Reader(exactly(struct.unpack(">i", exactly(4))[0]))
    reply.take("i")  # correlation id
    return reply


def ask_metadata(port, topics=None, timeout=10.0):
    """Requests Metadata v5.  Returns ({node: (host, port)}, {topic: {"error", "partitions": {p: {...}}}})."""
    body = struct.pack(">i", -1) if topics is None else array(string(t) for t in topics)
    r = ask(port, 3, 5, body + b"\0", timeout)
    r.take("i")  # throttle time
    nodes = {}
    for node, host, p, _ in r.array(lambda: (r.take("i"), r.string(), r.take("i"), r.string())):
        nodes[node] = (host, p)
    r.string()  # cluster id
    r.take("i")  # controller (in KRaft any live broker)

    def partition():
        error, index, leader = r.take("h"), r.take("i"), r.take("i")
        return index, {"error": error, "leader": leader, "replicas": r.ints(), "isr": r.ints(), "offline": r.ints()}

    def topic():
        error, name, internal = r.take("h"), r.string(), r.take("b")
        return name, {"error": error, "internal": bool(internal), "partitions": dict(sorted(r.array(partition)))}

    return nodes, dict(r.array(topic))


def ask_end_offset(port, topic, partition):
    """Requests ListOffsets v2 from the partition's leader.  Returns the high watermark, or None on an error."""
    body = struct.pack(">ib", -1, 0) + array(
        [string(topic) + array([struct.pack(">iq", partition, -1)])])
    r = ask(port, 2, 2, body)
    r.take("i")
    [(_, [(_, error, _, offset)])] = r.array(lambda: (r.string(), r.array(
        lambda: (r.take("i"), r.take("h"), r.take("q"), r.take("q")))))
    return offset if error == 0 else None
