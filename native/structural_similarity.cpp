// The sums and constants are those of ffmpeg's libavfilter/vf_ssim.c, which has them from x264:
// integers up to the last step, so that both agree to more than ffmpeg's six decimals.
#include "structural_similarity.hpp"

#include <utility>
#include <vector>

namespace vpxrc {
namespace {

constexpr int kBlock = 4;     // samples, of the sides of the blocks of a window
constexpr int kSamples = 64;  // of a window
constexpr int kC1 = 416;      // (0.01 * 255)^2 * 64, rounded
constexpr int kC2 = 235963;   // (0.03 * 255)^2 * 64 * 63, rounded

// Over the samples of a block or of a window: of both planes, of their squares, of the products.
struct Sums {
  int plane, reference, squares, products;
};

Sums operator+(const Sums &a, const Sums &b) {
  return {a.plane + b.plane, a.reference + b.reference, a.squares + b.squares,
          a.products + b.products};
}

Sums block_sums(const uint8_t *plane, const uint8_t *reference, int stride) {
  Sums sums{0, 0, 0, 0};
  for (int y = 0; y < kBlock; ++y) {
    for (int x = 0; x < kBlock; ++x) {
      const int a = plane[y * stride + x], b = reference[y * stride + x];
      sums.plane += a;
      sums.reference += b;
      sums.squares += a * a + b * b;
      sums.products += a * b;
    }
  }
  return sums;
}

float window_similarity(const Sums &s) {
  const int variances = s.squares * kSamples - s.plane * s.plane - s.reference * s.reference;
  const int covariance = s.products * kSamples - s.plane * s.reference;
  return float(2 * s.plane * s.reference + kC1) * float(2 * covariance + kC2) /
         (float(s.plane * s.plane + s.reference * s.reference + kC1) * float(variances + kC2));
}

}  // namespace

double structural_similarity(const uint8_t *plane, const uint8_t *reference, int width,
                             int height) {
  const int columns = width / kBlock, rows = height / kBlock;
  std::vector<Sums> above(columns), below(columns);
  const auto sum_row = [&](int row, std::vector<Sums> &sums) {
    const size_t start = size_t(row) * kBlock * width;
    for (int x = 0; x < columns; ++x)
      sums[x] = block_sums(plane + start + x * kBlock, reference + start + x * kBlock, width);
  };
  sum_row(0, below);
  double total = 0.0;
  for (int y = 1; y < rows; ++y) {
    std::swap(above, below);
    sum_row(y, below);
    for (int x = 1; x < columns; ++x)
      total += window_similarity(above[x - 1] + above[x] + below[x - 1] + below[x]);
  }
  return total / (double(rows - 1) * double(columns - 1));
}

}  // namespace vpxrc
