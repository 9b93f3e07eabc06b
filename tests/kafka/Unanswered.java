import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/**
 * Kafka's Java producer, idempotent as by default, one record a batch: sends a record and waits for its acknowledgement,
 * prints "ready", and once it is told to by a line sends five more at once. Prints how many of them were acknowledged.
 */
public class Unanswered {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("batch.size", "1");
        properties.put("linger.ms", "0");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(properties)) {
            producer.send(new ProducerRecord<>(arguments[1], "record-0")).get();
            System.out.println("ready");
            System.in.read();
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 1; i <= 5; i++) {
                sent.add(producer.send(new ProducerRecord<>(arguments[1], "record-" + i)));
            }
            int acknowledged = 0;
            for (Future<RecordMetadata> one : sent) {
                try {
                    one.get();
                    acknowledged++;
                } catch (java.util.concurrent.ExecutionException failed) {
                    System.err.println(failed.getCause());
                }
            }
            System.out.println(acknowledged);
        }
    }
}
