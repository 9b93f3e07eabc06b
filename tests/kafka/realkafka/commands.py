"""The commands on a running cluster: brokers, topics and records."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from .cluster import Cluster, start_proxy
from .jars import DUMP_CLASS, classpath, die, dump_classes, fetch, java_command
from .setup import MECHANISMS, protocol
from .wire import ERRORS, HOST, array, ask, ask_end_offset, ask_metadata, string


def command_status(args):
    cluster = Cluster(args.dir)
    seen = {}
    for n in cluster.brokers:
        if cluster.process(n).state == "up":
            try:
                seen = ask_metadata(cluster.brokers[n]["internal"], [], timeout=2)[0]
                break
            except OSError:
                pass
    rows = [{"broker": n, "state": cluster.process(n).state, "registered": n in seen, "pid": cluster.process(n).pid, **b}
            for n, b in cluster.brokers.items()]
    if args.json:
        print(json.dumps({"dir": str(cluster.dir), "protocol": protocol(cluster.plan), "brokers": rows,
                          "proxy_control": cluster.plan["proxy_control"]}))
        return
    print(f"{cluster.dir}: Kafka {cluster.plan['version']}, {protocol(cluster.plan)}"
          f"{' ' + MECHANISMS[cluster.plan['sasl']] if cluster.plan['sasl'] else ''}")
    for r in rows:
        via = f" via proxy port {r['advertised']}" if cluster.proxy else ""
        state = r["state"] + ("" if r["registered"] or r["state"] != "up" else " (not registered)")
        print(f"broker {r['broker']}: {state}, pid {r['pid'] or '-'}, client port {r['client']}{via}, internal port {r['internal']}")
    if cluster.proxy:
        print(f"proxy: {cluster.proxy.state}, pid {cluster.proxy.pid or '-'}, control http://{HOST}:{cluster.plan['proxy_control']}/")


def command_kill(args):
    process = Cluster(args.dir).process(args.broker)
    if not process.signal(signal.SIGKILL):
        die(f"broker {args.broker} is not running")
    process.wait_gone(10)


def command_stop(args):
    process = Cluster(args.dir).process(args.broker)
    if process.pid is None:
        die(f"broker {args.broker} is not running")
    process.end(grace=args.timeout)


def command_start(args):
    cluster = Cluster(args.dir)
    fetch()
    nodes = [args.broker] if args.broker else list(cluster.brokers)
    for n in nodes:
        if cluster.process(n).pid is None:
            cluster.launch(n)
        elif args.broker:
            die(f"broker {n} is already running")
    if cluster.proxy and cluster.proxy.pid is None:
        start_proxy(cluster)
    if not args.no_wait:
        cluster.wait_ready(nodes, args.timeout)


def command_pause(args):
    if not Cluster(args.dir).process(args.broker).signal(signal.SIGSTOP):
        die(f"broker {args.broker} is not running")


def command_resume(args):
    if not Cluster(args.dir).process(args.broker).signal(signal.SIGCONT):
        die(f"broker {args.broker} is not running")


def command_fault(args):
    """Sends a command to the proxy.  `kproxy --help` lists the faults."""
    import urllib.error  # here, because the import is slow and no other command needs it
    import urllib.request

    cluster = Cluster(args.dir)
    if not cluster.proxy:
        die("this cluster has no proxy: start it with `kafka up --proxied`")
    words = list(args.words)
    broker = words.pop(0) if words and words[0].isdigit() else "all"
    if broker != "all":
        cluster.home(int(broker))  # checks that the broker exists
    action = words.pop(0) if words and "=" not in words[0] else "set" if words else "status"
    url = f"http://{HOST}:{cluster.plan['proxy_control']}/{action}?" + "&".join([f"broker={broker}", *words])
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            text = reply.read().decode().rstrip()
    except urllib.error.HTTPError as e:
        die(e.read().decode().rstrip())
    except OSError as e:
        die(f"the proxy does not answer: {e}")
    if action == "status":
        print(text)


def command_topic_create(args):
    cluster = Cluster(args.dir)
    replication = args.replication or min(3, len(cluster.brokers))
    body = array([string(args.name) + struct.pack(">ih", args.partitions, replication) + array([])
                  + array(string(k) + string(v) for k, v in args.config)]) + struct.pack(">i?", 15000, False)
    n = next((n for n in cluster.brokers if cluster.process(n).state == "up"), None)
    if n is None:
        die("no broker is running")
    r = ask(cluster.brokers[n]["internal"], 19, 2, body, timeout=20)  # CreateTopics v2
    r.take("i")
    [(_, error, message)] = r.array(lambda: (r.string(), r.take("h"), r.string()))
    if error:
        die(f"topic {args.name}: {ERRORS.get(error, f'error {error}')}: {message}")
    # The controller has created the topic. Every running broker must also know every leader.
    for n in cluster.brokers:
        end = time.time() + 15
        while cluster.process(n).state == "up":
            topic = ask_metadata(cluster.brokers[n]["internal"], [args.name])[1][args.name]
            if len(topic["partitions"]) == args.partitions and all(p["leader"] >= 0 for p in topic["partitions"].values()):
                break
            if time.time() > end:
                die(f"topic {args.name} was created, but broker {n} does not know all leaders after 15 s")
            time.sleep(0.05)


def command_topic_delete(args):
    cluster = Cluster(args.dir)
    n = next((n for n in cluster.brokers if cluster.process(n).state == "up"), None)
    if n is None:
        die("no broker is running")
    r = ask(cluster.brokers[n]["internal"], 20, 1, array([string(args.name)]) + struct.pack(">i", 15000), timeout=20)
    r.take("i")
    [(_, error)] = r.array(lambda: (r.string(), r.take("h")))
    if error:
        die(f"topic {args.name}: {ERRORS.get(error, f'error {error}')}")
    # The controller has deleted the topic. Every running broker must also have noticed.
    for n in cluster.brokers:
        end = time.time() + 15
        while cluster.process(n).state == "up" and args.name in ask_metadata(cluster.brokers[n]["internal"], None)[1]:
            if time.time() > end:
                die(f"topic {args.name} was deleted, but broker {n} still names it after 15 s")
            time.sleep(0.05)


def command_topic_describe(args):
    cluster = Cluster(args.dir)
    if args.name:
        topics = {args.name: cluster.topic(args.name)}
    else:
        topics = {name: t for name, t in cluster.metadata()[1].items() if not t["internal"]}
    for name, topic in sorted(topics.items()):
        for index, p in topic["partitions"].items():
            leader = cluster.brokers.get(p["leader"])
            try:
                p["end"] = ask_end_offset(leader["internal"], name, index) if leader else None
            except OSError:
                p["end"] = None
    if args.json:
        print(json.dumps(topics))
        return
    for name, topic in sorted(topics.items()):
        print(f"topic {name}: {len(topic['partitions'])} partitions")
        for index, p in topic["partitions"].items():
            print(f"  partition {index}: leader {p['leader'] if p['leader'] >= 0 else 'none'}, replicas {p['replicas']}, "
                  f"in sync {p['isr']}, end offset {'?' if p['end'] is None else p['end']}")


def command_leader(args):
    partitions = Cluster(args.dir).topic(args.topic)["partitions"]
    if args.partition not in partitions:
        die(f"topic {args.topic} has no partition {args.partition}")
    leader = partitions[args.partition]["leader"]
    if leader < 0:
        die(f"partition {args.partition} of {args.topic} has no leader now")
    print(leader)


def command_consume(args):
    """Runs Kafka's console consumer from the beginning.  It normally ends after --timeout-ms without a record."""
    cluster = Cluster(args.dir)
    fetch()
    cluster.topic(args.name)  # a clear message when it does not exist
    if args.via_client:
        where = [(cluster.dir / "bootstrap").read_text().strip(), "--consumer.config", str(cluster.dir / "client.properties")]
    else:
        where = [cluster.internal_bootstrap]
    command = java_command() + ["-cp", classpath(), "org.apache.kafka.tools.consumer.ConsoleConsumer",
                                "--topic", args.name, "--from-beginning", "--isolation-level", args.isolation,
                                "--timeout-ms", str(args.timeout_ms), "--bootstrap-server", *where]
    if args.max is not None:
        command += ["--max-messages", str(args.max)]
    for wanted, names in ((args.keys, ["key"]), (args.headers, ["headers"]), (args.partition_offset, ["partition", "offset"])):
        if wanted:
            for name in names:
                command += ["--property", f"print.{name}=true"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    noise = ("Processed a total of", "org.apache.kafka.common.errors.TimeoutException", "\tat ",
             "[", "Option --")  # Kafka reports the normal end as an error with a stack trace
    idle = "TimeoutException" in run.stderr
    left = [line for line in run.stderr.splitlines()
            if line.strip() and not (idle and (line.startswith(noise) or "Error processing message" in line))]
    left = [line for line in left if not line.startswith("Processed a total of")]
    if left:
        print("\n".join(left), file=sys.stderr)
    if run.returncode and not idle:
        sys.exit(run.returncode)


def command_dump(args):
    cluster = Cluster(args.dir)
    fetch()
    cluster.topic(args.name)  # a clear message when it does not exist
    # The optimising JIT halves the time for a million records.
    command = [word for word in java_command() if not word.startswith("-XX:TieredStopAtLevel")]
    run = subprocess.run(command + ["-cp", dump_classes(), DUMP_CLASS, cluster.internal_bootstrap, args.name, args.isolation],
                         stdin=subprocess.DEVNULL)
    sys.exit(run.returncode)


# DumpLogSegments prints one line for each batch: "baseOffset: 0 lastOffset: 99 count: 100 ... isvalid: true".
FIELD = re.compile(r"(\w+): (\S+)")


def segment_files(cluster, name):
    """Returns the log segments of a topic's partitions on their leaders, in order within each partition."""
    for index, p in cluster.topic(name)["partitions"].items():
        if p["leader"] not in cluster.brokers:
            die(f"partition {index} of {name} has no leader now")
        yield from sorted((cluster.home(p["leader"]) / "data" / f"{name}-{index}").glob("*.log"))


def command_batches(args):
    """Runs Kafka's DumpLogSegments without decoding the records, and prints its lines as JSON."""
    cluster = Cluster(args.dir)
    fetch()
    files = [str(f) for name in args.names for f in segment_files(cluster, name)]
    command = java_command() + ["-cp", classpath(), "kafka.tools.DumpLogSegments", "--files", ",".join(files)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as run:
        where = {}
        for line in run.stdout:
            if line.startswith("Dumping "):
                topic, _, partition = Path(line[len("Dumping "):].strip()).parent.name.rpartition("-")
                where = {"topic": topic, "partition": int(partition)}
            elif line.startswith("baseOffset: "):
                print(json.dumps({**where, **{key: json_value(value) for key, value in FIELD.findall(line)}}))
            elif not line.startswith("Log starting offset: "):
                print(line, end="", file=sys.stderr)  # an unreadable batch
    sys.exit(run.returncode)


def json_value(text):
    """Returns a word of DumpLogSegments as a JSON value."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdigit() else text


def command_java(args):
    fetch()
    command = java_command() + ["-cp", classpath(), args.java_class, *args.args]
    os.execv(command[0], command)
