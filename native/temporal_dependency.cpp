#include "temporal_dependency.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "vp9/common/vp9_filter.h"

#include "rate_control_seam.h"

namespace vpxrc {
namespace {

constexpr int kLarge = 32;    // blocks of the first motion search
constexpr int kOutside = 16;  // samples that a predicted block may lie outside the picture
// Room for kOutside, one more sample of the bilinear filter and three or four of the 8-tap one.
constexpr int kBorder = 32;
constexpr int kReferences = 3;

struct Mv {
  int row = 0;
  int col = 0;
  bool operator==(const Mv &other) const { return row == other.row && col == other.col; }
};

constexpr Mv kNeighbours[4] = {{-1, 0}, {0, -1}, {0, 1}, {1, 0}};

struct Geometry {
  int rows, cols;     // in blocks
  int height, width;  // in samples, whole blocks
  int stride;

  Geometry(int picture_width, int picture_height)
      : rows((picture_height + kBlock - 1) / kBlock),
        cols((picture_width + kBlock - 1) / kBlock),
        height(rows * kBlock),
        width(cols * kBlock),
        stride((width + 2 * kBorder + kBorder - 1) / kBorder * kBorder) {}
};

// A luma plane of whole blocks with its edges repeated around it; rows of blocks are aligned to 32.
class Plane {
 public:
  explicit Plane(const Geometry &geometry)
      : geometry_(&geometry),
        memory_(static_cast<uint8_t *>(std::aligned_alloc(
                    kBorder, size_t(geometry.stride) * (geometry.height + 2 * kBorder))),
                &std::free) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }

  int stride() const { return geometry_->stride; }
  uint8_t *at(int y, int x) {
    return memory_.get() + ptrdiff_t(y + kBorder) * stride() + x + kBorder;
  }
  const uint8_t *at(int y, int x) const { return const_cast<Plane *>(this)->at(y, x); }

  void copy(const uint8_t *picture, int width, int height) {
    for (int y = 0; y < height; ++y) std::copy_n(picture + size_t(y) * width, width, at(y, 0));
    extend(width, height);
  }

  // Repeats the edges of the picture in the upper left corner everywhere around it.
  void extend(int width, int height) {
    const int right = stride() - kBorder - width;
    for (int y = 0; y < height; ++y) {
      std::memset(at(y, -kBorder), *at(y, 0), kBorder);
      std::memset(at(y, width), *at(y, width - 1), size_t(right));
    }
    for (int y = 1; y <= kBorder; ++y)
      std::memcpy(at(-y, -kBorder), at(0, -kBorder), size_t(stride()));
    for (int y = height; y < geometry_->height + kBorder; ++y)
      std::memcpy(at(y, -kBorder), at(height - 1, -kBorder), size_t(stride()));
  }

 private:
  const Geometry *geometry_;
  std::unique_ptr<uint8_t, decltype(&std::free)> memory_;
};

double lambda_of(int q_index) {
  const double step = vpxrc_ac_quantizer(q_index, 8);
  // libvpx's rdmult over 2^7, and over 16 for the unit of its distortions
  return 4.3 * step * step / 2048;
}

// Motion search of one block of a frame in another frame, on the original samples.
template <int Size>
struct Search {
  const Geometry &geometry;
  const BlockKernels &kernels;
  const Plane &source;
  const Plane &reference;
  int y, x;
  Mv best;
  int cost = std::numeric_limits<int>::max();

  bool allowed(Mv mv) const {
    return y + mv.row >= -kOutside && y + mv.row + Size <= geometry.height + kOutside &&
           x + mv.col >= -kOutside && x + mv.col + Size <= geometry.width + kOutside;
  }

  // Absolute differences plus a small cost of the vector, so that flat areas do not wander.
  int total(unsigned sad, Mv mv) const {
    return int(sad) + Size / 8 * (std::abs(mv.row) + std::abs(mv.col));
  }

