/* LD_PRELOAD: a wall clock that can be stepped, for one process; CLOCK_MONOTONIC and all timers stay as they are.
 *
 * CHAOS_CLOCK names a file of struct control, mapped shared. The test writes the shift and adds 1 to `steps`; where
 * CHAOS_STEPS names a FIFO, a byte into it makes every timerfd readable that was armed with TFD_TIMER_CANCEL_ON_SET, and its
 * read(2) fails with ECANCELED, as the kernel does it when somebody sets the clock (timerfd_create(2)).
 *
 * CHAOS_BOOT names a file that is opened in place of /proc/sys/kernel/random/boot_id: another boot, without one.
 *
 * What is not imitated: the expiry of a CLOCK_REALTIME timerfd. Its stand-in is an eventfd that no time makes readable.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096
#define SECOND 1000000000LL

struct control {
    volatile int64_t shift_ns;      /* added to CLOCK_REALTIME */
    volatile int32_t unsynchronised; /* adjtimex answers TIME_ERROR; else TIME_OK */
    volatile int32_t steps;
};

static struct control nothing, *control = &nothing;
static int fifo = -1;
static pthread_t watcher;
static volatile char armed[FILES]; /* 1: stands for a timerfd; 2: armed, and to be cancelled by a step */

#define NEXT(type, name, ...)                                     \
    static type (*next)(__VA_ARGS__);                             \
    if (!next)                                                    \
        next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void *watch(void *unused)
{
    char bytes[16];
    (void)unused;
    for (;;) {
        ssize_t got = read(fifo, bytes, sizeof bytes); /* opened for writing too, so that it never ends */
        if (got <= 0)
            return NULL;
        for (int fd = 0; fd < FILES; fd++)
            if (armed[fd] == 2)
                eventfd_write(fd, 1);
    }
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CHAOS_CLOCK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        control = mapped;
    path = getenv("CHAOS_STEPS");
    fifo = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fifo < 0)
        return;
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&watcher, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

#define OPEN(name)                                                            \
    int name(const char *path, int flags, ...)                                \
    {                                                                         \
        NEXT(int, #name, const char *, int, ...);                             \
        va_list more;                                                         \
        va_start(more, flags);                                                \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                         \
        const char *other = getenv("CHAOS_BOOT");                             \
        if (other && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)    \
            path = other;                                                     \
        return next(path, flags, mode);                                       \
    }
OPEN(open)
OPEN(open64)

static int is_wall(clockid_t id) { return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI; }

int clock_gettime(clockid_t id, struct timespec *now)
{
    NEXT(int, "clock_gettime", clockid_t, struct timespec *);
    int status = next(id, now);
    if (status == 0 && is_wall(id)) {
        int64_t whole = now->tv_sec * SECOND + now->tv_nsec + control->shift_ns;
        if (whole < 0)
            whole = 0; /* no clock of Linux shows a time before 1970 (clock_settime(2): EINVAL) */
        now->tv_sec = whole / SECOND;
        now->tv_nsec = whole % SECOND;
    }
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state)
{
    memset((char *)state + sizeof state->modes, 0, sizeof *state - sizeof state->modes);
    return control->unsynchronised ? TIME_ERROR : TIME_OK;
}

int timerfd_create(int id, int flags)
{
    NEXT(int, "timerfd_create", int, int);
    if (!is_wall(id) || fifo < 0)
        return next(id, flags);
    int fd = eventfd(0, (flags & TFD_NONBLOCK ? EFD_NONBLOCK : 0) | (flags & TFD_CLOEXEC ? EFD_CLOEXEC : 0));
    if (fd >= 0 && fd < FILES)
        armed[fd] = 1;
    return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    NEXT(int, "timerfd_settime", int, int, const struct itimerspec *, struct itimerspec *);
    if (fd < 0 || fd >= FILES || !armed[fd])
        return next(fd, flags, value, old);
    int on = value->it_value.tv_sec || value->it_value.tv_nsec;
    armed[fd] = on && (flags & TFD_TIMER_CANCEL_ON_SET) ? 2 : 1;
    if (old)
        memset(old, 0, sizeof *old);
    return 0;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    NEXT(ssize_t, "read", int, void *, size_t);
    ssize_t got = next(fd, buffer, size);
    if (got > 0 && fd >= 0 && fd < FILES && armed[fd]) {
        errno = ECANCELED;
        return -1;
    }
    return got;
}

int close(int fd)
{
    NEXT(int, "close", int);
    if (fd >= 0 && fd < FILES)
        armed[fd] = 0;
    return next(fd);
}
