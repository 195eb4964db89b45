/* Preloaded, it writes down each change below FORGET_ROOT, and each fsync, to FORGET_LOG, in their order. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static int ours(const char *path) {
    const char *root = getenv("FORGET_ROOT");
    return root && path && !strncmp(path, root, strlen(root));
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

static uint64_t inode_of(int fd) {
    struct stat state;
    return fstat(fd, &state) ? 0 : state.st_ino;
}

static void put(const void *data, size_t length) { syscall(SYS_write, log_fd, data, length); }

static void note(char kind, uint64_t inode, uint64_t offset, const void *one, uint32_t n, const char *two) {
    if (log_fd < 0) log_fd = syscall(SYS_openat, AT_FDCWD, getenv("FORGET_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    uint32_t m = two ? strlen(two) : 0;
    put(&kind, 1); put(&inode, 8); put(&offset, 8); put(&n, 4); put(&m, 4);
    put(one, n);
    if (m) put(two, m);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GUARDED(what) pthread_mutex_lock(&lock); what; pthread_mutex_unlock(&lock)

static int opened(int fd, const char *path, int flags) {
    if (fd >= 0 && ours(path) && flags & (O_CREAT | O_TRUNC)) {
        GUARDED(note('C', inode_of(fd), flags & O_TRUNC ? 1 : 0, path, strlen(path), 0));
    }
    return fd;
}
#define MODE va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest)
int open(const char *path, int flags, ...) { MODE; return opened(REAL(open)(path, flags, mode), path, flags); }
int open64(const char *path, int flags, ...) { MODE; return opened(REAL(open64)(path, flags, mode), path, flags); }
int openat(int at, const char *path, int flags, ...) { MODE; return opened(REAL(openat)(at, path, flags, mode), path, flags); }

static void written(int fd, uint64_t offset, const void *data, ssize_t done) {
    char path[4096];
    if (done > 0 && path_of(fd, path)) note('W', inode_of(fd), offset, data, done, 0);
}
ssize_t write(int fd, const void *data, size_t count) {
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done;
    GUARDED(done = REAL(write)(fd, data, count); if (offset >= 0) written(fd, offset, data, done));
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    ssize_t done;
    GUARDED(done = REAL(pwrite)(fd, data, count, offset); written(fd, offset, data, done));
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) { return pwrite(fd, data, count, offset); }

int ftruncate(int fd, off_t length) {
    char path[4096];
    int failed;
    GUARDED(failed = REAL(ftruncate)(fd, length); if (!failed && path_of(fd, path)) note('T', inode_of(fd), length, "", 0, 0));
    return failed;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

static void synced(int fd, int failed) {
    char path[4096];
    if (!failed && path_of(fd, path)) note('S', inode_of(fd), 0, path, strlen(path), 0);
}
int fsync(int fd) { int failed; GUARDED(failed = REAL(fsync)(fd); synced(fd, failed)); return failed; }
int fdatasync(int fd) { int failed; GUARDED(failed = REAL(fdatasync)(fd); synced(fd, failed)); return failed; }

int rename(const char *from, const char *to) {
    int failed;
    GUARDED(failed = REAL(rename)(from, to); if (!failed && ours(from)) note('R', 0, 0, from, strlen(from), to));
    return failed;
}
int unlink(const char *path) {
    int failed;
    GUARDED(failed = REAL(unlink)(path); if (!failed && ours(path)) note('U', 0, 0, path, strlen(path), 0));
    return failed;
}
int mkdir(const char *path, mode_t mode) {
    int failed;
    GUARDED(failed = REAL(mkdir)(path, mode); if (!failed && ours(path)) note('M', 0, 0, path, strlen(path), 0));
    return failed;
}
