// The arithmetic on 16x16 blocks that the temporal dependency model is made of, at several levels
// of vector instructions. All levels give the same integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vpxrc {

constexpr int kBlock = 16;
constexpr int kBlockSamples = kBlock * kBlock;

// The cost of a block's quantised coefficients.
struct Quantised {
  int bits;        // 4 + 2 floor(log2(level)) for each level above 0
  int distortion;  // squared error, in samples
  bool any;        // whether a level is above 0
};

using Convolve = void (*)(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out,
                          ptrdiff_t out_stride, const int16_t (*filter)[8], int x0_q4,
                          int x_step_q4, int y0_q4, int y_step_q4, int w, int h);

// Blocks of residuals and coefficients are [16][16], aligned to 32 bytes; predictions too.
struct BlockKernels {
  const char *level;
  void (*subtract)(const uint8_t *source, ptrdiff_t stride, const uint8_t *prediction,
                   int16_t *residual);
  int (*energy)(const int16_t *residual);  // sum of squares
  // Orthonormal 16x16 DCT times 8 in integers, the scale of VP9's quantiser steps, and its inverse.
  void (*forward)(const int16_t *residual, int16_t *coefficients);
  void (*inverse)(const int16_t *coefficients, int16_t *residual);
  Quantised (*quantise)(const int16_t *coefficients, int step, int16_t *dequantised);
  void (*add)(const uint8_t *prediction, const int16_t *residual, uint8_t *out, ptrdiff_t stride);
  // libvpx's own, which it picks for the processor itself; level "scalar" has its C versions.
  unsigned (*sad16)(const uint8_t *a, int a_stride, const uint8_t *b, int b_stride);
  unsigned (*sad32)(const uint8_t *a, int a_stride, const uint8_t *b, int b_stride);
  void (*sad16_of4)(const uint8_t *a, int a_stride, const uint8_t *const b[4], int b_stride,
                    uint32_t out[4]);
  void (*sad32_of4)(const uint8_t *a, int a_stride, const uint8_t *const b[4], int b_stride,
                    uint32_t out[4]);
  void (*hadamard)(const int16_t *residual, ptrdiff_t stride, int16_t *coefficients);
  int (*satd)(const int16_t *coefficients, int length);
  // Bilinear prediction at eighths of a sample against b; *sse is the sum of squared differences.
  uint32_t (*bilinear)(const uint8_t *a, int a_stride, int x_offset, int y_offset, const uint8_t *b,
                       int b_stride, uint32_t *sse);
  // 8-tap prediction, [x is fractional][y is fractional]: the ones for both expect both to be.
  Convolve convolve[2][2];
};

// Levels that this processor has, the fastest first; "scalar" is always there.
std::vector<std::string> kernel_levels();

// "best" or one of kernel_levels(); nullptr where the processor lacks it or there is no such level.
const BlockKernels *block_kernels(const std::string &level);

}  // namespace vpxrc
