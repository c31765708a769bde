import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.Pattern;

/** Runs named checks one after another, prints a line for each and counts them. A check that hangs fails. */
final class Checks {
    interface Body {
        void run() throws Exception;
    }

    private static final long CHECK_SECONDS = 30;

    private final Pattern only = Pattern.compile(Objects.requireNonNullElse(System.getenv("CHECKS"), ""));
    private final ExecutorService runner = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task, "check");
        thread.setDaemon(true);
        return thread;
    });
    private int passed;
    private int failed;

    void check(String name, Body body) {
        if (!only.matcher(name).find()) {
            return;
        }
        Future<?> run = runner.submit(() -> {
            body.run();
            return null;
        });
        try {
            run.get(CHECK_SECONDS, TimeUnit.SECONDS);
            passed++;
            System.out.println("ok " + name);
        } catch (TimeoutException e) {
            run.cancel(true);
            fail(name, "not done after " + CHECK_SECONDS + " s");
        } catch (ExecutionException e) {
            fail(name, describe(e.getCause()));
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private void fail(String name, String reason) {
        failed++;
        System.out.println("FAIL " + name + " " + reason.replace('\n', ' '));
    }

    private static String describe(Throwable error) {
        StackTraceElement[] stack = error.getStackTrace();
        String place = "";
        for (StackTraceElement frame : stack) {
            if (frame.getClassName().indexOf('.') < 0 && !frame.getClassName().startsWith("Checks")) {
                place = " at " + frame.getFileName() + ":" + frame.getLineNumber();
                break;
            }
        }
        return error + place;
    }

    /** Prints the totals; the exit code of the suite. */
    int finish() {
        System.out.println(passed + " passed, " + failed + " failed");
        return failed == 0 && passed > 0 ? 0 : 1;
    }

    static void equal(Object expected, Object actual, String what) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError(what + ": expected " + expected + ", got " + actual);
        }
    }

    static void that(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    /** Runs the call, which must fail with this error, directly or as the cause of an ExecutionException. */
    static <E extends Throwable> E fails(Class<E> expected, Callable<?> call) throws Exception {
        Object result;
        try {
            result = call.call();
        } catch (Throwable e) {
            Throwable error = e instanceof ExecutionException ? e.getCause() : e;
            if (expected.isInstance(error)) {
                return expected.cast(error);
            }
            throw new AssertionError("expected " + expected.getSimpleName() + ", got " + error, error);
        }
        throw new AssertionError("expected " + expected.getSimpleName() + ", got the result " + result);
    }

    /** Asks again until the answer is true. For state that a broker may publish a moment after it acknowledged. */
    static void eventually(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(15);
        while (!condition.call()) {
            that(System.nanoTime() < deadline, "never happened: " + what);
            Thread.sleep(10);
        }
    }
}
