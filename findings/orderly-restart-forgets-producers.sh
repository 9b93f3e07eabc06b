#!/usr/bin/env bash
# Apache Kafka 4.4.0: an orderly restart forgets the idempotent producers of an emptied partition, and kill -9 keeps them.
#
# Behaviour: an idempotent producer writes 100 records, and Admin.deleteRecords deletes all of them, as Kafka Streams does in its
# repartition topics. Admin.describeProducers still lists the producer. The list also holds the producer after kill -9 and a restart.
# The list is empty after an orderly stop (SIGTERM) and a restart, although the producer wrote seconds earlier and
# producer.id.expiration.ms is a day. The broker would append a retry of the last batch as new.
# Cause: an orderly stop stores the end of the log as its start, and loading the log drops the producer state below the start. A kill
# precedes the next checkpoint of the log start, so the restart restores the records and the producer.
# Affected: idempotent producers on topics whose consumers delete the records that they have read, during a rolling restart.
#
# Output (Kafka 4.4.0, JDK 17):
#   before the restart: producers 1, last sequence 99
#   after SIGKILL:      producers 1, last sequence 99
#   after SIGTERM:      producers 0
# Needs: JDK 17+, Maven. Fails if the behaviour changes.
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

cat >Probe.java <<'JAVA'
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** fill TOPIC: writes 100 records and deletes them. look TOPIC: prints the producers that the leader knows. */
public class Probe {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60000);
        TopicPartition partition = new TopicPartition(args[2], 0);
        try (Admin admin = Admin.create(config)) {
            if (args[1].equals("fill")) {
                admin.createTopics(List.of(new NewTopic(args[2], 1, (short) 1))).all().get();
                try (var producer = new KafkaProducer<>(Map.<String, Object>of("bootstrap.servers", args[0],
                        "enable.idempotence", true), new StringSerializer(), new StringSerializer())) {
                    for (int i = 0; i < 100; i++) producer.send(new ProducerRecord<>(args[2], "event " + i));
                }
                admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(100))).all().get();
            }
            admin.listOffsets(Map.of(partition, OffsetSpec.latest())).all().get(); // waits for the leader
            var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
            System.out.print("producers " + producers.size());
            for (ProducerState state : producers) System.out.print(", last sequence " + state.lastSequence());
            System.out.println();
        }
    }
}
JAVA
javac -cp "libs/*" -d . Probe.java
probe() { java -cp "libs/*:." Probe "127.0.0.1:$port" "$@" 2>/dev/null; }

java -cp "libs/*" kafka.tools.StorageTool format -t "$(java -cp "libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c server.properties >format.log 2>&1 || { cat format.log; exit 1; }

start
echo "Apache Kafka $VERSION"
for signal in KILL TERM; do
    before=$(probe fill "t-$signal")
    kill "-$signal" "$broker"
    wait "$broker" 2>/dev/null || true
    start
    after=$(probe look "t-$signal")
    echo "before the restart: $before"
    echo "after SIG$signal: $after"
    [ "$before" = 'producers 1, last sequence 99' ] || { echo 'CHANGED: before the restart'; exit 1; }
    case $signal in
        KILL) [ "$after" = "$before" ] || { echo 'CHANGED: SIGKILL no longer keeps the producer'; exit 1; } ;;
        TERM) [ "$after" = 'producers 0' ] || { echo 'CHANGED: an orderly stop no longer forgets the producer'; exit 1; } ;;
    esac
done
echo 'as described'
