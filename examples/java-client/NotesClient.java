// A crdt-sync client without a Yjs library: the connection. README.md says how it is run, Doc.java has the document.
//
// docs/reference/protocol.md has every byte of it. Everything happens on one thread, `loop`, as it would in Dart.
import java.io.*;
import java.net.URI;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

public class NotesClient implements WebSocket.Listener {
    static final int SYNC = 0, AWARENESS = 1, AUTH = 2, QUERY_AWARENESS = 3, CONFIRM = 102;
    static final int STEP_1 = 0, STEP_2 = 1, UPDATE = 2, DENIED = 0, TOKEN = 1, EXPIRES = 2;
    static final long RENEW_S = 15, SILENCE_S = 30;
    static final String TEXT = System.getProperty("text", "notes"), MAP = System.getProperty("map", "trip");

    final ScheduledExecutorService loop = Executors.newSingleThreadScheduledExecutor();
    final HttpClient http = HttpClient.newBuilder().executor(loop).build();
    final URI uri;
    final String name;
    final Doc doc = new Doc(new Random().nextLong(1, 1L << 32));
    final Map<Long, String> here = new TreeMap<>(); // by client id: others' states
    final Map<Long, Long> clocks = new HashMap<>(); // by client id: the newest known clock
    final List<byte[]> early = new ArrayList<>(); // updates that came before step 2
    String token;
    WebSocket socket;
    CompletableFuture<?> sending;
    ByteArrayOutputStream partial = new ByteArrayOutputStream();
    boolean synced, stopped;
    long clock = 0, heardAt = 0, edits = 0, asked = 0, attempts = 0;

    NotesClient(String url, String name, String token) {
        this.uri = URI.create(url);
        this.name = name;
        this.token = token;
        loop.scheduleAtFixedRate(this::showMyself, RENEW_S, RENEW_S, TimeUnit.SECONDS);
        loop.scheduleAtFixedRate(this::reconnectIfSilent, 5, 5, TimeUnit.SECONDS);
        loop.execute(this::connect);
    }

    // ------------------------------------------------------------------------------------------ the connection

    void connect() {
        var builder = http.newWebSocketBuilder().connectTimeout(java.time.Duration.ofSeconds(10));
        if (token != null) builder.header("Authorization", "Bearer " + token);
        builder.buildAsync(uri, this).whenCompleteAsync((made, error) -> {
            if (error == null) return;
            var cause = error instanceof CompletionException ? error.getCause() : error;
            int status = cause instanceof WebSocketHandshakeException refused ? refused.getResponse().statusCode() : 0;
            // Refused for good: a bad name, no credential, no right. Everything else passes.
            if (status >= 400 && status < 500) stop("refused " + status);
            else comeBack();
        }, loop);
    }

    /** Says first what it has (step 1), then who it is. The server does the same, and answers with what is missing here. */
    @Override public void onOpen(WebSocket opened) {
        socket = opened;
        sending = CompletableFuture.completedFuture(null);
        partial.reset();
        synced = false;
        early.clear();
        heardAt = System.nanoTime();
        send(new Writer().uint(SYNC).uint(STEP_1).bytes(doc.stateVector()));
        showMyself();
        opened.request(1);
    }

    @Override public CompletionStage<?> onBinary(WebSocket from, ByteBuffer data, boolean last) {
        byte[] part = new byte[data.remaining()];
        data.get(part);
        partial.writeBytes(part);
        if (last && from == socket) {
            byte[] frame = partial.toByteArray();
            partial.reset();
            heardAt = System.nanoTime();
            receive(new Reader(frame));
        }
        from.request(1);
        return null;
    }

    @Override public CompletionStage<?> onClose(WebSocket from, int code, String reason) {
        if (from != socket) return null;
        socket = null;
        System.out.println("closed " + code + " " + reason);
        // 44xx, and 1009: it would only happen again. 1012, 1013, 1006 and so on: try again.
        if (code >= 4400 && code < 4500 || code == 1009) stop("closed for good");
        else comeBack();
        return null;
    }

    @Override public void onError(WebSocket from, Throwable error) {
        if (from == socket) onClose(from, 1006, String.valueOf(error.getMessage()));
    }

    /** Waits 0.1 s, 0.2 s, … 25.6 s, and up to as long again by chance, so that not all clients come at once. */
    void comeBack() {
        long ms = 100L << Math.min(attempts++, 8);
        if (!stopped) loop.schedule(this::connect, ms + new Random().nextLong(ms), TimeUnit.MILLISECONDS);
    }

    void reconnectIfSilent() {
        if (System.nanoTime() - heardAt > SILENCE_S * 1_000_000_000L) drop("silent");
    }

    void drop(String why) {
        var lost = socket;
        if (lost == null) return;
        onClose(lost, 1006, why);
        lost.abort();
    }

    void stop(String why) {
        stopped = true;
        System.out.println(why);
        loop.shutdownNow();
    }

