// The temporal dependency model under sanitizers.
#include <algorithm>
#include <string>
#include <vector>

#include "check.hpp"
#include "clip.hpp"
#include "temporal_dependency.hpp"

namespace {

// The model on odd sizes, at every level of vector instructions; Python's tests know the numbers.
void model_is_the_same_at_every_level(const Clip &clip) {
  const vpxrc::Source &source = clip.source;
  std::vector<vpxrc::DependencyFrame> frames;
  for (int n = 0; n < source.num_frames; ++n)
    frames.push_back(
        {source.frame(n), {n - 1, n > 2 ? 0 : -1, n > 3 ? n - 3 : -1}, 1 + n * 7, 1.0});
  for (const bool reconstructed : {false, true}) {
    const auto run = [&](const std::string &level) {
      return vpxrc::temporal_dependency(frames, source.width, source.height, reconstructed, 150,
                                        *vpxrc::block_kernels(level));
    };
    const vpxrc::Dependency scalar = run("scalar");
    // Something depends on something, but in a picture of one block.
    const auto &importances = scalar.frame_importance;
    CHECK(scalar.rows * scalar.cols == 1 ||
          *std::max_element(importances.begin(), importances.end()) > 1);
    for (const std::string &level : vpxrc::kernel_levels()) {
      const vpxrc::Dependency other = run(level);
      CHECK(other.mv == scalar.mv && other.rate == scalar.rate);
      CHECK(other.distortion == scalar.distortion && other.importance == scalar.importance);
    }
  }
  CHECK(vpxrc::block_kernels("none such") == nullptr);
}

}  // namespace

void test_dependency() {
  model_is_the_same_at_every_level(make_clip(97, 67, 34, 8));
  model_is_the_same_at_every_level(make_clip(16, 16, 3, 8));
}
