/* LD_PRELOAD: a disk that fails, is slow, or loses its power; for the files directly below one directory.
 *
 * CHAOS_DISK     the directory, absolute and without a slash at its end
 * CHAOS_CONTROL  a file of struct control, mapped shared: the test switches errors and delays on and off
 * CHAOS_JOURNAL  if set, every change is appended to it: which write, which sync begun and ended, in which order. From it
 *                the test makes what the disk would hold had the power gone at any moment (chaos_journal.py).
 *
 * SQLite's unix VFS calls exactly these (os_unix.c, aSyscall[]); Python's os module too. Its -shm file is left out: it is
 * an index of the -wal file in shared memory, and made anew after a crash (walformat.html, section 2.2).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096 /* descriptors that are looked after; a higher one is not below our directory in any test */

struct control { /* errno values; 0: as it should be */
    volatile int32_t write_error; /* write, truncate, unlink, rename, and opening for writing */
    volatile int32_t sync_error;
    volatile int32_t read_error;
    volatile int32_t sync_delay_us;
    volatile int64_t failed; /* counts what was refused: the test sees that it struck */
    volatile int64_t synced;
};

enum op { OP_OPEN = 1, OP_WRITE, OP_TRUNCATE, OP_SYNC_BEGUN, OP_SYNC_DONE, OP_UNLINK, OP_RENAME, OP_DIR_BEGUN, OP_DIR_DONE };

struct head { /* then `length` bytes: data, a path, or for OP_RENAME two with a zero between */
    uint32_t op;
    uint32_t length;
    uint64_t time_ns;
    uint64_t inode;
    uint64_t offset; /* of OP_TRUNCATE: the new size */
};

static const char *directory;
static struct control nothing, *control = &nothing;
static int journal = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER; /* the journal's order is the order of the changes */
static enum { NOT_OURS, A_FILE, THE_DIRECTORY } kinds[FILES];

#define NEXT(type, name, ...)                                     \
    static type (*next)(__VA_ARGS__);                             \
    if (!next)                                                    \
        next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int refused(volatile int32_t *error)
{
    int number = *error;
    if (!number)
        return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_RELAXED);
    errno = number;
    return 1;
}

/* In the directory itself and no -shm: its name, or NULL. */
static const char *ours(const char *path)
{
    if (!directory || !path)
        return NULL;
    size_t size = strlen(directory);
    if (strncmp(path, directory, size) != 0 || path[size] != '/')
        return NULL;
    const char *name = path + size + 1;
    size_t length = strlen(name);
    if (!length || strchr(name, '/') || (length > 4 && strcmp(name + length - 4, "-shm") == 0))
        return NULL;
    return name;
}

static int kind(int fd) { return fd >= 0 && fd < FILES ? (int)kinds[fd] : NOT_OURS; }

static uint64_t inode_of(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 ? (uint64_t)info.st_ino : 0;
}

static void note(enum op op, uint64_t inode, uint64_t offset, const void *data, size_t length)
{
    static ssize_t (*next_writev)(int, const struct iovec *, int);
    if (journal < 0)
        return;
    if (!next_writev)
        next_writev = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct head head = {op, (uint32_t)length, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, inode, offset};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, length}};
    int saved = errno;
    if (next_writev(journal, parts, 2) != (ssize_t)(sizeof head + length))
        abort(); /* half a journal would make a wrong verdict */
    errno = saved;
}

