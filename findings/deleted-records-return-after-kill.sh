#!/usr/bin/env bash
# Apache Kafka 4.4.0: kill -9 undoes an acknowledged DeleteRecords.
#
# Behaviour: a client deletes 2,000 records with Admin.deleteRecords. The broker acknowledges, and ListOffsets returns 2000 as the
# start of the log. SIGKILL ends the broker seconds later. The log starts at 0 again after the restart, and a consumer reads all
# 2,000 deleted records. An orderly stop at the same moment keeps the deletion.
# Cause: the broker writes the new log start offset to log-start-offset-checkpoint only every
# log.flush.start.offset.checkpoint.interval.ms (default 60 s), or at an orderly stop.
# Affected: deletions for privacy, and programs that treat a log start offset as final.
#
# Output (Kafka 4.4.0, JDK 17):
#   after deleteRecords: log start 2000
#   after SIGKILL:       log start 0, records read 2000
#   after SIGTERM:       log start 2000, records read 0
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
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** fill TOPIC: writes 2,000 records and deletes them. look TOPIC: prints the log start and how many records a consumer reads. */
public class Probe {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60000);
        TopicPartition partition = new TopicPartition(args[2], 0);
        try (Admin admin = Admin.create(config)) {
            if (args[1].equals("fill")) {
                admin.createTopics(List.of(new NewTopic(args[2], 1, (short) 1))).all().get();
                try (var producer = new KafkaProducer<>(Map.<String, Object>of("bootstrap.servers", args[0]),
                        new StringSerializer(), new StringSerializer())) {
                    for (int i = 0; i < 2000; i++) producer.send(new ProducerRecord<>(args[2], "event " + i));
                }
                admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(2000))).all().get();
            }
            long start = admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset();
            int read = 0;
            try (var consumer = new KafkaConsumer<>(Map.<String, Object>of("bootstrap.servers", args[0]),
                    new StringDeserializer(), new StringDeserializer())) {
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                long end = consumer.endOffsets(List.of(partition)).get(partition);
                while (consumer.position(partition) < end) read += consumer.poll(Duration.ofSeconds(1)).count();
            }
            System.out.println("log start " + start + ", records read " + read);
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
    echo "after deleteRecords: $before"
    echo "after SIG$signal: $after"
    case $signal in
        KILL) [ "$after" = 'log start 0, records read 2000' ] || { echo 'CHANGED: SIGKILL no longer brings the records back'; exit 1; } ;;
        TERM) [ "$after" = 'log start 2000, records read 0' ] || { echo 'CHANGED: an orderly stop no longer keeps the deletion'; exit 1; } ;;
    esac
done
echo 'as described'
