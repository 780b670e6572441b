// The sums and constants are those of ffmpeg's libavfilter/vf_ssim.c, which has them from x264:
// integers up to the last step, so that both agree to more than ffmpeg's six decimals.
#include "structural_similarity.hpp"

#include <utility>
#include <vector>

namespace vpxrc {
namespace {

constexpr int kBlock = 4;     // samples, of the sides of the blocks of a window
constexpr int kSamples = 64;  // of a window

// By the type of a sample: the integer that holds the sums, and the constants
// (0.01 * peak)^2 * 64 and (0.03 * peak)^2 * 64 * 63, rounded.
template <typename Sample>
struct Scale;
template <>
struct Scale<uint8_t> {
  using Int = int;
  static constexpr Int kC1 = 416, kC2 = 235963;
};
template <>
struct Scale<uint16_t> {  // 10 bits
  using Int = int64_t;
  static constexpr Int kC1 = 6698, kC2 = 3797644;
};

// Over the samples of a block or of a window: of both planes, of their squares, of the products.
template <typename Int>
struct Sums {
  Int plane, reference, squares, products;

  Sums operator+(const Sums &other) const {
    return {plane + other.plane, reference + other.reference, squares + other.squares,
            products + other.products};
  }
};

template <typename Sample>
auto block_sums(const Sample *plane, const Sample *reference, int stride) {
  Sums<typename Scale<Sample>::Int> sums{0, 0, 0, 0};
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

template <typename Sample>
float window_similarity(const Sums<typename Scale<Sample>::Int> &s) {
  using Int = typename Scale<Sample>::Int;
  constexpr Int kC1 = Scale<Sample>::kC1, kC2 = Scale<Sample>::kC2;
  const Int variances = s.squares * kSamples - s.plane * s.plane - s.reference * s.reference;
  const Int covariance = s.products * kSamples - s.plane * s.reference;
  return float(2 * s.plane * s.reference + kC1) * float(2 * covariance + kC2) /
         (float(s.plane * s.plane + s.reference * s.reference + kC1) * float(variances + kC2));
}

template <typename Sample>
double similarity(const Sample *plane, const Sample *reference, int width, int height) {
  using Row = std::vector<Sums<typename Scale<Sample>::Int>>;
  const int columns = width / kBlock, rows = height / kBlock;
  Row above(columns), below(columns);
  const auto sum_row = [&](int row, Row &sums) {
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
      total += window_similarity<Sample>(above[x - 1] + above[x] + below[x - 1] + below[x]);
  }
  return total / (double(rows - 1) * double(columns - 1));
}

}  // namespace

double structural_similarity(const uint8_t *plane, const uint8_t *reference, int width,
                             int height) {
  return similarity(plane, reference, width, height);
}

double structural_similarity(const uint16_t *plane, const uint16_t *reference, int width,
                             int height) {
  return similarity(plane, reference, width, height);
}

}  // namespace vpxrc
