#!/usr/bin/env bash
# Apache Kafka 4.4.0 (KRaft): the cluster refuses a killed broker until the broker's former session has expired.
#
# Behaviour: SIGKILL ends a single node with broker.session.timeout.ms=30000, and the node starts again immediately. Its JVM is up
# after seconds. The controller, in the same process, refuses its registration with DUPLICATE_BROKER_REGISTRATION until the session
# of the killed process has expired. Clients cannot reach the node for half a minute. The same node serves within seconds after
# an orderly stop.
# Cause: the controller keeps the registration of a broker that ended without a shutdown, and a new incarnation may not take it over.
# Affected: clusters with a raised timeout for long pauses. Each crash then costs at least that time, also with replication 1 and an
# immediate restart by a supervisor.
#
# Output (Kafka 4.4.0, JDK 17):
#   back after SIGTERM: 12 s (on two busy cores)
#   back after SIGKILL: 37 s, refusals logged: 15
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
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
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
broker.session.timeout.ms=30000
PROPERTIES

start() {
    java -Xmx512m -cp "libs/*" kafka.Kafka server.properties >>broker.log 2>&1 &
    broker=$!
}

cat >Probe.java <<'JAVA'
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;

/** Returns once a broker is registered. */
public class Probe {
    public static void main(String[] args) throws Exception {
        while (true) {
            try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 3000, "request.timeout.ms", 2000))) {
                if (!admin.describeCluster().nodes().get().isEmpty()) return;
            } catch (Exception notYet) {
                Thread.sleep(200);
            }
        }
    }
}
JAVA
javac -cp "libs/*" -d . Probe.java
java -cp "libs/*" kafka.tools.StorageTool format -t "$(java -cp "libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c server.properties >format.log 2>&1 || { cat format.log; exit 1; }

# back SIGNAL: stops the broker with SIGNAL, starts it, and sets `seconds` to the time until it serves.
back() {
    kill "-$1" "$broker"
    wait "$broker" 2>/dev/null || true
    : >broker.log
    SECONDS=0
    start
    java -cp "libs/*:." Probe "127.0.0.1:$port" >/dev/null 2>&1
    seconds=$SECONDS
}

echo "Apache Kafka $VERSION, broker.session.timeout.ms=30000"
start
java -cp "libs/*:." Probe "127.0.0.1:$port" >/dev/null 2>&1
back TERM
echo "back after SIGTERM: $seconds s"
[ "$seconds" -lt 20 ] || { echo 'CHANGED: an orderly restart takes longer'; exit 1; }
back KILL
refusals=$(grep -c DUPLICATE_BROKER_REGISTRATION broker.log || true)
echo "back after SIGKILL: $seconds s, refusals logged: $refusals"
[ "$seconds" -ge 25 ] && [ "$refusals" -gt 5 ] || { echo 'CHANGED: a killed broker is back earlier'; exit 1; }
echo 'as described'