  void try_one(Mv mv) {
    if (!allowed(mv) || (cost != std::numeric_limits<int>::max() && mv == best)) return;
    const uint8_t *const there = reference.at(y + mv.row, x + mv.col);
    const unsigned sad = (Size == kLarge ? kernels.sad32 : kernels.sad16)(
        source.at(y, x), source.stride(), there, reference.stride());
    take(total(sad, mv), mv);
  }

  void take(int candidate_cost, Mv mv) {
    if (candidate_cost < cost) {
      cost = candidate_cost;
      best = mv;
    }
  }

  void refine(int step) {
    for (int round = 0; round < 4; ++round) {
      const Mv centre = best;
      const uint8_t *there[4];
      Mv mvs[4];
      bool usable[4];
      for (int i = 0; i < 4; ++i) {
        mvs[i] = {centre.row + step * kNeighbours[i].row, centre.col + step * kNeighbours[i].col};
        usable[i] = allowed(mvs[i]);
        const Mv mv = usable[i] ? mvs[i] : centre;
        there[i] = reference.at(y + mv.row, x + mv.col);
      }
      uint32_t sads[4];
      (Size == kLarge ? kernels.sad32_of4 : kernels.sad16_of4)(source.at(y, x), source.stride(),
                                                               there, reference.stride(), sads);
      for (int i = 0; i < 4; ++i)
        if (usable[i]) take(total(sads[i], mvs[i]), mvs[i]);
      if (best == centre) return;
    }
  }
};

struct Found {
  Mv mv;
  int cost;
};

// The best whole-sample vector and its cost per 16x16 block, [rows][cols].
std::vector<Found> search_frame(const Geometry &geometry, const BlockKernels &kernels,
                                const Plane &source, const Plane &reference) {
  const int large_rows = (geometry.rows + 1) / 2, large_cols = (geometry.cols + 1) / 2;
  std::vector<Mv> large(size_t(large_rows) * large_cols);
  for (int r = 0; r < large_rows; ++r) {
    for (int c = 0; c < large_cols; ++c) {
      Mv *const here = &large[size_t(r) * large_cols + c];
      Search<kLarge> search{geometry, kernels, source, reference, r * kLarge, c * kLarge, {}};
      search.try_one({});
      if (c > 0) search.try_one(here[-1]);
      if (r > 0) search.try_one(here[-large_cols]);
      if (r > 0 && c + 1 < large_cols) search.try_one(here[1 - large_cols]);
      for (int step = 16; step >= 1; step /= 2) search.refine(step);
      *here = search.best;
    }
  }
  std::vector<Found> found(size_t(geometry.rows) * geometry.cols);
  for (int r = 0; r < geometry.rows; ++r) {
    for (int c = 0; c < geometry.cols; ++c) {
      Found *const here = &found[size_t(r) * geometry.cols + c];
      Search<kBlock> search{geometry, kernels, source, reference, r * kBlock, c * kBlock, {}};
      search.try_one(large[size_t(r / 2) * large_cols + c / 2]);
      search.try_one({});
      if (c > 0) search.try_one(here[-1].mv);
      if (r > 0) search.try_one(here[-geometry.cols].mv);
      for (int step = 2; step >= 1; step /= 2) search.refine(step);
      *here = {search.best, search.cost};
    }
  }
  return found;
}

enum IntraMode { kDc, kVertical, kHorizontal };

void predict_intra(const Plane &plane, IntraMode mode, int y, int x, uint8_t *out) {
  const uint8_t *const above = plane.at(y - 1, x);
  const int stride = plane.stride();
  const uint8_t *const left = plane.at(y, x - 1);
  if (mode == kDc) {
    int sum = 0;
    for (int i = 0; i < kBlock; ++i) sum += (y > 0 ? above[i] : 0) + (x > 0 ? left[i * stride] : 0);
    const int value = y > 0 && x > 0 ? (sum + 16) >> 5 : y > 0 || x > 0 ? (sum + 8) >> 4 : 128;
    std::memset(out, value, kBlockSamples);
    return;
  }
  for (int r = 0; r < kBlock; ++r, out += kBlock) {
    if (mode == kHorizontal)
      std::memset(out, x > 0 ? left[r * stride] : 129, kBlock);
    else if (y > 0)
      std::memcpy(out, above, kBlock);
    else
      std::memset(out, 127, kBlock);
  }
}

// mv in quarter samples
void predict_inter(const Plane &plane, const BlockKernels &kernels, int y, int x, Mv mv,
                   uint8_t *out) {
  const int x_phase = (mv.col & 3) * 4, y_phase = (mv.row & 3) * 4;  // sixteenths
  kernels.convolve[x_phase != 0][y_phase != 0](
      plane.at(y + (mv.row >> 2), x + (mv.col >> 2)), plane.stride(), out, kBlock,
      vp9_filter_kernels[EIGHTTAP], x_phase, 16, y_phase, 16, kBlock, kBlock);
}

struct Coded {
  int bits;
  int distortion;
};

class Model {
 public:
  Model(const std::vector<DependencyFrame> &frames, int width, int height, bool reconstructed,
        const BlockKernels &kernels)
      : frames_(frames),
        geometry_(width, height),
        reconstructed_(reconstructed),
        kernels_(kernels) {
    const size_t blocks = size_t(geometry_.rows) * geometry_.cols;
    const size_t total = blocks * frames.size();
    out_.frames = int(frames.size());
    out_.rows = geometry_.rows;
    out_.cols = geometry_.cols;
    for (auto *field : {&out_.intra_cost, &out_.inter_cost, &out_.source_rate,
                        &out_.source_distortion, &out_.rate, &out_.distortion})
      field->assign(total, 0);
    out_.reference.assign(total, -1);
    out_.mv.assign(2 * total, 0);
    for (auto *field : {&out_.dep_rate, &out_.dep_distortion, &out_.importance})
      field->assign(total, 0.0);
    out_.frame_importance.assign(frames.size(), 1.0);
    for (const DependencyFrame &frame : frames) {
      sources_.emplace_back(geometry_).copy(frame.luma, width, height);
      if (reconstructed) reconstructions_.emplace_back(geometry_);
    }
  }

