/* Shows a process another wall clock: true time, off by an offset, and from an instant on at another rate. The three
   numbers are in the file that FAULT_LAB_CLOCK names, and may change at any time. Clocks that only measure, such as the
   monotonic one, are not touched. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct setting {
    int64_t offset, started;
    double rate;
};

static const volatile struct setting *setting;

__attribute__((constructor)) static void map(void) {
    const char *name = getenv("FAULT_LAB_CLOCK");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0) return;
    void *there = mmap(NULL, sizeof *setting, PROT_READ, MAP_SHARED, file, 0);
    if (there != MAP_FAILED) setting = there;
    close(file);
}

static int64_t shown(void) {
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
    int64_t now = t.tv_sec * 1000000000LL + t.tv_nsec;
    if (!setting) return now;
    int64_t ran = now - setting->started;
    return now + setting->offset + (int64_t)(ran * (setting->rate - 1.0));
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return syscall(SYS_clock_gettime, clock, t);
    int64_t now = shown();
    t->tv_sec = now / 1000000000LL;
    t->tv_nsec = now % 1000000000LL;
    return 0;
}

int gettimeofday(struct timeval *t, void *zone) {
    int64_t now = shown();
    (void)zone;
    t->tv_sec = now / 1000000000LL;
    t->tv_usec = now % 1000000000LL / 1000;
    return 0;
}

time_t time(time_t *t) {
    time_t now = shown() / 1000000000LL;
    if (t) *t = now;
    return now;
}
