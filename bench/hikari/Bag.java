/* bench/hikari/Bag.java: HikariCP's ConcurrentBag under the load of bench/pair: borrow one of 16 entries, touch it, give
 * it back. Prints ns per pair and CPU of one run, after as many runs to warm up as the JIT needs: Bag THREADS PAIRS. */
import com.zaxxer.hikari.util.ConcurrentBag;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

public class Bag {
    static final int ENTRIES = 16;
    static final int WARM_RUNS = 5;

    static final class Entry implements ConcurrentBag.IConcurrentBagEntry {
        private final AtomicInteger state = new AtomicInteger();
        long touched;

        public boolean compareAndSet(int expect, int update) {
            return state.compareAndSet(expect, update);
        }

        public void setState(int value) {
            state.set(value);
        }

        public int getState() {
            return state.get();
        }
    }

    static void pairs(ConcurrentBag<Entry> bag, long pairs) {
        try {
            for (long i = 0; i < pairs; i++) {
                Entry entry = bag.borrow(5, TimeUnit.SECONDS);
                entry.touched++;
                bag.requite(entry);
            }
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    static double run(int threads, long pairs) throws InterruptedException {
        ConcurrentBag<Entry> bag = new ConcurrentBag<>(waiting -> { });
        Entry[] entries = new Entry[ENTRIES];
        for (int i = 0; i < ENTRIES; i++)
            bag.add(entries[i] = new Entry());
        CountDownLatch begin = new CountDownLatch(1);
        Thread[] all = new Thread[threads];
        for (int i = 0; i < threads; i++) {
            all[i] = new Thread(() -> {
                try {
                    begin.await();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                pairs(bag, pairs / threads);
            });
            all[i].start();
        }
        long before = System.nanoTime();
        begin.countDown();
        for (Thread thread : all)
            thread.join();
        long took = System.nanoTime() - before, touched = 0;
        for (Entry entry : entries)
            touched += entry.touched;
        if (touched != pairs / threads * threads)
            throw new IllegalStateException(touched + " pairs of " + pairs);
        int cpus = Math.min(threads, Runtime.getRuntime().availableProcessors());
        return (double) took * cpus / touched;
    }

    public static void main(String[] args) throws InterruptedException {
        int threads = Integer.parseInt(args[0]);
        long pairs = Long.parseLong(args[1]);
        for (int i = 0; i < WARM_RUNS; i++)
            run(threads, pairs);
        System.out.println(run(threads, pairs));
        System.exit(0);
    }
}
