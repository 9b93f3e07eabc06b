#!/usr/bin/env bash
# kafkajs 2.2.4 on Apache Kafka 4.4.0: parallel idempotent sends lose acknowledged records and double others after a lost answer.
#
# Behaviour: 300 calls of send run in parallel, ten records each, with idempotent: true and maxInFlightRequests: 1, which its guide
# names for exactly-once. The broker writes every 20th Produce request, but its connection is closed before the answer arrives. Every
# call resolves. The log lacks some records and holds the same number of others twice. The log is complete without lost answers, or
# with one send at a time.
# Cause: kafkajs takes the sequence number before a request leaves and subtracts it again when the request fails, although the batch
# may be in the log. A waiting call then takes the same sequence. The broker acknowledges it as a repeat and drops it. The written
# batch is sent again under a later sequence, and is in the log twice.
# Affected: Node.js services that publish from several requests at a time and rely on the idempotent producer.
#
# Output (kafkajs 2.2.4, Node.js 20, Kafka 4.4.0), with numbers that vary with timing:
#   acknowledged 3000, in the log 3000, distinct 2860: acknowledged and lost 140, twice 140
# Needs: JDK 17+, Maven, Node.js 18+ with npm, Python 3. Fails if the behaviour changes.
set -euo pipefail

VERSION=4.4.0
work=$(mktemp -d)
broker='' proxy=''
finish() {
    if [ -n "$proxy" ]; then kill "$proxy" 2>/dev/null || true; fi
    if [ -n "$broker" ]; then kill -9 "$broker" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

cat >pom.xml <<POM
<project><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>finding</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$VERSION</version></dependency>
</dependencies></project>
POM
mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime >mvn.log 2>&1 || { cat mvn.log; exit 1; }

read -r port behind direct controller < <(python3 -c '
import socket
s = [socket.socket() for _ in range(4)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])')
cat >server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=DIRECT://127.0.0.1:$direct,PROXIED://127.0.0.1:$behind,CONTROLLER://127.0.0.1:$controller
advertised.listeners=DIRECT://127.0.0.1:$direct,PROXIED://127.0.0.1:$port
listener.security.protocol.map=DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=DIRECT
controller.listener.names=CONTROLLER
log.dirs=$work/data
offsets.topic.replication.factor=1
PROPERTIES

start() {
    java -Xmx512m -cp "libs/*" kafka.Kafka server.properties >>broker.log 2>&1 &
    broker=$!
}

cat >Read.java <<'JAVA'
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** Prints how many records a topic's partition 0 holds, and how many different values. */
public class Read {
    public static void main(String[] args) {
        TopicPartition partition = new TopicPartition(args[1], 0);
        List<String> values = new ArrayList<>();
        try (var consumer = new KafkaConsumer<>(Map.<String, Object>of("bootstrap.servers", args[0]),
                new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            while (consumer.position(partition) < end) consumer.poll(Duration.ofSeconds(1)).forEach(r -> values.add(r.value()));
        }
        System.out.println(values.size() + " " + new HashSet<>(values).size());
    }
}
JAVA
javac -cp "libs/*" -d . Read.java

# Forwards connections to the broker. Closes a connection in place of every 20th Produce answer.
cat >proxy.py <<'PYTHON'
import socket, struct, sys, threading

produced, lock = 0, threading.Lock()

def frame(source):
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
        chunk = source.recv(4 - len(data) if len(data) < 4 else 4 + struct.unpack(">i", data[:4])[0] - len(data))
        if not chunk:
            raise OSError("closed")
        data += chunk
    return data

def requests(client, broker, swallow):
    global produced
    try:
        while True:
            data = frame(client)
            key, _, correlation = struct.unpack(">hhi", data[4:12])
            with lock:
                produced += key == 0
                if key == 0 and produced % 20 == 0:
                    swallow.add(correlation)
            broker.sendall(data)
    except OSError:
        broker.close()

def serve(client):
    broker, swallow = socket.create_connection(("127.0.0.1", int(sys.argv[2]))), set()
    threading.Thread(target=requests, args=(client, broker, swallow), daemon=True).start()
    try:
        while True:
            data = frame(broker)
            if struct.unpack(">i", data[4:8])[0] in swallow:
                break
            client.sendall(data)
    except OSError:
        pass
    for end in (client, broker):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
PYTHON

npm init -y >/dev/null
npm install --silent --no-fund --no-audit kafkajs@2.2.4
cat >send.js <<'JS'
const { Kafka, logLevel } = require('kafkajs')
const [direct, proxied] = process.argv.slice(2).map(port => `127.0.0.1:${port}`)
const client = broker => new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 50, initialRetryTime: 50, maxRetryTime: 200 } })

async function main() {
  const admin = client(direct).admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: 'events', numPartitions: 1 }] })
  await admin.disconnect()
  const producer = client(proxied).producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const calls = []
  for (let call = 0; call < 300; call++) {
    const messages = Array.from({ length: 10 }, (_, i) => ({ value: `event ${call * 10 + i}`, partition: 0 }))
    calls.push(producer.send({ topic: 'events', acks: -1, messages }))
  }
  const results = await Promise.allSettled(calls)
  console.log(10 * results.filter(result => result.status === 'fulfilled').length)
  process.exit(0)
}
main()
JS

java -cp "libs/*" kafka.tools.StorageTool format -t "$(java -cp "libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c server.properties >format.log 2>&1 || { cat format.log; exit 1; }
start
python3 proxy.py "$port" "$behind" &
proxy=$!
acknowledged=$(node send.js "$direct" "$port")
read -r held distinct < <(java -cp "libs/*:." Read "127.0.0.1:$direct" events 2>/dev/null)
echo "kafkajs 2.2.4, Node.js $(node --version), Apache Kafka $VERSION"
echo "acknowledged $acknowledged, in the log $held, distinct $distinct: acknowledged and lost $((acknowledged - distinct)), twice $((held - distinct))"
if [ "$distinct" -ge "$acknowledged" ] || [ "$held" -le "$distinct" ]; then
    echo 'CHANGED: nothing acknowledged is missing, or nothing is there twice'
    exit 1
fi
echo 'as described'
