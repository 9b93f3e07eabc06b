import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/**
 * Kafka's Java producer with idempotence (the default) and one record a batch. It sends a record, waits for the
 * acknowledgement, and prints "ready". After a line on standard input it sends five more records without waiting, and prints
 * the number of their acknowledgements.
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
