// The InterProcessMutex of Apache Curator, driven as the bench drives others: threads that lock and release.

import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;

import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryOneTime;

public class Curator {
    /** Words: address, tasks, clients, whether all want one key, how long each holds in ms. */
    public static void main(String[] words) throws Exception {
        int tasks = Integer.parseInt(words[1]);
        boolean oneKey = Boolean.parseBoolean(words[3]);
        long hold = Long.parseLong(words[4]);
        List<CuratorFramework> clients = new ArrayList<>();
        for (int i = 0; i < Integer.parseInt(words[2]); i++) {
            CuratorFramework client = CuratorFrameworkFactory.newClient(words[0], 30_000, 10_000, new RetryOneTime(100));
            client.start();
            client.blockUntilConnected();
            clients.add(client);
        }
        System.out.println("ready");
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            long time = Long.parseLong(lines.nextLine().trim()) * 1_000_000;
            long start = System.nanoTime() + time / 8;
            long end = start + time;
            List<StringBuilder> turns = new ArrayList<>();
            List<Thread> threads = new ArrayList<>();
            for (int i = 0; i < tasks; i++) {
                String path = "/curator/key-" + (oneKey ? 0 : i);
                InterProcessMutex mutex = new InterProcessMutex(clients.get(i % clients.size()), path);
                StringBuilder noted = new StringBuilder();
                turns.add(noted);
                Thread thread = new Thread(() -> goOn(mutex, hold, end, noted));
                threads.add(thread);
                thread.start();
            }
            sleepUntil(start);
            long before = cpu();
            sleepUntil(end);
            long cpu = cpu() - before;
            for (Thread thread : threads) {
                thread.join();
            }
            StringBuilder record = new StringBuilder("{\"turns\":[");
            for (int i = 0; i < turns.size(); i++) {
                record.append(i == 0 ? "[" : ",[").append(turns.get(i)).append("]");
            }
            record.append("],\"start\":").append(start).append(",\"end\":").append(end);
            record.append(",\"cpu\":{\"secs\":").append(cpu / 1_000_000_000);
            record.append(",\"nanos\":").append(cpu % 1_000_000_000);
            System.out.println(record.append("},\"batch\":1,\"contended\":").append(oneKey).append("}"));
        }
        clients.forEach(CuratorFramework::close);
    }

    private static void goOn(InterProcessMutex mutex, long hold, long end, StringBuilder noted) {
        try {
            long asked;
            while ((asked = System.nanoTime()) < end) {
                mutex.acquire();
                long acquired = System.nanoTime();
                if (hold > 0 && acquired < end) {
                    Thread.sleep(hold);
                }
                long leaving = System.nanoTime();
                mutex.release();
                noted.append(noted.length() == 0 ? "[" : ",[").append(asked).append(',').append(acquired).append(',');
                noted.append(leaving).append(',').append(System.nanoTime()).append(']');
            }
        } catch (Exception failed) {
            failed.printStackTrace();
            System.exit(1);
        }
    }

    private static void sleepUntil(long instant) throws InterruptedException {
        long left = instant - System.nanoTime();
        if (left > 0) {
            Thread.sleep(left / 1_000_000, (int) (left % 1_000_000));
        }
    }

    private static long cpu() {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime();
    }
}
