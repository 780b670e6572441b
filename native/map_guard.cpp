#include "map_guard.hpp"

#include <fcntl.h>
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
struct sigaction before{};
const auto page_size = uintptr_t(sysconf(_SC_PAGESIZE));

Watched *find(uintptr_t address) {
  for (Watched *one = first.load(); one != nullptr; one = one->next)
    if (one->holds(address)) return one;
  return nullptr;
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
  if ((before.sa_flags & SA_SIGINFO) != 0)
    before.sa_sigaction(signal, info, context);
  else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
    before.sa_handler(signal);
  else
    sigaction(signal, &before, nullptr);  // the read is tried again, and ends the process
}

// Again for every map, since another library (faulthandler, say) may have put itself in front.
void install() {
  struct sigaction now{};
  if (sigaction(SIGBUS, nullptr, &now) != 0) return;
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_missing_page) return;
  struct sigaction ours{};
  ours.sa_sigaction = on_missing_page;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&ours.sa_mask);
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