  Dependency run(int lambda_q_index) {
    for (int n = 0; n < out_.frames; ++n) analyse_frame(n);
    for (int n = out_.frames - 1; n > 0; --n) propagate(n);
    finish(lambda_of(lambda_q_index));
    return std::move(out_);
  }

 private:
  size_t index(int frame, int row, int col) const {
    return (size_t(frame) * geometry_.rows + row) * geometry_.cols + col;
  }

  void analyse_frame(int n) {
    const DependencyFrame &frame = frames_[size_t(n)];
    std::vector<Found> found[kReferences];
    for (int slot = 0; slot < kReferences; ++slot) {
      const int *const all = frame.references;
      if (all[slot] >= 0 && std::find(all, all + slot, all[slot]) == all + slot)
        found[slot] =
            search_frame(geometry_, kernels_, sources_[size_t(n)], sources_[size_t(all[slot])]);
    }
    for (int row = 0; row < geometry_.rows; ++row)
      for (int col = 0; col < geometry_.cols; ++col) analyse_block(n, row, col, found);
    if (reconstructed_) reconstructions_[size_t(n)].extend(geometry_.width, geometry_.height);
  }

  int satd(const uint8_t *source, int stride, const uint8_t *prediction) {
    kernels_.subtract(source, stride, prediction, residual_);
    kernels_.hadamard(residual_, kBlock, coefficients_);
    return kernels_.satd(coefficients_, kBlockSamples);
  }

