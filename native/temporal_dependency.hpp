// The temporal dependency model of a group of pictures (arXiv 2108.11586).
#pragma once

#include <cstdint>
#include <vector>

#include "block_kernels.hpp"

namespace vpxrc {

// Luma of one frame in the order of coding; frames reference earlier ones by position.
struct DependencyFrame {
  const uint8_t *luma = nullptr;  // [height][width]
  int references[3] = {-1, -1, -1};
  int q_index = 0;    // 1..255
  double weight = 1;  // how many frames it stands for
};

// Per 16x16 block, as [frames][rows][cols].
struct Dependency {
  int frames = 0;
  int rows = 0;
  int cols = 0;
  std::vector<int32_t> intra_cost;         // SATD
  std::vector<int32_t> inter_cost;         // SATD; the intra cost where that is lower
  std::vector<int8_t> reference;           // position, -1 = intra
  std::vector<int32_t> mv;                 // row and column in quarter samples: [..][2]
  std::vector<int32_t> source_rate;        // bits, predicted from the original reference
  std::vector<int32_t> source_distortion;  // squared error
  std::vector<int32_t> rate;               // the same, predicted from the model's reconstruction
  std::vector<int32_t> distortion;
  std::vector<double> dep_rate;  // what later frames pay for this block's distortion
  std::vector<double> dep_distortion;
  std::vector<double> importance;        // 1 + what is propagated over its own distortion
  std::vector<double> frame_importance;  // [frames]
};

// The caller has checked: at least 16x16 samples, two frames, references to earlier positions.
// The model is the paper's with `reconstructed`, else libvpx's, which sees original samples alone.
// lambda_q_index has the lambda that turns bits into squared error.
Dependency temporal_dependency(const std::vector<DependencyFrame> &frames, int width, int height,
                               bool reconstructed, int lambda_q_index, const BlockKernels &kernels);

}  // namespace vpxrc
