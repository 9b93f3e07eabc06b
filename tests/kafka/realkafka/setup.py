"""`kafka up` and `kafka down`: certificates, configurations, data directories, start and end of a cluster.

Rules: A failed start stops all processes and keeps the logs.  Processes listen only on loopback addresses.
"""

import base64
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from .archive import ensure_archive
from .cluster import Cluster, proxy_program, start_proxy, stop_all
from .jars import VERSION, check_java_version, classpath, die, fetch, java_command, note
from .process import free_ports
from .wire import HOST

USER, PASSWORD = "alice", "alice-secret"
MECHANISMS = {"plain": "PLAIN", "scram-256": "SCRAM-SHA-256", "scram-512": "SCRAM-SHA-512", "oauthbearer": "OAUTHBEARER"}
# The names in the clients' certificates.
CLIENTS = {"client": USER, "other-client": "bob"}
# The brokers' certificates: names, first and last day of validity.
CERTIFICATES = {
    "good": ("DNS:localhost, IP:127.0.0.1", "20250101000000Z", "20450101000000Z"),
    "wrong-name": ("DNS:kafka.example", "20250101000000Z", "20450101000000Z"),
    "expired": ("DNS:localhost, IP:127.0.0.1", "20200101000000Z", "20200102000000Z"),
}


def make_tls(directory, brokers, certificate):
    """Creates a certificate authority, a certificate (one of CERTIFICATES) for each broker, and one for each client."""
    openssl = shutil.which("openssl")
    if not openssl:
        die("`openssl` not found: --tls needs it (Debian/Ubuntu: apt install openssl; macOS: brew install openssl)", 127)
    tls = directory / "tls"
    tls.mkdir()
    tls.chmod(0o700)
    (tls / "index").write_text("")
    names = CERTIFICATES[certificate][0]
    (tls / "openssl.cnf").write_text(f"""
[issuer]
database = {tls}/index
new_certs_dir = {tls}
default_md = sha256
rand_serial = yes
policy = any
[any]
commonName = supplied
[req]
distinguished_name = dn
prompt = no
[dn]
CN = replaced by -subj
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = {names}
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = clientAuth
""")

    def run(*args):
        done = subprocess.run([openssl, *args], cwd=tls, capture_output=True, text=True)
        if done.returncode:
            die(f"openssl {args[0]} failed: {done.stderr.strip()}")

    def key(name):  # PKCS#8, the only form Kafka reads from PEM
        run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", f"{name}.key")

    key("ca")
    run("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-days", "3650", "-sha256",
        "-config", "openssl.cnf", "-extensions", "ca", "-subj", "/CN=kafka-test CA")
    for name, kind in [(f"broker-{n}", "server") for n in brokers] + [(name, "client") for name in CLIENTS]:
        subject = f"/CN={CLIENTS.get(name, name)}"
        key(name)
        run("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-config", "openssl.cnf", "-subj", subject)
        _, first, last = CERTIFICATES[certificate if kind == "server" else "good"]
        run("ca", "-batch", "-notext", "-config", "openssl.cnf", "-name", "issuer", "-cert", "ca.pem", "-keyfile", "ca.key",
            "-in", f"{name}.csr", "-out", f"{name}.pem", "-startdate", first, "-enddate", last, "-extensions", kind)
        keystore = tls / f"{name}-keystore.pem"
        keystore.write_text((tls / f"{name}.key").read_text() + (tls / f"{name}.pem").read_text())
    for name in ("ca.pem", "client-keystore.pem", *(f"{client}.{end}" for client in CLIENTS for end in ("pem", "key"))):
        shutil.copy(tls / name, directory / name)


def protocol(plan):
    return ("SASL_" if plan["sasl"] else "") + ("SSL" if plan["tls"] else "PLAINTEXT")


def server_properties(plan, directory, n):
    b, count = plan["brokers"][n], len(plan["brokers"])
    rf, isr = min(3, count), min(2, count)
    voters = ",".join(f"{i}@{HOST}:{x['controller']}" for i, x in plan["brokers"].items())
    config = {
        "process.roles": "broker,controller",
        "node.id": n,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "listeners": f"INTERNAL://{HOST}:{b['internal']},CLIENT://{HOST}:{b['client']},CONTROLLER://{HOST}:{b['controller']}",
        "advertised.listeners": f"INTERNAL://{HOST}:{b['internal']},CLIENT://{plan['host']}:{b['advertised']}",
        "listener.security.protocol.map": f"INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:{protocol(plan)}",
        "log.dirs": directory / f"broker-{n}" / "data",
        # durability: an acknowledged record (acks=all) survives any one broker
        "default.replication.factor": rf,
        "min.insync.replicas": isr,
        "unclean.leader.election.enable": "false",
        "offsets.topic.replication.factor": rf,
        "transaction.state.log.replication.factor": rf,
        "transaction.state.log.min.isr": isr,
        "share.coordinator.state.topic.replication.factor": rf,
        "share.coordinator.state.topic.min.isr": isr,
        # speed: few internal partitions, no wait for more consumers, fast fail-over
        "offsets.topic.num.partitions": 3,
        "transaction.state.log.num.partitions": 3,
        "share.coordinator.state.topic.num.partitions": 3,
        "group.initial.rebalance.delay.ms": 0,
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 1000,
        "controlled.shutdown.enable": "true",
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 8 << 20,
        "num.partitions": 3,
        "auto.create.topics.enable": "false",
    }
    client = "listener.name.client."
    if plan["tls"]:
        config[client + "ssl.keystore.type"] = "PEM"
        config[client + "ssl.keystore.location"] = directory / "tls" / f"broker-{n}-keystore.pem"
        config[client + "ssl.truststore.type"] = "PEM"
        config[client + "ssl.truststore.location"] = directory / "ca.pem"
        config[client + "ssl.client.auth"] = plan["client_auth"]
    if plan["sasl"]:
        mechanism = MECHANISMS[plan["sasl"]]
        config[client + "sasl.enabled.mechanisms"] = mechanism
        if mechanism == "PLAIN":
            module = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        elif mechanism == "OAUTHBEARER":  # unsigned tokens, which the broker's default validator accepts
            module = ("org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
                      'unsecuredLoginStringClaim_sub="broker";')
        else:  # `format --add-scram` puts the user into the cluster's metadata
            module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        config[client + mechanism.lower() + ".sasl.jaas.config"] = module
    config.update(plan["set"])
    return "".join(f"{k}={v}\n" for k, v in config.items())


