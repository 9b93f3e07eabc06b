#!/usr/bin/env bash
# @platformatic/kafka 1.35.0 on Apache Kafka 4.4.0: with idempotent: true, parallel sends are all acknowledged and only one is written.
#
# Behaviour: ten calls of send run in parallel on a healthy cluster, one record each, with idempotent: true. All ten resolve, each
# with offset 0. The log holds one record. The same calls with idempotent: false get the offsets 0 to 9.
# Cause: the sequence number advances only when an answer arrives, so calls in flight share one. The broker acknowledges all except
# the first as repeats and drops them. 2.12.1 takes the number when a request leaves, and writes all ten.
# Affected: services on Node.js 20. The 2.x line needs Node.js 22, so `npm install @platformatic/kafka` without a version installs
# 1.35.0 on Node.js 20, without a warning.
#
# Output (Node.js 20, Kafka 4.4.0):
#   npm picks 1.35.0 (latest is 2.12.1)
#   idempotent true:  acknowledged 10, offsets 0 0 0 0 0 0 0 0 0 0, in the log 1
#   idempotent false: acknowledged 10, offsets 0 1 2 3 4 5 6 7 8 9, in the log 10
# Needs: JDK 17+, Maven, Node.js 20 with npm, Python 3. Fails if the behaviour changes.
set -euo pipefail

VERSION=4.4.0
work=$(mktemp -d)
broker=''
finish() {
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

read -r port controller < <(python3 -c '
import socket
s = [socket.socket() for _ in range(2)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])')
cat >server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
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

npm init -y >/dev/null
npm install --silent --no-fund --no-audit @platformatic/kafka@1.35.0
cat >send.mjs <<'JS'
import { Admin, Producer, stringSerializers } from '@platformatic/kafka'
const [broker, topic, idempotent] = [`127.0.0.1:${process.argv[2]}`, process.argv[3], process.argv[4] === 'true']
const admin = new Admin({ clientId: 'admin', bootstrapBrokers: [broker] })
await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
await admin.close()
const producer = new Producer({ clientId: 'events', bootstrapBrokers: [broker], idempotent, serializers: stringSerializers })
const calls = Array.from({ length: 10 }, (_, i) => producer.send({ messages: [{ topic, partition: 0, value: `event ${i}` }] }))
const results = await Promise.all(calls)
console.log(results.map(result => result.offsets[0].offset).join(' '))
await producer.close()
JS

java -cp "libs/*" kafka.tools.StorageTool format -t "$(java -cp "libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c server.properties >format.log 2>&1 || { cat format.log; exit 1; }
start
until (echo >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$broker" || { cat broker.log; exit 1; }
    sleep 0.2
done
echo "@platformatic/kafka 1.35.0, Node.js $(node --version), Apache Kafka $VERSION"
for idempotent in true false; do
    offsets=$(node send.mjs "$port" "topic-$idempotent" "$idempotent")
    read -r held _ < <(java -cp "libs/*:." Read "127.0.0.1:$port" "topic-$idempotent" 2>/dev/null)
    echo "idempotent $idempotent: acknowledged $(wc -w <<<"$offsets"), offsets $offsets, in the log $held"
    case $idempotent in
        true) [ "$held" = 1 ] && [ "$offsets" = '0 0 0 0 0 0 0 0 0 0' ] || { echo 'CHANGED: parallel sends are written'; exit 1; } ;;
        false) [ "$held" = 10 ] || { echo 'CHANGED: without idempotence records are missing'; exit 1; } ;;
    esac
done
echo 'as described'
