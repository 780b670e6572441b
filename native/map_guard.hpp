// Memory maps of files that another program may cut while they are read.
#pragma once

#include <cstddef>

namespace vpxrc {

// Beyond the new end of a file that was cut, reading its map raises SIGBUS, which ends the process.
// In a watched map a page of zeros takes the place of the missing one instead, and the map counts
// as cut; systemd does the same (src/basic/sigbus.c). SIGBUS elsewhere goes to the handler before.
// A handler that another library installs stands in front until the next map is watched.

// Watches the `size` bytes at `begin`, which are a file from its beginning, and returns a number
// for forget_map(). The descriptor is duplicated. Throws std::system_error where that fails.
int watch_map(const void *begin, size_t size, int descriptor);

// Must come before the memory is unmapped.
void forget_map(int number);

// Whether the file of the watched map that holds this address is, or was when it was read, shorter
// than the map. The rest of a page reads as zeros without a signal, so the length is looked at too.
bool is_cut(const void *address);

}  // namespace vpxrc