  void analyse_block(int n, int row, int col, const std::vector<Found> *found) {
    const DependencyFrame &frame = frames_[size_t(n)];
    const Plane &source = sources_[size_t(n)];
    const int y = row * kBlock, x = col * kBlock;
    const size_t i = index(n, row, col);
    const uint8_t *const samples = source.at(y, x);

    int intra_cost = std::numeric_limits<int>::max();
    IntraMode intra_mode = kDc;
    for (const IntraMode mode : {kDc, kVertical, kHorizontal}) {
      predict_intra(source, mode, y, x, prediction_);
      const int cost = satd(samples, source.stride(), prediction_);
      if (cost < intra_cost) {
        intra_cost = cost;
        intra_mode = mode;
      }
    }

    int slot = -1;
    const size_t block = size_t(row) * geometry_.cols + col;
    for (int s = 0; s < kReferences; ++s)
      if (!found[s].empty() && (slot < 0 || found[s][block].cost < found[slot][block].cost))
        slot = s;
    int inter_cost = intra_cost;
    Mv mv;
    if (slot >= 0) {
      const Plane &reference = sources_[size_t(frame.references[slot])];
      mv = refine(source, reference, y, x, found[slot][block].mv);
      predict_inter(reference, kernels_, y, x, mv, prediction_);
      inter_cost = satd(samples, source.stride(), prediction_);
    }
    const bool is_inter = inter_cost < intra_cost;
    out_.intra_cost[i] = std::max(1, intra_cost);
    out_.inter_cost[i] = std::max(1, std::min(intra_cost, inter_cost));
    if (is_inter) {
      out_.reference[i] = int8_t(frame.references[slot]);
      out_.mv[2 * i] = mv.row;
      out_.mv[2 * i + 1] = mv.col;
    }
    if (!reconstructed_) return;

    Plane &reconstruction = reconstructions_[size_t(n)];
    uint8_t *const out = reconstruction.at(y, x);
    Coded original, real;
    if (is_inter) {
      kernels_.subtract(samples, source.stride(), prediction_, residual_);
      original = code(frame.q_index);
      predict_inter(reconstructions_[size_t(out_.reference[i])], kernels_, y, x, mv, prediction_);
    } else {
      predict_intra(reconstruction, intra_mode, y, x, prediction_);
    }
    kernels_.subtract(samples, source.stride(), prediction_, residual_);
    real = code(frame.q_index);
    if (coded_)
      kernels_.inverse(dequantised_, residual_);
    else
      std::memset(residual_, 0, sizeof(residual_));
    kernels_.add(prediction_, residual_, out, reconstruction.stride());
    if (!is_inter) original = real;
    out_.source_rate[i] = original.bits;
    out_.source_distortion[i] = std::max(1, original.distortion);
    out_.rate[i] = std::max(original.bits, real.bits);
    out_.distortion[i] = std::max({1, original.distortion, real.distortion});
  }

  // The best vector in quarter samples near a whole one, by bilinear prediction as libvpx searches.
  Mv refine(const Plane &source, const Plane &reference, int y, int x, Mv whole) {
    Mv best{4 * whole.row, 4 * whole.col};
    uint32_t least = difference(source, reference, y, x, best);
    for (int step = 2; step >= 1; --step) {
      const Mv centre = best;
      for (const Mv &side : kNeighbours) {
        const Mv mv{centre.row + step * side.row, centre.col + step * side.col};
        const int top = y + (mv.row >> 2), left = x + (mv.col >> 2);
        if (top < -kOutside || top + kBlock + 1 > geometry_.height + kOutside || left < -kOutside ||
            left + kBlock + 1 > geometry_.width + kOutside)
          continue;
        const uint32_t now = difference(source, reference, y, x, mv);
        if (now < least) {
          least = now;
          best = mv;
        }
      }
    }
    return best;
  }

  uint32_t difference(const Plane &source, const Plane &reference, int y, int x, Mv mv) {
    uint32_t sse;
    kernels_.bilinear(reference.at(y + (mv.row >> 2), x + (mv.col >> 2)), reference.stride(),
                      (mv.col & 3) * 2, (mv.row & 3) * 2, source.at(y, x), source.stride(), &sse);
    return sse;
  }

  // Rate and distortion of residual_. Leaves its coded coefficients in dequantised_, if coded_.
  Coded code(int q_index) {
    const int step = vpxrc_ac_quantizer(q_index, 8);
    const int energy = kernels_.energy(residual_);
    const Coded skipped{1, energy};
    coded_ = false;
    // No coefficient is larger than 8 times the residual's norm plus a little for rounding.
    const double room = step - ((3 * step) >> 3) - 2;
    if (room > 0 && 67.5 * energy < room * room) return skipped;
    kernels_.forward(residual_, coefficients_);
    const Quantised quantised = kernels_.quantise(coefficients_, step, dequantised_);
    const double lambda = lambda_of(q_index);
    const Coded coded{1 + quantised.bits, quantised.distortion};
    coded_ = quantised.any &&
             coded.distortion + lambda * coded.bits < skipped.distortion + lambda * skipped.bits;
    return coded_ ? coded : skipped;
  }

