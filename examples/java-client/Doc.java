import java.util.*;

/**
 * A Yjs document, as far as texts and maps of JSON values go: what a Yjs library does where there is one. What else is in
 * it is carried along unread.
 *
 * Yjs keeps runs of characters together. Here each is an item of its own, which is slower, and much less to write.
 */
class Doc {
    record Id(long client, long clock) {}

    static class Item {
        Id id, left, right; // itself, and what stood to both sides of it when it was written; null for nothing
        List<Item> list; // where it is; null if that is gone
        Object content; // a Character, or a value; null if it can't be shown
        boolean deleted;
    }

    /** A run of items as an update has it: `list` names the list if there is neither a left nor a right. */
    record Struct(Id id, Id left, Id right, String list, List<Object> contents, boolean gone) {}

    final long client;
    final Map<Long, List<Item>> items = new TreeMap<>(Comparator.reverseOrder()); // by client; its clocks are the indexes
    final Map<String, List<Item>> lists = new HashMap<>();
    List<Struct> waiting = new ArrayList<>();
    final Set<Id> toDelete = new HashSet<>();
    private final List<byte[]> unsaved = new ArrayList<>();

    Doc(long client) {
        this.client = client;
    }

    String text(String root) {
        var text = new StringBuilder();
        for (Item one : list(root)) if (!one.deleted && one.content instanceof Character) text.append(one.content);
        return text.toString();
    }

    Map<String, Object> map(String root) {
        var map = new TreeMap<String, Object>();
        lists.forEach((name, list) -> {
            if (!name.startsWith(root + "\0") || list.isEmpty()) return;
            Item last = list.get(list.size() - 1); // the one that stands last counts
            if (!last.deleted) map.put(name.substring(root.length() + 1), last.content);
        });
        return map;
    }

    List<byte[]> unsaved() {
        return unsaved;
    }

    void forgetUnsaved() {
        unsaved.clear();
    }

    byte[] stateVector() {
        var out = new Writer().uint(items.size());
        items.forEach((client, own) -> out.uint(client).uint(own.size()));
        return out.done();
    }

    /** Writes at the end of a text. Returns the update. */
    byte[] append(String root, String text) {
        var list = list(root);
        return write(root, null, list, new Writer().string(text), 4);
    }

    /** Sets a key of a map to a string. Returns the update, which deletes what was there. */
    byte[] set(String root, String key, String value) {
        return write(root, key, list(root + "\0" + key), new Writer().uint(1).uint(119).string(value), 8);
    }

    private byte[] write(String root, String key, List<Item> list, Writer content, int kind) {
        Item last = list.isEmpty() ? null : list.get(list.size() - 1);
        var out = new Writer().uint(1).uint(1).uint(client).uint(items(client).size()); // one client, one struct, its clock
        if (last != null) {
            // 0x80: what stands left of it says where it is. 0x20 beside that says that it is a map's.
            out.uint8(0x80 | (key == null ? 0 : 0x20) | kind).uint(last.id.client()).uint(last.id.clock());
        } else {
            out.uint8((key == null ? 0 : 0x20) | kind).uint(1).string(root); // 1: the name of a root follows
            if (key != null) out.string(key);
        }
        out.raw(content.done());
        if (key != null && last != null && !last.deleted) {
            out.uint(1).uint(last.id.client()).uint(1).uint(last.id.clock()).uint(1); // one client, one range, of one
        } else out.uint(0);
        byte[] update = out.done();
        apply(update);
        unsaved.add(update);
        return update;
    }

    /** Takes an update in. What it can't place yet waits. */
    void apply(byte[] update) {
        var in = new Reader(update);
        for (long clients = in.uint(); clients > 0; clients--) {
            long structs = in.uint(), client = in.uint(), clock = in.uint();
            for (; structs > 0; structs--) clock = readStruct(in, client, clock);
        }
        for (long clients = in.uint(); clients > 0; clients--) {
            long client = in.uint();
            for (long ranges = in.uint(); ranges > 0; ranges--) {
                long start = in.uint(), length = in.uint();
                for (long i = 0; i < length; i++) toDelete.add(new Id(client, start + i));
            }
        }
        for (int before = -1; before != waiting.size(); ) {
            before = waiting.size();
            var left = waiting;
            waiting = new ArrayList<>();
            for (Struct one : left) if (!integrate(one)) waiting.add(one);
        }
        toDelete.removeIf(id -> {
            Item item = find(id);
            if (item != null) item.deleted = true;
            return item != null;
        });
    }

