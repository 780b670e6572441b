// Loaded before a program (LD_PRELOAD): the n-th call of a kind fails once it is armed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kWrite, kSync, kRename, kAllocation, kProcess, kKinds };
static const int kErrors[kKinds] = {ENOSPC, EIO, EIO, ENOMEM, EAGAIN};
// Smaller allocations are not counted: there are too many of them.
static const size_t kLarge = 64 << 10;

static atomic_int armed = -1;  // the kind that is counted
static atomic_long countdown, calls;

void faults_arm(int kind, long n) {
  calls = 0;
  countdown = n;
  armed = kind;
}

long faults_disarm(void) {
  armed = -1;
  return calls;
}

static int fails(int kind) {
  if (armed != kind) return 0;
  ++calls;
  if (--countdown != 0) return 0;
  errno = kErrors[kind];
  return 1;
}

static int is_file(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
  static __typeof__(&write) real;
  if (real == NULL) real = REAL(write);
  return armed == kWrite && is_file(fd) && fails(kWrite) ? -1 : real(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  return armed == kWrite && is_file(fd) && fails(kWrite) ? -1 : REAL(pwrite64)(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  return armed == kWrite && is_file(fd) && fails(kWrite) ? -1 : REAL(writev)(fd, parts, count);
}

int ftruncate64(int fd, off64_t size) {
  return armed == kWrite && is_file(fd) && fails(kWrite) ? -1 : REAL(ftruncate64)(fd, size);
}

int fsync(int fd) { return fails(kSync) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(kSync) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) {
  return fails(kRename) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  return fails(kRename) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static int is_refused(size_t size) { return size >= kLarge && fails(kAllocation); }

void *malloc(size_t size) { return is_refused(size) ? NULL : __libc_malloc(size); }

void *calloc(size_t number, size_t size) {
  return (size == 0 || number <= SIZE_MAX / size) && is_refused(number * size)
             ? NULL
             : __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) { return is_refused(size) ? NULL : __libc_realloc(old, size); }

void *aligned_alloc(size_t alignment, size_t size) {
  return is_refused(size) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
  void *const got = is_refused(size) ? NULL : __libc_memalign(alignment, size);
  if (got == NULL) return ENOMEM;
  *out = got;
  return 0;
}

pid_t fork(void) { return fails(kProcess) ? -1 : REAL(fork)(); }
// A wrapper must not return into a frame that the child has left: fork takes vfork's place.
pid_t vfork(void) { return fails(kProcess) ? -1 : REAL(fork)(); }

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument) {
  static __typeof__(&pthread_create) real;
  if (real == NULL) real = REAL(pthread_create);
  return fails(kProcess) ? EAGAIN : real(thread, attributes, run, argument);
}
