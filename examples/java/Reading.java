// A handler in Java: decodes the reading of a device, "dev-1,42.5,1678886400".
//
//   faas-worker --handler 'java -cp gson.jar Reading.java'
//
// Java 17 or later. It compiles the file at each start of a process; `javac -cp gson.jar Reading.java`
// does so once. Java has no JSON: Gson is libgoogle-gson-java in Debian, /usr/share/java/gson.jar.

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;

public class Reading {
    // Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
    static final Pattern READING = Pattern.compile(
        "([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})");

    // The function: returns a value for Gson, or throws. Many threads call it at once.
    static Object handle(String payload) {
        var reading = READING.matcher(payload);
        if (!reading.matches()) {
            throw new Refused(422, "expected device,value,timestamp");
        }
        return Map.of(
            "device", reading.group(1),
            "value", Double.parseDouble(reading.group(2)),
            "timestamp", Long.parseLong(reading.group(3)));
    }

    static class Refused extends RuntimeException {
        final int status;

        Refused(int status, String message) {
            super(message);
            this.status = status;
        }
    }

    // ---- The loop, which needs no change ------------------------------------------------------------

    // How many requests a process works on at once.
    static final int CONCURRENCY = 16;
    static final Gson GSON = new GsonBuilder().serializeNulls().create();
    // UTF-8 under every locale.
    static final PrintStream REPLIES =
        new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

    static class Request {
        long id;
        String payload;
    }

    static void write(Object message) {
        var line = GSON.toJson(message) + "\n";
        synchronized (REPLIES) {
            REPLIES.print(line);
            REPLIES.flush();
        }
    }

    static void answer(Request request) {
        try {
            var result = GSON.toJsonTree(handle(request.payload));
            write(Map.of("id", request.id, "result", result));
        } catch (Refused refused) {
            var error = Map.of("message", refused.getMessage(), "status", refused.status);
            write(Map.of("id", request.id, "error", error));
        } catch (Throwable cause) {
            cause.printStackTrace();
            var error = Map.of("message", String.valueOf(cause.getMessage()), "status", 500);
            write(Map.of("id", request.id, "error", error));
        }
    }

    public static void main(String[] arguments) throws IOException {
        // Output of the function goes to the log, and never between the replies.
        System.setOut(System.err);
        write(Map.of("ready", true, "concurrency", CONCURRENCY));
        var requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        ExecutorService threads = Executors.newFixedThreadPool(CONCURRENCY);
        for (String line; (line = requests.readLine()) != null; ) {
            var request = GSON.fromJson(line, Request.class);
            threads.execute(() -> answer(request));
        }
        // Ends the threads, and with them the process, when the last request is answered.
        threads.shutdown();
    }
}
