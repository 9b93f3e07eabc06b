#!/usr/bin/env bash
# kafka-clients 4.4.0 and librdkafka 2.16 on Apache Kafka 4.4.0: one rejected record fails the valid records of its batch too.
#
# Behaviour: a client sends ten records to a compacted topic in one batch. One has no key, so the broker answers INVALID_RECORD (87) and
# names that record in record_errors (KIP-467). Neither client sends the other nine again.
#  - Java: the rejected record gets InvalidRecordException with the broker's text. The other nine get a bare KafkaException, which is
#    not a RetriableException. Code that sorts errors by class counts valid records as rejected.
#  - librdkafka: all ten fail with INVALID_RECORD. No delivery report names the rejected record.
# Affected: producers that several requests share. A bad record of one request fails the records of others in its batch. Linger and
# load decide which ones.
#
# Output (kafka-clients 4.4.0, confluent-kafka 2.16.1 with its bundled librdkafka, JDK 17):
#   java: 1 InvalidRecordException, 9 KafkaException, 0 delivered
#   librdkafka plain: 10 INVALID_RECORD, 0 delivered
#   librdkafka idempotent: 10 INVALID_RECORD, 0 delivered
# Needs: JDK 17+, Maven, Python 3 with venv. Fails if the behaviour changes.
set -euo pipefail

VERSION=4.4.0 CONFLUENT=2.16.1
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

cat >Probe.java <<'JAVA'
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.serialization.*;

/** Creates a compacted topic, sends ten records of which one has no key, in one batch, and prints each one's fate. */
public class Probe {
    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60000))) {
            for (String topic : List.of("java", "python")) {
                admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)
                        .configs(Map.of(TopicConfig.CLEANUP_POLICY_CONFIG, "compact")))).all().get();
            }
        }
        try (var producer = new KafkaProducer<>(Map.<String, Object>of("bootstrap.servers", args[0], "linger.ms", 500),
                new StringSerializer(), new StringSerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < 10; i++) sent.add(producer.send(new ProducerRecord<>("java", i == 4 ? null : "key " + i, "event " + i)));
            for (int i = 0; i < 10; i++) {
                try {
                    System.out.println("java " + i + ": offset " + sent.get(i).get().offset());
                } catch (ExecutionException failed) {
                    System.out.println("java " + i + ": " + failed.getCause().getClass().getSimpleName() + ": " + failed.getCause().getMessage());
                }
            }
        }
    }
}
JAVA
cat >probe.py <<'PYTHON'
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1], "linger.ms": 500, "enable.idempotence": sys.argv[2] == "idempotent"})
fate = {}
for i in range(10):
    producer.produce("python", key=None if i == 4 else f"key {i}", value=f"event {i}", partition=0,
                     on_delivery=lambda error, message, i=i: fate.__setitem__(i, error.name() if error else f"offset {message.offset()}"))
producer.flush(60)
for i in range(10):
    print(f"librdkafka {sys.argv[2]} {i}: {fate.get(i)}")
PYTHON
javac -cp "libs/*" -d . Probe.java
python3 -m venv venv && venv/bin/pip -q install "confluent-kafka==$CONFLUENT" 2>pip.log || { cat pip.log; exit 1; }
java -cp "libs/*" kafka.tools.StorageTool format -t "$(java -cp "libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c server.properties >format.log 2>&1 || { cat format.log; exit 1; }
start
echo "Apache Kafka and kafka-clients $VERSION, confluent-kafka $CONFLUENT"
java -cp "libs/*:." Probe "127.0.0.1:$port" 2>/dev/null | tee java.out
for mode in plain idempotent; do venv/bin/python probe.py "127.0.0.1:$port" "$mode"; done | tee librdkafka.out

expect() { # COUNT PATTERN FILE
    [ "$(grep -c "$2" "$3")" = "$1" ] || { echo "CHANGED: expected $1 lines with \"$2\""; exit 1; }
}
expect 1 'java 4: InvalidRecordException' java.out
expect 9 ': KafkaException' java.out
expect 20 'INVALID_RECORD$' librdkafka.out
echo 'as described'
