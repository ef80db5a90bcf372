"""Drives a lock of Python as the bench drives others: threads that lock and release, and note when."""

import json
import sys
import threading
import time


def main(connect):
    """Serves the bench; `connect(urls)` makes a client, which makes a lock of a name."""
    orders = json.loads(sys.argv[1])
    tasks, one_key, hold = orders["tasks"], orders["one_key"], orders["hold_ms"] / 1000
    clients = [connect(orders["urls"]) for _ in range(orders["clients"])]
    print("ready", flush=True)
    for line in sys.stdin:
        time_ns = int(line) * 1_000_000
        start = time.monotonic_ns() + time_ns // 8
        end = start + time_ns
        turns = [[] for _ in range(tasks)]

        def go_on(number):
            lock = clients[number % len(clients)]("key-%d" % (0 if one_key else number))
            while (asked := time.monotonic_ns()) < end:
                lock.acquire()
                acquired = time.monotonic_ns()
                if hold and acquired < end:
                    time.sleep(hold)
                leaving = time.monotonic_ns()
                lock.release()
                turns[number].append([asked, acquired, leaving, time.monotonic_ns()])

        threads = [threading.Thread(target=go_on, args=(number,)) for number in range(tasks)]
        for thread in threads:
            thread.start()
        time.sleep(max(0, start - time.monotonic_ns()) / 1e9)
        before = time.process_time_ns()
        time.sleep(max(0, end - time.monotonic_ns()) / 1e9)
        cpu = time.process_time_ns() - before
        for thread in threads:
            thread.join()
        record = {
            "turns": turns,
            "start": start,
            "end": end,
            "cpu": {"secs": cpu // 1_000_000_000, "nanos": cpu % 1_000_000_000},
            "batch": 1,
            "contended": one_key,
        }
        print(json.dumps(record), flush=True)
