// The native code under sanitizers: `make sanitize`. It walks every path of the C and C++ code.
#include <cstdio>

void test_dependency();
void test_network();
void test_search_tree();
void test_session(int bit_depth);

int main() {
  test_search_tree();
  test_network();
  test_session(8);
  test_dependency();
  std::puts("native tests passed");
  return 0;
}