  void propagate(int n) {
    const double weight = frames_[size_t(n)].weight;
    for (int row = 0; row < geometry_.rows; ++row) {
      for (int col = 0; col < geometry_.cols; ++col) {
        const size_t i = index(n, row, col);
        if (out_.reference[i] < 0) continue;
        double rate = 0, distortion;
        if (reconstructed_) {
          const double real = out_.distortion[i], original = out_.source_distortion[i];
          const double share = (real - original) / real, kept = original / real;
          distortion = weight * (real - original) + share * out_.dep_distortion[i];
          rate =
              weight * (out_.rate[i] - out_.source_rate[i]) -
              kBlockSamples / 2.0 *
                  std::log2(kept + (1 - kept) * std::exp2(-2 * out_.dep_rate[i] / kBlockSamples));
        } else {
          distortion = (weight * out_.intra_cost[i] + out_.dep_distortion[i]) *
                       (1 - double(out_.inter_cost[i]) / out_.intra_cost[i]);
        }
        spread(i, row, col, rate, distortion);
      }
    }
  }

  // Adds to the blocks that the reference of block i overlaps, in proportion to area.
  void spread(size_t i, int row, int col, double rate, double distortion) {
    const int reference = out_.reference[i];
    const int y = row * kBlock + ((out_.mv[2 * i] + 2) >> 2);
    const int x = col * kBlock + ((out_.mv[2 * i + 1] + 2) >> 2);
    const int top = y >> 4, left = x >> 4;
    static_assert(kBlock == 1 << 4, "the shifts above");
    for (int r = top; r <= top + 1; ++r) {
      for (int c = left; c <= left + 1; ++c) {
        if (r < 0 || r >= geometry_.rows || c < 0 || c >= geometry_.cols) continue;
        const int area = (kBlock - std::abs(y - r * kBlock)) * (kBlock - std::abs(x - c * kBlock));
        const size_t there = index(reference, r, c);
        out_.dep_rate[there] += rate * area / kBlockSamples;
        out_.dep_distortion[there] += distortion * area / kBlockSamples;
      }
    }
  }

  void finish(double lambda) {
    const std::vector<int32_t> &own = reconstructed_ ? out_.distortion : out_.intra_cost;
    const size_t blocks = size_t(geometry_.rows) * geometry_.cols;
    for (size_t n = 0; n < size_t(out_.frames); ++n) {
      double own_sum = 0, dep_sum = 0;
      for (size_t i = n * blocks; i < (n + 1) * blocks; ++i) {
        const double dep = out_.dep_distortion[i] + lambda * out_.dep_rate[i];
        out_.importance[i] = 1 + dep / own[i];
        own_sum += own[i];
        dep_sum += dep;
      }
      out_.frame_importance[n] = 1 + dep_sum / own_sum;
    }
  }

  const std::vector<DependencyFrame> &frames_;
  const Geometry geometry_;
  const bool reconstructed_;
  const BlockKernels &kernels_;
  Dependency out_;
  std::vector<Plane> sources_;
  std::vector<Plane> reconstructions_;
  bool coded_ = false;
  alignas(32) uint8_t prediction_[kBlockSamples];
  alignas(32) int16_t residual_[kBlockSamples];
  alignas(32) int16_t coefficients_[kBlockSamples];
  alignas(32) int16_t dequantised_[kBlockSamples];
};

}  // namespace

Dependency temporal_dependency(const std::vector<DependencyFrame> &frames, int width, int height,
                               bool reconstructed, int lambda_q_index,
                               const BlockKernels &kernels) {
  return Model(frames, width, height, reconstructed, kernels).run(lambda_q_index);
}

}  // namespace vpxrc
