#include "map_guard.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <system_error>

namespace vpxrc {
namespace {

// Never freed, because the handler walks the list without a lock. Unused where `size` is 0.
struct Watched {
  int number = 0;
  int descriptor = -1;
  std::atomic<uintptr_t> begin{0};
  std::atomic<size_t> size{0};
  std::atomic<bool> cut{false};
  Watched *next = nullptr;

  bool holds(uintptr_t address) const {
    return address - begin.load() < size.load();  // unsigned: false below begin too
  }
};

std::mutex &changing() {
  static std::mutex &mutex = *new std::mutex;
  return mutex;
}

std::atomic<Watched *> first{nullptr};
// The handlers that ours took the place of: at its last installation, and at its first.
struct sigaction before{}, oldest{};
std::atomic<uintptr_t> passing{0};       // the thread that is in pass_on()
std::atomic<uintptr_t> last_address{0};  // of the last read that pass_on() was given
std::atomic<int> times_in_turn{0};       // that it was given this address
constexpr int most_times_in_turn = 16;
const auto page_size = uintptr_t(sysconf(_SC_PAGESIZE));

Watched *find(uintptr_t address) {
  for (Watched *one = first.load(); one != nullptr; one = one->next)
    if (one->holds(address)) return one;
  return nullptr;
}

// Hands over a signal that concerns no watched map.
//
// faulthandler raises the signal again for the handler that it found. Where it was enabled after
// our first installation and before our last one, that is ours again, and the oldest has its turn.
// A handler that returns without a change, as faulthandler's does once it is disabled, would have
// the same read fail for ever: after some times in turn the signal ends the process.
void pass_on(int signal, siginfo_t *info, void *context) {
  const auto thread = uintptr_t(pthread_self());
  const struct sigaction &next = passing.exchange(thread) == thread ? oldest : before;
  const bool is_sent = info->si_code <= 0;  // by kill() or raise(), not for a read
  const auto address = uintptr_t(info->si_addr);
  if (is_sent || last_address.exchange(address) != address) times_in_turn = 0;
  if (times_in_turn++ >= most_times_in_turn) {
    struct sigaction end{};
    end.sa_handler = SIG_DFL;
    sigaction(signal, &end, nullptr);
  } else if ((next.sa_flags & SA_SIGINFO) != 0) {
    next.sa_sigaction(signal, info, context);
  } else if (next.sa_handler != SIG_DFL && next.sa_handler != SIG_IGN) {
    next.sa_handler(signal);
  } else if (next.sa_handler == SIG_DFL || !is_sent) {
    sigaction(signal, &next, nullptr);
    if (is_sent) raise(signal);  // a read is tried again by itself; both end the process
  }
  passing = 0;
}

void on_missing_page(int signal, siginfo_t *info, void *context) {
  const auto address = uintptr_t(info->si_addr);
  Watched *const map = info->si_code == BUS_ADRERR ? find(address) : nullptr;
  if (map != nullptr) {
    void *const page = reinterpret_cast<void *>(address / page_size * page_size);
    if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) {
      map->cut = true;
      return;
    }
  }
  pass_on(signal, info, context);
}

// Again for every map, since another library (faulthandler, say) may have put itself in front.
void install() {
  struct sigaction now{};
  if (sigaction(SIGBUS, nullptr, &now) != 0) return;
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_missing_page) return;
  struct sigaction ours{};
  ours.sa_sigaction = on_missing_page;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER;  // see pass_on()
  sigemptyset(&ours.sa_mask);
  static const struct sigaction at_first = now;
  oldest = at_first;
  before = now;
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

int watch_map(const void *begin, size_t size, int descriptor) {
  const int own = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (own < 0) throw std::system_error(errno, std::generic_category(), "dup");
  const std::lock_guard<std::mutex> lock(changing());
  install();
  Watched *map = first.load();
  int count = 0;
  for (; map != nullptr && map->size.load() != 0; map = map->next) ++count;
  if (map == nullptr) {
    map = new Watched;
    map->number = count;
    map->next = first.load();
    first = map;
  }
  map->descriptor = own;
  map->cut = false;
  map->begin = uintptr_t(begin);
  map->size = size;
  return map->number;
}

void forget_map(int number) {
  const std::lock_guard<std::mutex> lock(changing());
  for (Watched *one = first.load(); one != nullptr; one = one->next)
    if (one->number == number && one->size.exchange(0) != 0) close(one->descriptor);
}

bool is_cut(const void *address) {
  const std::lock_guard<std::mutex> lock(changing());
  const Watched *const map = find(uintptr_t(address));
  if (map == nullptr) return false;
  struct stat now{};
  return map->cut.load() || (fstat(map->descriptor, &now) == 0 && size_t(now.st_size) < map->size);
}

}  // namespace vpxrc
