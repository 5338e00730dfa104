import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;

/** lib0's encoding. */
class Writer {
    private final ByteArrayOutputStream out = new ByteArrayOutputStream();

    Writer uint8(int value) {
        out.write(value);
        return this;
    }

    /** Seven bits a byte, the lowest first; the highest bit says that there is another byte. */
    Writer uint(long value) {
        for (; value > 127; value >>>= 7) out.write((int) (value & 127 | 128));
        return uint8((int) value);
    }

    Writer raw(byte[] value) {
        out.writeBytes(value);
        return this;
    }

    Writer bytes(byte[] value) {
        return uint(value.length).raw(value);
    }

    Writer string(String value) {
        return bytes(value.getBytes(StandardCharsets.UTF_8));
    }

    byte[] done() {
        return out.toByteArray();
    }
}