    private long readStruct(Reader in, long client, long clock) {
        int info = in.uint8(), kind = info & 31;
        Id left = null, right = null;
        String list = null;
        if (kind != 0 && kind != 10) {
            if ((info & 0x80) != 0) left = new Id(in.uint(), in.uint());
            if ((info & 0x40) != 0) right = new Id(in.uint(), in.uint());
            if ((info & 0xC0) == 0) {
                list = in.uint() == 1 ? in.string() : in.uint() + "/" + in.uint(); // a root, or a type inside another
                if ((info & 0x20) != 0) list += "\0" + in.string();
            }
        }
        var contents = new ArrayList<>();
        switch (kind) {
            case 0, 1, 10 -> { for (long n = in.uint(); n > 0; n--) contents.add(null); } // gone, deleted, a gap
            case 2 -> { for (long n = in.uint(); n > 0; n--) contents.add(in.string()); } // JSON
            case 3 -> contents.add(in.bytes());
            case 4 -> { for (char one : in.string().toCharArray()) contents.add(one); } // UTF-16 units
            case 5 -> contents.add(in.string()); // an embed
            case 6 -> { in.string(); in.string(); contents.add(null); } // a format: key and value
            case 7 -> {
                long type = in.uint();
                if (type == 3 || type == 5) in.string(); // the name of an XML element
                contents.add(null);
            }
            case 8 -> { for (long n = in.uint(); n > 0; n--) contents.add(in.any()); }
            case 9 -> { in.string(); in.any(); contents.add(null); } // a subdocument
            default -> throw new IllegalStateException("an update has a struct of kind " + kind);
        }
        if (kind != 10) waiting.add(new Struct(new Id(client, clock), left, right, list, contents, kind <= 1));
        return clock + contents.size();
    }

    /** Puts a struct where it belongs. Returns false if something before it is missing. */
    private boolean integrate(Struct struct) {
        var own = items(struct.id.client());
        if (struct.id.clock() > own.size()) return false;
        if (struct.left != null && find(struct.left) == null || struct.right != null && find(struct.right) == null) return false;
        Id left = struct.left;
        for (int i = 0; i < struct.contents.size(); i++) {
            Id id = new Id(struct.id.client(), struct.id.clock() + i);
            if (id.clock() >= own.size()) {
                Item item = new Item();
                item.id = id;
                item.left = left;
                item.right = struct.right;
                item.content = struct.contents.get(i);
                item.deleted = struct.gone;
                item.list = struct.list != null ? list(struct.list)
                    : left != null ? find(left).list
                    : struct.right != null ? find(struct.right).list : null;
                own.add(item);
                if (item.list != null) insert(item);
            }
            left = id;
        }
        return true;
    }

    /** Finds the place among those that were written in the same spot at the same time, as Yjs does (`Item.integrate`). */
    private void insert(Item item) {
        var list = item.list;
        int at = item.left == null ? 0 : list.indexOf(find(item.left)) + 1;
        int end = item.right == null ? list.size() : list.indexOf(find(item.right));
        Set<Id> passed = new HashSet<>(), conflicting = new HashSet<>();
        for (int i = at; i < end; i++) {
            Item other = list.get(i);
            passed.add(other.id);
            conflicting.add(other.id);
            if (Objects.equals(item.left, other.left)) {
                if (other.id.client() < item.id.client()) {
                    at = i + 1;
                    conflicting.clear();
                } else if (Objects.equals(item.right, other.right)) break;
            } else if (other.left != null && passed.contains(other.left)) {
                if (!conflicting.contains(other.left)) {
                    at = i + 1;
                    conflicting.clear();
                }
            } else break;
        }
        list.add(at, item);
    }

    private Item find(Id id) {
        var own = items.get(id.client());
        return own == null || id.clock() >= own.size() ? null : own.get((int) id.clock());
    }

    private List<Item> items(long client) {
        return items.computeIfAbsent(client, key -> new ArrayList<>());
    }

    private List<Item> list(String name) {
        return lists.computeIfAbsent(name, key -> new ArrayList<>());
    }
}
