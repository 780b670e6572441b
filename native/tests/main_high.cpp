// Sessions of 10-bit video on the libvpx that is built for it, under sanitizers.
#include <cstdio>

void test_session(int bit_depth);

int main() {
  test_session(10);
  std::puts("native tests of 10 bits passed");
  return 0;
}