__attribute__((constructor)) static void begin(void)
{
    directory = getenv("CHAOS_DISK");
    const char *path = getenv("CHAOS_JOURNAL");
    if (path)
        journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    path = getenv("CHAOS_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        control = mapped;
}

static int opened(int fd, const char *path, int flags)
{
    if (fd < 0 || fd >= FILES)
        return fd;
    kinds[fd] = NOT_OURS;
    if (directory && strcmp(path, directory) == 0) {
        kinds[fd] = THE_DIRECTORY;
    } else if (ours(path)) {
        kinds[fd] = A_FILE;
        uint64_t inode = inode_of(fd);
        note(OP_OPEN, inode, 0, path, strlen(path));
        if (flags & O_TRUNC)
            note(OP_TRUNCATE, inode, 0, NULL, 0);
    }
    return fd;
}

#define OPEN(name)                                                                                   \
    int name(const char *path, int flags, ...)                                                       \
    {                                                                                                \
        NEXT(int, #name, const char *, int, ...);                                                    \
        va_list more;                                                                                \
        va_start(more, flags);                                                                       \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;                    \
        va_end(more);                                                                                \
        if (ours(path) && (flags & O_ACCMODE) != O_RDONLY && refused(&control->write_error))         \
            return -1;                                                                               \
        pthread_mutex_lock(&order);                                                                  \
        int fd = opened(next(path, flags, mode), path, flags);                                       \
        pthread_mutex_unlock(&order);                                                                \
        return fd;                                                                                   \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    NEXT(int, "close", int);
    if (fd >= 0 && fd < FILES)
        kinds[fd] = NOT_OURS;
    return next(fd);
}

ssize_t write(int fd, const void *data, size_t size)
{
    NEXT(ssize_t, "write", int, const void *, size_t);
    if (kind(fd) != A_FILE)
        return next(fd, data, size);
    if (refused(&control->write_error))
        return -1;
    pthread_mutex_lock(&order);
    ssize_t done = next(fd, data, size);
    if (done > 0)
        note(OP_WRITE, inode_of(fd), (uint64_t)(lseek(fd, 0, SEEK_CUR) - done), data, (size_t)done);
    pthread_mutex_unlock(&order);
    return done;
}

#define PWRITE(name, offset_type)                                                 \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset)       \
    {                                                                             \
        NEXT(ssize_t, #name, int, const void *, size_t, offset_type);             \
        if (kind(fd) != A_FILE)                                                   \
            return next(fd, data, size, offset);                                  \
        if (refused(&control->write_error))                                       \
            return -1;                                                            \
        pthread_mutex_lock(&order);                                               \
        ssize_t done = next(fd, data, size, offset);                              \
        if (done > 0)                                                             \
            note(OP_WRITE, inode_of(fd), (uint64_t)offset, data, (size_t)done);   \
        pthread_mutex_unlock(&order);                                             \
        return done;                                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PREAD(name, offset_type)                                       \
    ssize_t name(int fd, void *data, size_t size, offset_type offset)  \
    {                                                                  \
        NEXT(ssize_t, #name, int, void *, size_t, offset_type);        \
        if (kind(fd) == A_FILE && refused(&control->read_error))       \
            return -1;                                                 \
        return next(fd, data, size, offset);                           \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

#define FTRUNCATE(name, offset_type)                                   \
    int name(int fd, offset_type size)                                 \
    {                                                                  \
        NEXT(int, #name, int, offset_type);                            \
        if (kind(fd) != A_FILE)                                        \
            return next(fd, size);                                     \
        if (refused(&control->write_error))                            \
            return -1;                                                 \
        pthread_mutex_lock(&order);                                    \
        int status = next(fd, size);                                   \
        if (status == 0)                                               \
            note(OP_TRUNCATE, inode_of(fd), (uint64_t)size, NULL, 0);  \
        pthread_mutex_unlock(&order);                                  \
        return status;                                                 \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define SYNC(name)                                                                       \
    int name(int fd)                                                                     \
    {                                                                                    \
        NEXT(int, #name, int);                                                           \
        int what = kind(fd);                                                             \
        if (what == NOT_OURS)                                                            \
            return next(fd);                                                             \
        if (refused(&control->sync_error))                                               \
            return -1;                                                                   \
        uint64_t inode = inode_of(fd);                                                   \
        pthread_mutex_lock(&order);                                                      \
        note(what == A_FILE ? OP_SYNC_BEGUN : OP_DIR_BEGUN, inode, 0, NULL, 0);          \
        pthread_mutex_unlock(&order);                                                    \
        if (control->sync_delay_us)                                                      \
            usleep((useconds_t)control->sync_delay_us);                                  \
        int status = next(fd);                                                           \
        if (status == 0) {                                                               \
            __atomic_add_fetch(&control->synced, 1, __ATOMIC_RELAXED);                   \
            pthread_mutex_lock(&order);                                                  \
            note(what == A_FILE ? OP_SYNC_DONE : OP_DIR_DONE, inode, 0, NULL, 0);        \
            pthread_mutex_unlock(&order);                                                \
        }                                                                                \
        return status;                                                                   \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path)
{
    NEXT(int, "unlink", const char *);
    if (!ours(path))
        return next(path);
    if (refused(&control->write_error))
        return -1;
    pthread_mutex_lock(&order);
    int status = next(path);
    if (status == 0)
        note(OP_UNLINK, 0, 0, path, strlen(path));
    pthread_mutex_unlock(&order);
    return status;
}

int rename(const char *from, const char *to)
{
    NEXT(int, "rename", const char *, const char *);
    if (!ours(from) && !ours(to))
        return next(from, to);
    if (refused(&control->write_error))
        return -1;
    char both[2 * PATH_MAX];
    size_t length = strlen(from) + 1 + strlen(to);
    pthread_mutex_lock(&order);
    int status = next(from, to);
    if (status == 0 && length < sizeof both) {
        memcpy(both, from, strlen(from) + 1);
        memcpy(both + strlen(from) + 1, to, strlen(to));
        note(OP_RENAME, 0, 0, both, length);
    }
    pthread_mutex_unlock(&order);
    return status;
}
