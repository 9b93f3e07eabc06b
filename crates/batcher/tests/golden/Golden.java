// Golden bytes from Apache Kafka's own Java client. See README.md beside this file.
//
//   java -cp "$KAFKA_HOME/libs/*" Golden.java write .     cases.json -> java/*.bin, murmur2.json
//   java -cp "$KAFKA_HOME/libs/*" Golden.java verify .    ours/*.bin against cases.json

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Random;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.SimpleRecord;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.Utils;

public class Golden {
    static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[1]);
        JsonNode cases = new ObjectMapper().readTree(dir.resolve("cases.json").toFile());
        if (args[0].equals("write")) {
            Files.createDirectories(dir.resolve("java"));
            for (JsonNode one : cases) {
                Files.write(dir.resolve("java").resolve(one.get("name").asText() + ".bin"), encode(one));
            }
            Files.writeString(dir.resolve("murmur2.json"), murmur2());
        } else {
            for (JsonNode one : cases) {
                Path file = dir.resolve("ours").resolve(one.get("name").asText() + ".bin");
                verify(one, Files.readAllBytes(file));
                System.out.println("ok " + file);
            }
        }
    }

    // "6162" is two bytes, "6162*3" six, null is null.
    static byte[] bytes(JsonNode node) {
        if (node == null || node.isNull()) return null;
        String[] parts = node.asText().split("\\*");
        byte[] unit = HEX.parseHex(parts[0]);
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int i = 0; i < (parts.length > 1 ? Integer.parseInt(parts[1]) : 1); i++) out.writeBytes(unit);
        return out.toByteArray();
    }

    static List<SimpleRecord> records(JsonNode one) {
        List<SimpleRecord> records = new ArrayList<>();
        for (JsonNode node : one.get("records")) {
            List<Header> headers = new ArrayList<>();
            if (node.has("headers")) {
                for (JsonNode header : node.get("headers")) {
                    headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
                }
            }
            int copies = node.has("copies") ? node.get("copies").asInt() : 1;
            for (int i = 0; i < copies; i++) {
                records.add(new SimpleRecord(node.get("timestamp").asLong(), bytes(node.get("key")),
                    bytes(node.get("value")), headers.toArray(new Header[0])));
            }
        }
        return records;
    }

    static byte[] encode(JsonNode one) {
        Compression compression =
            one.get("codec").asText().equals("snappy") ? Compression.snappy().build() : Compression.NONE;
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20), RecordBatch.MAGIC_VALUE_V2,
            compression, TimestampType.CREATE_TIME, 0L, RecordBatch.NO_TIMESTAMP, one.get("producer_id").asLong(),
            (short) one.get("epoch").asInt(), one.get("base_sequence").asInt(), false,
            RecordBatch.NO_PARTITION_LEADER_EPOCH);
        for (SimpleRecord record : records(one)) builder.append(record);
        ByteBuffer buffer = builder.build().buffer().duplicate();
        byte[] out = new byte[buffer.remaining()];
        buffer.get(out);
        return out;
    }

    static void verify(JsonNode one, byte[] file) {
        Iterator<MutableRecordBatch> batches = MemoryRecords.readableRecords(ByteBuffer.wrap(file)).batches().iterator();
        MutableRecordBatch batch = batches.next();
        batch.ensureValid();
        check(!batches.hasNext() && batch.sizeInBytes() == file.length, "one batch");
        check(batch.producerId() == one.get("producer_id").asLong(), "producer id");
        check(batch.producerEpoch() == one.get("epoch").asInt(), "epoch");
        check(batch.baseSequence() == one.get("base_sequence").asInt(), "base sequence");
        check(batch.compressionType() == CompressionType.forName(one.get("codec").asText()), "codec");
        List<SimpleRecord> expected = records(one);
        check(batch.countOrNull() == expected.size(), "count");
        check(batch.lastOffset() == expected.size() - 1, "last offset");
        check(batch.maxTimestamp() == expected.stream().mapToLong(SimpleRecord::timestamp).max().getAsLong(), "max timestamp");
        int index = 0;
        for (Record record : batch) {
            check(record.offset() == index, "offset");
            check(new SimpleRecord(record).equals(expected.get(index)), "record " + index);
            index++;
        }
        check(index == expected.size(), "all records");
    }

    static void check(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
    }

    static String murmur2() {
        List<byte[]> keys = new ArrayList<>();
        Random random = new Random(1);
        for (int length = 0; length <= 40; length++) {
            byte[] key = new byte[length];
            random.nextBytes(key);
            keys.add(key);
            byte[] high = new byte[length];
            Arrays.fill(high, (byte) (0x80 + length));
            keys.add(high);
        }
        for (String text : List.of("user-1", "größe", "ключ", "鍵", "🔑", "0b0f7a4e-7d0c-7c7e-8c43-8d1ad4cf1e6d")) {
            keys.add(text.getBytes(StandardCharsets.UTF_8));
        }
        StringBuilder out = new StringBuilder("[\n");
        for (byte[] key : keys) {
            out.append(String.format("  {\"key\": \"%s\", \"murmur2\": %d, \"of_1\": %d, \"of_6\": %d, \"of_1000\": %d},%n",
                HEX.formatHex(key), Utils.murmur2(key), BuiltInPartitioner.partitionForKey(key, 1),
                BuiltInPartitioner.partitionForKey(key, 6), BuiltInPartitioner.partitionForKey(key, 1000)));
        }
        out.setLength(out.length() - 2);
        return out.append("\n]\n").toString();
    }
}
