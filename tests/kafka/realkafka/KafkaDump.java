// The program of `kafka dump`. It reads each partition exactly up to the end offset that the partition had at the start, so
// that a missing record is a fact about the topic and not a timeout. The end is the last stable offset under read_committed.
// UTF-8 keys, values and header values are printed as text, others as base64 in "key_b64", "value_b64", and as {"b64": ...}
// in headers. "java_partition" is the partition that the Java client's partitioner chooses for the key, or null without a key.
import java.io.*;
import java.nio.*;
import java.nio.charset.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class KafkaDump {
    public static void main(String[] a) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", a[0]);
        p.put("isolation.level", a[2]);
        p.put("key.deserializer", ByteArrayDeserializer.class);
        p.put("value.deserializer", ByteArrayDeserializer.class);
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "none");
        p.put("allow.auto.create.topics", "false");
        PrintStream out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 20), false, "UTF-8");
        try (KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(p)) {
            List<TopicPartition> tps = new ArrayList<>();
            for (PartitionInfo i : c.partitionsFor(a[1])) tps.add(new TopicPartition(i.topic(), i.partition()));
            Map<TopicPartition, Long> end = c.endOffsets(tps, Duration.ofSeconds(60));
            int partitions = tps.size();
            c.assign(tps);
            c.seekToBeginning(tps);
            long progress = System.currentTimeMillis();
            while (true) {
                List<TopicPartition> done = new ArrayList<>();
                for (TopicPartition t : c.assignment()) if (c.position(t, Duration.ofSeconds(60)) >= end.get(t)) done.add(t);
                if (!done.isEmpty()) {
                    Set<TopicPartition> left = new HashSet<>(c.assignment());
                    left.removeAll(done);
                    c.assign(left);  // positions of the others are kept
                }
                if (c.assignment().isEmpty()) break;
                ConsumerRecords<byte[], byte[]> rs = c.poll(Duration.ofMillis(200));
                if (!rs.isEmpty()) progress = System.currentTimeMillis();
                for (ConsumerRecord<byte[], byte[]> r : rs)
                    if (r.offset() < end.get(new TopicPartition(r.topic(), r.partition()))) print(out, r, partitions);
                if (System.currentTimeMillis() - progress > 60000) {
                    out.flush();
                    System.err.println("no progress for 60 s; unread: " + c.assignment());
                    System.exit(3);
                }
            }
        }
        out.flush();
        if (out.checkError()) System.exit(4);
    }

    static void print(PrintStream out, ConsumerRecord<byte[], byte[]> r, int partitions) {
        StringBuilder b = new StringBuilder(160);
        b.append("{\"partition\":").append(r.partition()).append(",\"offset\":").append(r.offset())
         .append(",\"timestamp\":").append(r.timestamp());
        b.append(",\"java_partition\":").append(r.key() == null ? "null" : BuiltInPartitioner.partitionForKey(r.key(), partitions));
        field(b, "key", r.key());
        field(b, "value", r.value());
        b.append(",\"headers\":[");
        String comma = "";
        for (Header h : r.headers()) {
            b.append(comma).append('[');
            quote(b, h.key());
            b.append(',');
            String s = text(h.value());
            if (h.value() == null) b.append("null");
            else if (s != null) quote(b, s);
            else b.append("{\"b64\":\"").append(Base64.getEncoder().encodeToString(h.value())).append("\"}");
            b.append(']');
            comma = ",";
        }
        out.println(b.append("]}"));
    }

    static void field(StringBuilder b, String name, byte[] v) {
        String s = text(v);
        if (v == null) b.append(",\"").append(name).append("\":null");
        else if (s != null) quote(b.append(",\"").append(name).append("\":"), s);
        else b.append(",\"").append(name).append("_b64\":\"").append(Base64.getEncoder().encodeToString(v)).append('"');
    }

    static String text(byte[] v) {
        if (v == null) return null;
        try { return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(v)).toString(); }
        catch (CharacterCodingException e) { return null; }
    }

    static void quote(StringBuilder b, String s) {
        b.append('"');
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c == '"' || c == '\\') b.append('\\').append(c);
            else if (c < 0x20) b.append(String.format("\\u%04x", (int) c));
            else b.append(c);
        }
        b.append('"');
    }
}
