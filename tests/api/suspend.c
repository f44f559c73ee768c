/* What a suspended machine does to CLOCK_MONOTONIC: the seconds in the file $SUSPENDED_FILE did not happen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile long long *suspended;
static int (*real)(clockid_t, struct timespec *);

static void prepare(void) {
  if (real) return;
  const char *name = getenv("SUSPENDED_FILE");
  int file = name ? open(name, O_RDONLY) : -1;
  if (file >= 0) suspended = mmap(0, sizeof *suspended, PROT_READ, MAP_SHARED, file, 0);
  real = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  prepare();
  int failed = real(clock, now);
  if (!failed && clock == CLOCK_MONOTONIC && suspended && suspended != MAP_FAILED) now->tv_sec -= *suspended;
  return failed;
}
