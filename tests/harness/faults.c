/* Counts the calls that put names and bytes on disk, and lets the Nth fail or kills the process in its place.

   Preloaded, so that it sees what SQLite, DuckDB and Arrow do inside their own code, too. Not armed it only counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static atomic_int count;
static atomic_flag writing = ATOMIC_FLAG_INIT;
static int at, error_number;
static char log_of_calls[1 << 16];

void faults_arm(int nth, int error) {
    atomic_store(&count, 0);
    log_of_calls[0] = 0;
    at = nth;
    error_number = error;
}

int faults_count(void) { return atomic_load(&count); }

const char *faults_log(void) { return log_of_calls; }

/* Whether this call is to fail. */
static int fails(const char *name) {
    int number = atomic_fetch_add(&count, 1) + 1;
    while (atomic_flag_test_and_set(&writing)) {}
    if (strlen(log_of_calls) + strlen(name) + 2 < sizeof log_of_calls) {
        strcat(log_of_calls, name);
        strcat(log_of_calls, " ");
    }
    atomic_flag_clear(&writing);
    if (number != at) return 0;
    if (!error_number) kill(getpid(), SIGKILL);
    errno = error_number;
    return 1;
}

#define WATCHED(name, parameters, arguments)                                      \
    int name parameters {                                                         \
        static int(*real) parameters;                                             \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);             \
        return fails(#name) ? -1 : real arguments;                                \
    }

WATCHED(fsync, (int fd), (fd))
WATCHED(fdatasync, (int fd), (fd))
WATCHED(rename, (const char *a, const char *b), (a, b))
WATCHED(renameat, (int d, const char *a, int e, const char *b), (d, a, e, b))
WATCHED(renameat2, (int d, const char *a, int e, const char *b, unsigned int f), (d, a, e, b, f))
WATCHED(link, (const char *a, const char *b), (a, b))
WATCHED(linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f))
