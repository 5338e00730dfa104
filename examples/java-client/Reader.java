import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;

/** lib0's decoding. What is cut short throws. */
class Reader {
    private final ByteBuffer in;

    Reader(byte[] data) {
        in = ByteBuffer.wrap(data);
    }

    boolean atEnd() {
        return !in.hasRemaining();
    }

    int uint8() {
        return in.get() & 0xFF;
    }

    long uint() {
        long value = 0;
        for (int shift = 0; ; shift += 7) {
            int one = uint8();
            value |= (long) (one & 127) << shift;
            if (one < 128) return value;
        }
    }

    byte[] bytes() {
        byte[] value = new byte[(int) uint()];
        in.get(value);
        return value;
    }

    String string() {
        return new String(bytes(), StandardCharsets.UTF_8);
    }

    /** A value as JSON has it, and some more: the byte says of which kind. */
    Object any() {
        switch (uint8()) {
            case 127, 126: return null; // undefined, null
            case 125: return integer();
            case 124: return in.getFloat();
            case 123: return in.getDouble();
            case 122: return in.getLong();
            case 121: return false;
            case 120: return true;
            case 119: return string();
            case 118: {
                var object = new TreeMap<String, Object>();
                for (long n = uint(); n > 0; n--) object.put(string(), any());
                return object;
            }
            case 117: {
                var array = new ArrayList<>();
                for (long n = uint(); n > 0; n--) array.add(any());
                return array;
            }
            case 116: return bytes();
            default: throw new IllegalStateException("a value of an unknown kind");
        }
    }

    /** The first byte has a sign and six bits. */
    private long integer() {
        int one = uint8();
        long sign = (one & 64) != 0 ? -1 : 1, value = one & 63;
        for (int shift = 6; one > 127; shift += 7) {
            one = uint8();
            value |= (long) (one & 127) << shift;
        }
        return sign * value;
    }
}
