import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.atomic.*;
import java.util.concurrent.locks.LockSupport;
import org.HdrHistogram.ConcurrentHistogram;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** Kafka's own Java producer: the same flags, data and line as the other clients' generators. */
public class Load {
    static String opt(Map<String, String> m, String k, String d) { return m.getOrDefault(k, d); }

    /** user and system seconds of this process from /proc/self/stat (10 ms ticks) */
    static double[] cpu() throws Exception {
        String s = Files.readString(Path.of("/proc/self/stat"));
        String[] f = s.substring(s.lastIndexOf(')') + 2).split(" ");
        return new double[] {Long.parseLong(f[11]) / 100.0, Long.parseLong(f[12]) / 100.0};
    }
    static double hwmMb() throws Exception {
        for (String l : Files.readAllLines(Path.of("/proc/self/status")))
            if (l.startsWith("VmHWM:")) return Long.parseLong(l.replaceAll("[^0-9]", "")) / 1024.0;
        return -1;
    }

    static int poolN = 1000;
    static byte[][] pool(int size) {
        final String al = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        long s = 42;
        byte[][] out = new byte[poolN][];
        for (int i = 0; i < poolN; i++) {
            StringBuilder b = new StringBuilder(String.format("{\"id\":%08d,\"type\":\"click\",\"data\":\"", i));
            while (b.length() + 2 < size) {
                s += 0x9E3779B97F4A7C15L;
                long z = s;
                z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
                z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
                z ^= z >>> 31;
                b.append(al.charAt((int) ((z >>> 33) % 62)));
            }
            b.append("\"}");
            out[i] = Arrays.copyOf(b.toString().getBytes(StandardCharsets.UTF_8), size);
        }
        return out;
    }
    static int valueIndex(long i) { return (int) ((i + 337 * (i / poolN)) % poolN); }

    static final AtomicLong acked = new AtomicLong(), errors = new AtomicLong();
    static final ConcurrentHistogram h = new ConcurrentHistogram(1, 600_000_000_000L, 3);
    static final Callback plain = (md, e) -> {
        if (e == null) acked.incrementAndGet();
        else if (errors.incrementAndGet() < 5) System.err.println("delivery: " + e);
    };

    static Callback timed() {
        final long t = System.nanoTime();
        return (md, e) -> {
            if (e == null) h.recordValue(System.nanoTime() - t);
            plain.onCompletion(md, e);
        };
    }

    static void await(long n) { while (acked.get() + errors.get() < n) LockSupport.parkNanos(200_000); }

    /** Sends one thread's share of the messages, paced if a rate is asked for. */
    static void share(KafkaProducer<byte[], byte[]> pr, String topic, byte[][] pool, byte[][] keys, long share, long thread, long threads, long rate) {
        long t0 = System.nanoTime(), sent = 0;
        while (sent < share) {
            long el = System.nanoTime() - t0;
            long due = rate == 0 ? share : Math.min((long) (el / 1e9 * rate / threads) + 1, share);
            if (due <= sent) {
                LockSupport.parkNanos(Math.max((long) (sent * 1e9 * threads / rate) - el, 1_000_000));
                continue;
            }
            for (; sent < due; sent++) {
                long i = sent * threads + thread;
                pr.send(new ProducerRecord<>(topic, keys[(int) (i % keys.length)], pool[valueIndex(i)]), rate > 0 || i % 100 == 0 ? timed() : plain);
            }
        }
    }

    public static void main(String[] av) throws Exception {
        Map<String, String> m = new HashMap<>();
        Properties p = new Properties();
        for (int i = 0; i < av.length; i += 2) {
            if (av[i].startsWith("--x-conf.")) p.put(av[i].substring(9), av[i + 1]);
            else m.put(av[i].substring(2), av[i + 1]);
        }
        String topic = opt(m, "topic", "bench");
        long n = Long.parseLong(opt(m, "messages", "100000"));
        long rate = Long.parseLong(opt(m, "rate", "0"));
        long warm = Long.parseLong(opt(m, "warmup", "200000"));
        long threads = Long.parseLong(opt(m, "threads", "1"));
        int size = Integer.parseInt(opt(m, "size", "100")), k = Integer.parseInt(opt(m, "keys", "1000"));
        int batch = Integer.parseInt(opt(m, "batch-bytes", "1048576"));
        poolN = Integer.parseInt(opt(m, "pool", "1000"));
        String comp = opt(m, "compression", "none");
        p.putIfAbsent("bootstrap.servers", opt(m, "bootstrap", "127.0.0.1:19092"));
        p.putIfAbsent("acks", "all");
        p.putIfAbsent("enable.idempotence", "true");
        p.putIfAbsent("max.in.flight.requests.per.connection", opt(m, "inflight", "5"));
        p.putIfAbsent("linger.ms", opt(m, "linger-ms", "5"));
        p.putIfAbsent("batch.size", "" + batch);
        p.putIfAbsent("buffer.memory", "" + (64L << 20));
        p.putIfAbsent("max.request.size", "" + Math.max(1048576, batch));
        p.putIfAbsent("compression.type", comp);
        p.putIfAbsent("enable.metrics.push", "false");
        KafkaProducer<byte[], byte[]> pr = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
        byte[][] pool = pool(size), keys = new byte[k][];
        for (int i = 0; i < k; i++) keys[i] = ("key-" + i).getBytes(StandardCharsets.UTF_8);

        // warm-up: both shapes of callback, at full rate
        for (long i = 0; i < warm; i++)
            pr.send(new ProducerRecord<>(topic, keys[(int) (i % k)], pool[valueIndex(i)]), i % 100 == 0 || rate > 0 ? timed() : plain);
        pr.flush();
        await(warm);
        if (errors.get() != 0) throw new RuntimeException("warm-up failed");
        acked.set(0);
        h.reset();

        double wall0 = System.currentTimeMillis() / 1000.0;
        double[] c0 = cpu();
        long t0 = System.nanoTime();
        Thread[] senders = new Thread[(int) threads];
        for (int thread = 0; thread < threads; thread++) {
            final int first = thread;
            senders[thread] = new Thread(() -> share(pr, topic, pool, keys, n / threads, first, threads, rate));
            senders[thread].start();
        }
        for (Thread sender : senders) sender.join();
        await(n);
        double wall = (System.nanoTime() - t0) / 1e9;
        double[] c1 = cpu();
        double us = c1[0] - c0[0], sy = c1[1] - c0[1];
        System.out.printf(Locale.ROOT, "{\"peer\":\"java\",\"version\":\"%s\",\"messages\":%d,\"acked\":%d,\"errors\":%d,\"size\":%d,\"compression\":\"%s\",\"wall_s\":%.4f,\"msgs_per_s\":%.0f,\"user_s\":%.3f,\"sys_s\":%.3f,\"cpu_us_per_msg\":%.4f,\"max_rss_mb\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,\"samples\":%d,\"warmup\":%d,\"t_start\":%.4f,\"t_end\":%.4f,\"note\":\"-Xmx512m, buffer 64 MiB\"}%n",
            AppInfoParser.getVersion(), n, acked.get(), errors.get(), size, comp, wall, acked.get() / wall, us, sy, (us + sy) * 1e6 / n, hwmMb(),
            h.getValueAtPercentile(50) / 1e6, h.getValueAtPercentile(99) / 1e6, h.getValueAtPercentile(99.9) / 1e6, h.getMaxValue() / 1e6, h.getTotalCount(), warm, wall0, System.currentTimeMillis() / 1000.0);
        System.out.flush();
        pr.close();
    }
}
