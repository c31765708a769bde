import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Five records whose timestamps neither start at now nor grow steadily. */
final class Timestamps {
    /** One hour ago, so that no limit on old or future timestamps matters. */
    static final long BASE = System.currentTimeMillis() - 3_600_000;

    /** Milliseconds after BASE, by offset. */
    static final long[] AFTER_BASE = {0, 10, 20, 30, 5};

    private Timestamps() {}

    static List<ProducerRecord<byte[], byte[]>> records(String topic) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (long after : AFTER_BASE) {
            records.add(new ProducerRecord<>(topic, 0, BASE + after, null, new byte[] {(byte) after}));
        }
        return records;
    }
}
