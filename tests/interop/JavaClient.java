// Runs Apache Kafka's own client: `produce` writes standard input to a topic and `consume` prints a topic, both as lines
// KEY:VALUE. `admin` creates a topic and describes it.
//
// The consumer assigns partitions, because the test broker has no consumer groups.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class JavaClient {
    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[1]);
        switch (args[0]) {
            case "produce" -> produce(config, args[2]);
            case "consume" -> consume(config, args[2]);
            case "admin" -> admin(config, args[2]);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static void produce(Properties config, String topic) throws Exception {
        config.put("enable.idempotence", "true");
        config.put("compression.type", "snappy");
        config.put("batch.size", "4000");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        var in = new BufferedReader(new InputStreamReader(System.in));
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (String line; (line = in.readLine()) != null; ) {
                String[] parts = line.split(":", 2);
                sent.add(producer.send(new ProducerRecord<>(topic, parts[0], parts[1])));
            }
            for (var one : sent) {
                if (one.get().offset() < 0) throw new IllegalStateException("no offset");
            }
        }
    }

    static void consume(Properties config, String topic) {
        config.put("isolation.level", "read_committed");
        var out = new StringBuilder();
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
            consumer.assign(partitions);
            Map<TopicPartition, Long> starts = consumer.beginningOffsets(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            partitions.forEach(p -> consumer.seek(p, starts.get(p)));
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                consumer.poll(java.time.Duration.ofSeconds(5))
                        .forEach(record -> out.append(record.key()).append(':').append(record.value()).append('\n'));
            }
            // Finding offsets by time must answer for every partition that holds something.
            Map<TopicPartition, Long> zero = new java.util.HashMap<>();
            partitions.forEach(p -> zero.put(p, 0L));
            consumer.offsetsForTimes(zero).forEach((p, found) -> {
                if ((found == null) != ends.get(p).equals(starts.get(p))) throw new IllegalStateException("offsetsForTimes " + p);
            });
        }
        System.out.print(out);
    }

    static void admin(Properties config, String topic) throws Exception {
        try (var admin = Admin.create(config)) {
            var wanted = new NewTopic(topic, 3, (short) 2).configs(Map.of("max.message.bytes", "5000"));
            admin.createTopics(List.of(wanted)).all().get();
            var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            var entries = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            var producers = admin.describeProducers(List.of(new TopicPartition(topic, 0))).all().get();
            System.out.println(described.partitions().size() + " " + entries.get("max.message.bytes").value() + " "
                    + producers.values().iterator().next().activeProducers().size());
        }
    }
}
