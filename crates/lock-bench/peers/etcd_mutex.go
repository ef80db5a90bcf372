// The Mutex of etcd's own Go library, driven as the bench drives others: goroutines that lock and release.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"golang.org/x/sys/unix"
)

type orders struct {
	Urls    []string `json:"urls"`
	Tasks   int      `json:"tasks"`
	Clients int      `json:"clients"`
	OneKey  bool     `json:"one_key"`
	HoldMs  int64    `json:"hold_ms"`
}

type record struct {
	Turns     [][][4]int64     `json:"turns"`
	Start     int64            `json:"start"`
	End       int64            `json:"end"`
	Cpu       map[string]int64 `json:"cpu"`
	Batch     int              `json:"batch"`
	Contended bool             `json:"contended"`
}

func main() {
	var told orders
	check(json.Unmarshal([]byte(os.Args[1]), &told))
	sessions := make([]*concurrency.Session, told.Clients)
	for i := range sessions {
		client, err := clientv3.New(clientv3.Config{Endpoints: told.Urls[:1], DialTimeout: 10 * time.Second})
		check(err)
		// The holder of a key is the session.
		sessions[i], err = concurrency.NewSession(client, concurrency.WithTTL(30))
		check(err)
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ms, err := strconv.ParseInt(lines.Text(), 10, 64)
		check(err)
		written, err := json.Marshal(drive(told, sessions, ms*1_000_000))
		check(err)
		fmt.Println(string(written))
	}
}

func drive(told orders, sessions []*concurrency.Session, length int64) record {
	start := now() + length/8
	end := start + length
	turns := make([][][4]int64, told.Tasks)
	var running sync.WaitGroup
	for i := range turns {
		key := i
		if told.OneKey {
			key = 0
		}
		mutex := concurrency.NewMutex(sessions[i%len(sessions)], fmt.Sprintf("go/key-%d", key))
		turns[i] = [][4]int64{}
		running.Add(1)
		go func(i int) {
			defer running.Done()
			for asked := now(); asked < end; asked = now() {
				check(mutex.Lock(context.Background()))
				acquired := now()
				if told.HoldMs > 0 && acquired < end {
					time.Sleep(time.Duration(told.HoldMs) * time.Millisecond)
				}
				leaving := now()
				check(mutex.Unlock(context.Background()))
				turns[i] = append(turns[i], [4]int64{asked, acquired, leaving, now()})
			}
		}(i)
	}
	time.Sleep(time.Duration(start - now()))
	before := cpu()
	time.Sleep(time.Duration(end - now()))
	used := cpu() - before
	running.Wait()
	parts := map[string]int64{"secs": used / 1e9, "nanos": used % 1e9}
	return record{turns, start, end, parts, 1, told.OneKey}
}

// The clock that all processes of a machine share.
func now() int64 {
	var time unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &time))
	return time.Nano()
}

func cpu() int64 {
	var used syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return used.Utime.Nano() + used.Stime.Nano()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