def client_properties(plan, directory):
    config = {"security.protocol": protocol(plan)}
    if plan["tls"]:
        config["ssl.truststore.type"] = "PEM"
        config["ssl.truststore.location"] = directory / "ca.pem"
        if plan["client_auth"] != "none":
            config["ssl.keystore.type"] = "PEM"
            config["ssl.keystore.location"] = directory / "client-keystore.pem"
    if plan["sasl"]:
        mechanism = MECHANISMS[plan["sasl"]]
        module, options = {
            "PLAIN": ("plain.Plain", f'username="{USER}" password="{PASSWORD}"'),
            "OAUTHBEARER": ("oauthbearer.OAuthBearer", f'unsecuredLoginStringClaim_sub="{USER}"'),
        }.get(mechanism, ("scram.Scram", f'username="{USER}" password="{PASSWORD}"'))
        config["sasl.mechanism"] = mechanism
        config["sasl.jaas.config"] = f"org.apache.kafka.common.security.{module}LoginModule required {options};"
    return "".join(f"{k}={v}\n" for k, v in config.items())


def prepare(plan, directory):
    """Writes certificates and configurations, and formats the brokers' data directories side by side."""
    if plan["tls"]:
        make_tls(directory, plan["brokers"], plan["certificate"])
    (directory / "client.properties").write_text(client_properties(plan, directory))
    if plan["sasl"]:
        (directory / "username").write_text(USER + "\n")
        (directory / "password").write_text(PASSWORD + "\n")
    cluster_id = "-"
    while cluster_id.startswith("-"):  # a leading hyphen looks like an option
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    formats = {}
    for n in plan["brokers"]:
        home = directory / f"broker-{n}"
        home.mkdir()
        (home / "server.properties").write_text(server_properties(plan, directory, n))
        command = java_command() + ["-cp", classpath(), "kafka.tools.StorageTool", "format", "-t", cluster_id,
                                    "-c", str(home / "server.properties")]
        if plan["sasl"] and plan["sasl"].startswith("scram"):
            command += ["--add-scram", f"{MECHANISMS[plan['sasl']]}=[name={USER},password={PASSWORD}]"]
        formats[n] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True)
    outputs = {n: p.communicate()[0] for n, p in formats.items()}
    for n, p in formats.items():
        if p.returncode:
            die(f"formatting broker {n} failed:\n{outputs[n]}")


def command_up(args):
    started = time.time()
    check_java_version()
    fetch()
    ensure_archive()
    directory = Path(args.dir).resolve()
    if (directory / "cluster.json").exists():
        die(f"{directory} already has a cluster: run `kafka down` first, or `kafka start` for its stopped brokers")
    if directory.exists() and any(directory.iterdir()):
        die(f"{directory} is not empty: give a new directory")
    if args.proxied:
        proxy_program()
    ports = free_ports(4 * args.brokers + 1)
    plan = {"version": VERSION, "host": args.host, "sasl": args.sasl, "tls": args.tls, "client_auth": args.client_auth,
            "certificate": args.certificate, "set": dict(args.set), "proxy_control": ports.pop() if args.proxied else None, "brokers": {}}
    for n in range(1, args.brokers + 1):
        b = {"internal": ports.pop(), "controller": ports.pop(), "client": ports.pop()}
        b["advertised"] = ports.pop() if args.proxied else b["client"]
        plan["brokers"][n] = b

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # SIGTERM cleans up as below
    directory.mkdir(parents=True, exist_ok=True)
    try:
        prepare(plan, directory)
    except BaseException:
        shutil.rmtree(directory)  # was empty before
        raise

    # The file exists before the brokers start, so that `kafka down` can always clean up.
    (directory / "cluster.json").write_text(json.dumps(plan, indent=1) + "\n")
    cluster = Cluster(directory)
    try:
        if args.proxied:
            start_proxy(cluster)
        for n in cluster.brokers:
            cluster.launch(n)
        cluster.wait_ready(cluster.brokers, args.timeout)
    except BaseException:
        stop_all(cluster)  # keeps the logs
        note(f"the start failed, and the logs are in {directory} until `kafka down`")
        raise
    bootstrap = ",".join(f"{args.host}:{b['advertised']}" for b in cluster.brokers.values())
    (directory / "bootstrap").write_text(bootstrap + "\n")
    note(f"{args.brokers} broker(s), {protocol(plan)}{' ' + MECHANISMS[args.sasl] if args.sasl else ''}"
         f"{', proxied' if args.proxied else ''}, in {directory}, ready after {time.time() - started:.1f} s")
    print(bootstrap, flush=True)


def command_down(args):
    if not (Path(args.dir) / "cluster.json").exists():
        note(f"no cluster in {args.dir}")
        return
    cluster = Cluster(args.dir)
    if args.keep:
        stop_all(cluster, grace=15)
    else:
        stop_all(cluster)  # the data is deleted, so that no orderly shutdown is needed
        shutil.rmtree(cluster.dir)
