/* What a test cannot do to the machine it runs on: a disk that takes long, and a clock that is set while programs run.
 * Preloaded into hb: HB_TEST_SYNC_MS is how long each sync takes more, HB_TEST_CLOCK names a file with the seconds by
 * which the wall clock is wrong. The monotonic clock is never touched, as no kernel touches it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void wait_for_disk(void) {
  const char *ms = getenv("HB_TEST_SYNC_MS");
  if (!ms) return;
  struct timespec pause = {atol(ms) / 1000, atol(ms) % 1000 * 1000000};
  nanosleep(&pause, NULL);
}

int fsync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  wait_for_disk();
  return real(fd);
}

int fdatasync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  wait_for_disk();
  return real(fd);
}

int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(id, at);
  const char *path = id == CLOCK_REALTIME ? getenv("HB_TEST_CLOCK") : NULL;
  FILE *file = path ? fopen(path, "re") : NULL;
  if (!file) return done;
  long wrong = 0;
  if (fscanf(file, "%ld", &wrong) == 1) at->tv_sec += wrong;
  fclose(file);
  return done;
}