    void send(Writer message) {
        if (socket == null) return; // what is edited meanwhile goes when the server asks for it, by its step 1
        var to = socket;
        byte[] frame = message.done();
        sending = sending.thenCompose(done -> to.sendBinary(ByteBuffer.wrap(frame), true)); // one after the other
    }

    // ------------------------------------------------------------------------------------------ messages

    void receive(Reader in) {
        while (!in.atEnd()) {
            switch ((int) in.uint()) {
                case SYNC -> receiveSync((int) in.uint(), in.bytes());
                case AWARENESS -> receiveStates(new Reader(in.bytes()));
                case QUERY_AWARENESS -> showMyself();
                case AUTH -> {
                    switch ((int) in.uint()) {
                        case DENIED -> System.out.println("denied: " + in.string());
                        case EXPIRES -> System.out.println("token good for " + in.uint() + " s");
                        default -> { return; }
                    }
                }
                case CONFIRM -> {
                    // Everything that was sent before this token is stored. Later edits have tokens of their own.
                    if (new Reader(in.bytes()).uint() == asked) {
                        doc.forgetUnsaved();
                        System.out.println("saved");
                    }
                }
                default -> { return; } // unknown: nobody knows where it ends
            }
        }
    }

    void receiveSync(int step, byte[] payload) {
        if (step == STEP_1) {
            // The server says what it has, and is sent what only this client has: edits that aren't saved.
            send(new Writer().uint(SYNC).uint(STEP_2).bytes(new byte[] {0, 0}));
            for (byte[] update : doc.unsaved()) send(new Writer().uint(SYNC).uint(UPDATE).bytes(update));
            if (!doc.unsaved().isEmpty()) askForConfirmation();
            return;
        }
        if (step == UPDATE && !synced) {
            early.add(payload); // it may build on what step 2 brings
            return;
        }
        doc.apply(payload);
        if (step == STEP_2 && !synced) {
            synced = true;
            attempts = 0;
            System.out.println("synced");
            early.forEach(doc::apply);
            early.clear();
        }
        show();
    }

    void edit(byte[] update) {
        send(new Writer().uint(SYNC).uint(UPDATE).bytes(update));
        askForConfirmation();
        show();
    }

    void askForConfirmation() {
        asked = ++edits;
        send(new Writer().uint(CONFIRM).bytes(new Writer().uint(asked).done()));
    }

    void showToken(String fresh) {
        token = fresh; // for the next connection, too
        send(new Writer().uint(AUTH).uint(TOKEN).string(fresh));
    }

    // ------------------------------------------------------------------------------------------ who is here

    /** Tells the others under a new clock; every 15 s, or they take it for gone after 30 s. */
    void showMyself() {
        send(states("{\"user\":{\"name\":" + quote(name) + "}}"));
    }

    Writer states(String state) {
        var one = new Writer().uint(1).uint(doc.client).uint(++clock).string(state);
        return new Writer().uint(AWARENESS).bytes(one.done());
    }

    void receiveStates(Reader in) {
        var before = List.copyOf(here.values());
        for (long left = in.uint(); left > 0; left--) {
            long client = in.uint(), newer = in.uint();
            String state = in.string();
            if (client == doc.client) {
                clock = Math.max(clock, newer); // the server may have raised it: go on from there
                continue;
            }
            long known = clocks.getOrDefault(client, 0L);
            if (newer < known || (newer == known && !state.equals("null"))) continue;
            clocks.put(client, newer);
            if (state.equals("null")) here.remove(client);
            else here.put(client, state);
        }
        if (!before.equals(List.copyOf(here.values()))) System.out.println("here: " + here.values());
    }

    void show() {
        System.out.println("notes: " + doc.text(TEXT));
        System.out.println("trip: " + doc.map(MAP));
    }

    static String quote(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    void leave() {
        if (socket != null) {
            send(states("null"));
            var last = socket;
            sending.thenCompose(done -> last.sendClose(WebSocket.NORMAL_CLOSURE, "")).whenCompleteAsync((a, b) -> stop("bye"), loop);
            socket = null;
        } else stop("bye");
    }

    public static void main(String[] arguments) throws IOException {
        var client = new NotesClient(arguments[0], arguments[1], arguments.length > 2 ? arguments[2] : null);
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null && !client.stopped; ) {
            String[] words = line.split(" ", 3);
            String rest = line.substring(Math.min(line.length(), words[0].length() + 1));
            client.loop.execute(() -> {
                switch (words[0]) {
                    case "append" -> client.edit(client.doc.append(TEXT, rest));
                    case "set" -> client.edit(client.doc.set(MAP, words[1], words[2]));
                    case "token" -> client.showToken(rest);
                    case "drop" -> client.drop("as if the network were gone");
                    default -> System.out.println("append TEXT, set KEY VALUE, token TOKEN, drop, or the end of input");
                }
            });
        }
        if (!client.stopped) client.loop.execute(client::leave);
    }
}
