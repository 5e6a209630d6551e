/* LD_PRELOAD: writes down when a program reads how much from which pseudo-terminal.
 *
 * A test has to know which lines of a device had been read when it killed the reader; neither the reader's own word nor the
 * time of writing tells that. This is the border between kernel and program, seen from outside.
 *
 * CHAOS_READS names a file that the test has made: struct log. It is mapped shared, so that what stands there survives
 * kill -9, and goes on where it stood when the program starts again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define PTS_FIRST 136 /* Documentation/admin-guide/devices.txt: 136..143 are the slaves of Unix98 ptys */
#define PTS_LAST 143
#define PTS_MINORS 256 /* of each major */

struct record {
    uint64_t time_ns; /* CLOCK_MONOTONIC after the read */
    uint32_t pts;     /* N of /dev/pts/N */
    uint32_t bytes;
};

struct log {
    _Atomic uint64_t used; /* may exceed room: then records were left out, and the test must fail */
    uint64_t room;
    struct record records[];
};

static ssize_t (*next_read)(int, void *, size_t);
static struct log *reads;

__attribute__((constructor)) static void begin(void)
{
    next_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    const char *path = getenv("CHAOS_READS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0)
        return;
    void *mapped = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        reads = mapped;
}

static void note(int fd, size_t bytes)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISCHR(info.st_mode))
        return;
    unsigned major_number = major(info.st_rdev);
    if (major_number < PTS_FIRST || major_number > PTS_LAST)
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t place = atomic_fetch_add(&reads->used, 1);
    if (place < reads->room) {
        struct record *record = &reads->records[place];
        record->pts = (major_number - PTS_FIRST) * PTS_MINORS + minor(info.st_rdev);
        record->bytes = (uint32_t)bytes;
        record->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec; /* last: 0 means not yet whole */
    }
}

ssize_t read(int fd, void *buffer, size_t size)
{
    if (!next_read) /* another constructor was quicker */
        next_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    ssize_t got = next_read(fd, buffer, size);
    if (reads && got > 0)
        note(fd, (size_t)got);
    return got;
}
