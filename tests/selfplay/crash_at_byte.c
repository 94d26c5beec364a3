/* Preloaded: after so many bytes, written by all threads below one folder, the process is killed as by -9.
 *
 * A write that crosses the limit leaves what fits. Cutting, renaming, removing and syncing count as a byte each, and
 * are not done once the limit is reached. crash_after(-1) only counts.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static long limit = -1, counted;

void crash_below(const char *path) { strncpy(folder, path, sizeof folder - 1); }
void crash_after(long bytes) { limit = bytes, counted = 0; }
long crash_counted(void) { return counted; }

static int counts(int fd) {
    char link[64], path[4096];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t prefix = strlen(folder);
    return length > (ssize_t)prefix && !strncmp(path, folder, prefix);
}

/* How many of these bytes may be written; the caller writes them, then calls die_if_over. */
static size_t allowed(size_t bytes) {
    long before = __sync_fetch_and_add(&counted, (long)bytes);
    if (limit < 0 || before + (long)bytes <= limit) return bytes;
    return before < limit ? (size_t)(limit - before) : 0;
}

static void die_if_over(void) {
    if (limit >= 0 && counted > limit) kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t bytes) {
    if (!counts(fd)) return REAL(write)(fd, data, bytes);
    ssize_t done = REAL(write)(fd, data, allowed(bytes));
    die_if_over();
    return done;
}

ssize_t writev(int fd, const struct iovec *part, int number) {
    if (!counts(fd)) return REAL(writev)(fd, part, number);
    ssize_t done = 0;
    for (int i = 0; i < number; i++) done += write(fd, part[i].iov_base, part[i].iov_len);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) {
    if (!counts(fd)) return REAL(pwrite)(fd, data, bytes, at);
    ssize_t done = REAL(pwrite)(fd, data, allowed(bytes), at);
    die_if_over();
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at) { return pwrite(fd, data, bytes, at); }

static void one(void) {
    allowed(1);
    die_if_over();
}

int ftruncate(int fd, off_t length) {
    if (counts(fd)) one();
    return REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int fsync(int fd) {
    if (counts(fd)) one();
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    if (counts(fd)) one();
    return REAL(fdatasync)(fd);
}

int rename(const char *from, const char *to) {
    if (folder[0]) one();
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (folder[0]) one();
    return REAL(unlink)(path);
}
