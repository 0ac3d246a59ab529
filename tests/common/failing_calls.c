/* Makes calls of the C library fail, for LD_PRELOAD: every EMBERCACHE_FAIL_EVERY th of the function
 * EMBERCACHE_FAIL_CALL from the EMBERCACHE_FAIL_FIRST th on, with the errno EMBERCACHE_FAIL_ERRNO; for 0 it does
 * half of what it was asked to, if it reads or writes. Only what happens to files called EMBERCACHE_FAIL_DIR... counts.
 * The first time it makes the file EMBERCACHE_FAIL_MARK. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int is_ours(int file) {
    const char *dir = getenv("EMBERCACHE_FAIL_DIR");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len < 0 ? 0 : len] = 0;
    return dir && !strncmp(path, dir, strlen(dir));
}

/* 0 if the call is to be made, 1 if it is to fail or to be cut short. */
static int fails(const char *call, int file) {
    static atomic_long calls;
    const char *chosen = getenv("EMBERCACHE_FAIL_CALL");
    if (!chosen || strcmp(chosen, call) || !is_ours(file))
        return 0;
    long count = atomic_fetch_add(&calls, 1) + 1 - number("EMBERCACHE_FAIL_FIRST");
    if (count < 0 || count % number("EMBERCACHE_FAIL_EVERY"))
        return 0;
    if (!count)
        close(creat(getenv("EMBERCACHE_FAIL_MARK"), 0600));
    errno = (int)number("EMBERCACHE_FAIL_ERRNO");
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int file, const void *bytes, size_t len, off64_t at) {
    if (fails("pwrite64", file)) {
        if (errno)
            return -1;
        len = (len + 1) / 2;
    }
    return NEXT(pwrite64)(file, bytes, len, at);
}

ssize_t pread64(int file, void *bytes, size_t len, off64_t at) {
    if (fails("pread64", file)) {
        if (errno)
            return -1;
        len = (len + 1) / 2;
    }
    return NEXT(pread64)(file, bytes, len, at);
}

int fdatasync(int file) {
    return fails("fdatasync", file) ? -1 : NEXT(fdatasync)(file);
}

int ftruncate64(int file, off64_t len) {
    return fails("ftruncate64", file) ? -1 : NEXT(ftruncate64)(file, len);
}
