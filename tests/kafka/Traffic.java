import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Kafka's Java producer with defaults. It sends a record every 4 ms, and prints a line for each acknowledgement, until its
 * input ends.
 */
public class Traffic {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        KafkaProducer<String, String> producer = new KafkaProducer<>(properties);
        Thread end = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (java.io.IOException gone) { /* the same as the end of the input */ }
        });
        end.setDaemon(true);
        end.start();
        for (long i = 0; end.isAlive(); i++) {
            ProducerRecord<String, String> record =
                new ProducerRecord<>(arguments[1], "key-" + i % 100, i % 100 + " " + i / 100);
            producer.send(record, (placed, error) -> {
                synchronized (System.out) {
                    System.out.println(error == null ? placed.partition() : "error " + error);
                    System.out.flush();
                }
            });
            Thread.sleep(4);
        }
        producer.close();
    }
}
