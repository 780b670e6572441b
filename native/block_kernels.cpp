#include "block_kernels.hpp"

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "./vpx_dsp_rtcd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define VPXRC_X86 1
#endif

namespace vpxrc {
namespace {

// A 16x16 matrix as its rows, and as pairs of rows side by side, which multiply-add takes.
struct Matrix {
  alignas(32) int16_t rows[kBlock][kBlock];
  alignas(32) int16_t pairs[kBlock / 2][kBlock][2];  // [p][k] = rows[2p][k], rows[2p + 1][k]
};

struct Transform {
  Matrix dct;  // dct.rows[k][n]: basis k at sample n, times 256
  Matrix transposed;

  Transform() {
    const double pi = std::acos(-1.0);
    for (int k = 0; k < kBlock; ++k)
      for (int n = 0; n < kBlock; ++n) {
        const double value =
            k == 0 ? 64.0 : 64.0 * std::sqrt(2.0) * std::cos((2 * n + 1) * k * pi / 32.0);
        dct.rows[k][n] = transposed.rows[n][k] = int16_t(std::lround(value));
      }
    for (Matrix *m : {&dct, &transposed})
      for (int p = 0; p < kBlock / 2; ++p)
        for (int k = 0; k < kBlock; ++k)
          for (int i = 0; i < 2; ++i) m->pairs[p][k][i] = m->rows[2 * p + i][k];
  }
};

const Transform kTransform;

int16_t saturate(int value) {
  return int16_t(value < -32768 ? -32768 : value > 32767 ? 32767 : value);
}

// Bodies that the compiler vectorises itself, with the instructions that the function around them
// may use.

#define VPXRC_INLINE inline __attribute__((always_inline))

VPXRC_INLINE void subtract_body(const uint8_t *source, ptrdiff_t stride, const uint8_t *prediction,
                                int16_t *residual) {
  for (int y = 0; y < kBlock; ++y, source += stride, prediction += kBlock, residual += kBlock)
    for (int x = 0; x < kBlock; ++x) residual[x] = int16_t(source[x] - prediction[x]);
}

VPXRC_INLINE int energy_body(const int16_t *residual) {
  int sum = 0;
  for (int i = 0; i < kBlockSamples; ++i) sum += residual[i] * residual[i];
  return sum;
}

VPXRC_INLINE void add_body(const uint8_t *prediction, const int16_t *residual, uint8_t *out,
                           ptrdiff_t stride) {
  for (int y = 0; y < kBlock; ++y, prediction += kBlock, residual += kBlock, out += stride)
    for (int x = 0; x < kBlock; ++x) {
      const int value = prediction[x] + residual[x];
      out[x] = uint8_t(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

// Floats below 2^24 hold these integers exactly, and the product is rounded alike everywhere.
VPXRC_INLINE Quantised quantise_body(const int16_t *coefficients, int step, int16_t *dequantised) {
  const int offset = (3 * step) >> 3;
  const float inverse = 1.0f / float(step);
  alignas(32) int levels[kBlockSamples];
  int any = 0, error = 0;
  for (int i = 0; i < kBlockSamples; ++i) {
    const int value = coefficients[i], sign = value >> 31;
    const int level = int(float(((value ^ sign) - sign) + offset) * inverse);
    const int size = level * step < 32767 ? level * step : 32767;
    const int rounded = (size ^ sign) - sign;
    levels[i] = level;
    any |= level;
    error += (value - rounded) * (value - rounded);  // each at most (5/8 step)^2: the sum fits
    dequantised[i] = int16_t(rounded);
  }
  if (any == 0) return {0, error >> 6, false};
  int bits = 0;
  for (int i = 0; i < kBlockSamples; ++i) {
    // floor(log2(level)) is the exponent of the float; that of level 0 is negative
    const int exponent = (__builtin_bit_cast(int, float(levels[i])) >> 23) - 127;
    const int cost = 4 + 2 * exponent;
    bits += cost > 0 ? cost : 0;
  }
  return {bits, error >> 6, true};
}

// Scalar passes: out = (in * m + round) >> shift, and out = (m * in + round) >> shift.

void rows_scalar(const int16_t *in, const Matrix &m, int round, int shift, int16_t *out) {
  for (int y = 0; y < kBlock; ++y)
    for (int k = 0; k < kBlock; ++k) {
      int sum = round;
      for (int n = 0; n < kBlock; ++n) sum += in[y * kBlock + n] * m.rows[n][k];
      out[y * kBlock + k] = saturate(sum >> shift);
    }
}

void columns_scalar(const int16_t *in, const Matrix &m, int round, int shift, int16_t *out) {
  for (int k = 0; k < kBlock; ++k)
    for (int x = 0; x < kBlock; ++x) {
      int sum = round;
      for (int y = 0; y < kBlock; ++y) sum += m.rows[k][y] * in[y * kBlock + x];
      out[k * kBlock + x] = saturate(sum >> shift);
    }
}

using Pass = void (*)(const int16_t *, const Matrix &, int, int, int16_t *);

template <Pass rows, Pass columns>
void forward(const int16_t *residual, int16_t *coefficients) {
  alignas(32) int16_t half[kBlockSamples];
  rows(residual, kTransform.transposed, 4, 3, half);
  columns(half, kTransform.dct, 512, 10, coefficients);
}

template <Pass rows, Pass columns>
void inverse(const int16_t *coefficients, int16_t *residual) {
  alignas(32) int16_t half[kBlockSamples];
  columns(coefficients, kTransform.transposed, 64, 7, half);
  rows(half, kTransform.dct, 2048, 12, residual);
}

void subtract_scalar(const uint8_t *s, ptrdiff_t stride, const uint8_t *p, int16_t *r) {
  subtract_body(s, stride, p, r);
}
int energy_scalar(const int16_t *r) { return energy_body(r); }
void add_scalar(const uint8_t *p, const int16_t *r, uint8_t *out, ptrdiff_t stride) {
  add_body(p, r, out, stride);
}
Quantised quantise_scalar(const int16_t *c, int step, int16_t *d) {
  return quantise_body(c, step, d);
}

#ifdef VPXRC_X86

int pair_at(const int16_t *values) {
  int both;
  std::memcpy(&both, values, sizeof(both));
  return both;
}

#define VPXRC_SSE4 __attribute__((target("sse4.1")))
#define VPXRC_AVX2 __attribute__((target("avx2")))

VPXRC_SSE4 void rows_sse4(const int16_t *in, const Matrix &m, int round, int shift, int16_t *out) {
  const __m128i bias = _mm_set1_epi32(round), count = _mm_cvtsi32_si128(shift);
  for (int y = 0; y < kBlock; ++y, in += kBlock, out += kBlock) {
    __m128i sum[4] = {bias, bias, bias, bias};
    for (int p = 0; p < kBlock / 2; ++p) {
      const __m128i pair = _mm_set1_epi32(pair_at(in + 2 * p));
      const auto *const row = reinterpret_cast<const __m128i *>(m.pairs[p]);
      for (int i = 0; i < 4; ++i)
        sum[i] = _mm_add_epi32(sum[i], _mm_madd_epi16(pair, _mm_load_si128(row + i)));
    }
    for (int i = 0; i < 4; ++i) sum[i] = _mm_sra_epi32(sum[i], count);
    _mm_store_si128(reinterpret_cast<__m128i *>(out), _mm_packs_epi32(sum[0], sum[1]));
    _mm_store_si128(reinterpret_cast<__m128i *>(out + 8), _mm_packs_epi32(sum[2], sum[3]));
  }
}

VPXRC_SSE4 void columns_sse4(const int16_t *in, const Matrix &m, int round, int shift,
                             int16_t *out) {
  const __m128i bias = _mm_set1_epi32(round), count = _mm_cvtsi32_si128(shift);
  for (int half = 0; half < kBlock; half += 8) {
    __m128i low[kBlock / 2], high[kBlock / 2];
    for (int p = 0; p < kBlock / 2; ++p) {
      const auto *const row = in + 2 * p * kBlock + half;
      const __m128i even = _mm_load_si128(reinterpret_cast<const __m128i *>(row));
      const __m128i odd = _mm_load_si128(reinterpret_cast<const __m128i *>(row + kBlock));
      low[p] = _mm_unpacklo_epi16(even, odd);
      high[p] = _mm_unpackhi_epi16(even, odd);
    }
    for (int k = 0; k < kBlock; ++k) {
      __m128i a = bias, b = bias;
      for (int p = 0; p < kBlock / 2; ++p) {
        const __m128i pair = _mm_set1_epi32(pair_at(&m.rows[k][2 * p]));
        a = _mm_add_epi32(a, _mm_madd_epi16(pair, low[p]));
        b = _mm_add_epi32(b, _mm_madd_epi16(pair, high[p]));
      }
      _mm_store_si128(reinterpret_cast<__m128i *>(out + k * kBlock + half),
                      _mm_packs_epi32(_mm_sra_epi32(a, count), _mm_sra_epi32(b, count)));
    }
  }
}

VPXRC_AVX2 void rows_avx2(const int16_t *in, const Matrix &m, int round, int shift, int16_t *out) {
  const __m256i bias = _mm256_set1_epi32(round);
  const __m128i count = _mm_cvtsi32_si128(shift);
  for (int y = 0; y < kBlock; ++y, in += kBlock, out += kBlock) {
    __m256i a = bias, b = bias;
    for (int p = 0; p < kBlock / 2; ++p) {
      const __m256i pair = _mm256_set1_epi32(pair_at(in + 2 * p));
      const auto *const row = reinterpret_cast<const __m256i *>(m.pairs[p]);
      a = _mm256_add_epi32(a, _mm256_madd_epi16(pair, _mm256_load_si256(row)));
      b = _mm256_add_epi32(b, _mm256_madd_epi16(pair, _mm256_load_si256(row + 1)));
    }
    const __m256i packed =
        _mm256_packs_epi32(_mm256_sra_epi32(a, count), _mm256_sra_epi32(b, count));
    _mm256_store_si256(reinterpret_cast<__m256i *>(out), _mm256_permute4x64_epi64(packed, 0xD8));
  }
}

VPXRC_AVX2 void columns_avx2(const int16_t *in, const Matrix &m, int round, int shift,
                             int16_t *out) {
  const __m256i bias = _mm256_set1_epi32(round);
  const __m128i count = _mm_cvtsi32_si128(shift);
  __m256i low[kBlock / 2], high[kBlock / 2];
  for (int p = 0; p < kBlock / 2; ++p) {
    const auto *const row = reinterpret_cast<const __m256i *>(in + 2 * p * kBlock);
    low[p] = _mm256_unpacklo_epi16(_mm256_load_si256(row), _mm256_load_si256(row + 1));
    high[p] = _mm256_unpackhi_epi16(_mm256_load_si256(row), _mm256_load_si256(row + 1));
  }
  for (int k = 0; k < kBlock; ++k) {
    __m256i a = bias, b = bias;
    for (int p = 0; p < kBlock / 2; ++p) {
      const __m256i pair = _mm256_set1_epi32(pair_at(&m.rows[k][2 * p]));
      a = _mm256_add_epi32(a, _mm256_madd_epi16(pair, low[p]));
      b = _mm256_add_epi32(b, _mm256_madd_epi16(pair, high[p]));
    }
    _mm256_store_si256(reinterpret_cast<__m256i *>(out + k * kBlock),
                       _mm256_packs_epi32(_mm256_sra_epi32(a, count), _mm256_sra_epi32(b, count)));
  }
}

VPXRC_SSE4 void subtract_sse4(const uint8_t *s, ptrdiff_t stride, const uint8_t *p, int16_t *r) {
  subtract_body(s, stride, p, r);
}
VPXRC_SSE4 int energy_sse4(const int16_t *r) { return energy_body(r); }
VPXRC_SSE4 void add_sse4(const uint8_t *p, const int16_t *r, uint8_t *out, ptrdiff_t stride) {
  add_body(p, r, out, stride);
}
VPXRC_SSE4 Quantised quantise_sse4(const int16_t *c, int step, int16_t *d) {
  return quantise_body(c, step, d);
}
VPXRC_AVX2 void subtract_avx2(const uint8_t *s, ptrdiff_t stride, const uint8_t *p, int16_t *r) {
  subtract_body(s, stride, p, r);
}
VPXRC_AVX2 int energy_avx2(const int16_t *r) { return energy_body(r); }
VPXRC_AVX2 void add_avx2(const uint8_t *p, const int16_t *r, uint8_t *out, ptrdiff_t stride) {
  add_body(p, r, out, stride);
}
VPXRC_AVX2 Quantised quantise_avx2(const int16_t *c, int step, int16_t *d) {
  return quantise_body(c, step, d);
}

#endif  // VPXRC_X86

std::vector<BlockKernels> make_levels() {
  vpx_dsp_rtcd();
  const BlockKernels scalar{
      "scalar",
      subtract_scalar,
      energy_scalar,
      forward<rows_scalar, columns_scalar>,
      inverse<rows_scalar, columns_scalar>,
      quantise_scalar,
      add_scalar,
      vpx_sad16x16_c,
      vpx_sad32x32_c,
      vpx_sad16x16x4d_c,
      vpx_sad32x32x4d_c,
      vpx_hadamard_16x16_c,
      vpx_satd_c,
      vpx_sub_pixel_variance16x16_c,
      {{vpx_convolve_copy_c, vpx_convolve8_vert_c}, {vpx_convolve8_horiz_c, vpx_convolve8_c}}};
  BlockKernels best = scalar;  // with libvpx's choices
  best.sad16 = vpx_sad16x16;
  best.sad32 = vpx_sad32x32;
  best.sad16_of4 = vpx_sad16x16x4d;
  best.sad32_of4 = vpx_sad32x32x4d;
  best.hadamard = vpx_hadamard_16x16;
  best.satd = vpx_satd;
  best.bilinear = vpx_sub_pixel_variance16x16;
  best.convolve[0][0] = vpx_convolve_copy;
  best.convolve[0][1] = vpx_convolve8_vert;
  best.convolve[1][0] = vpx_convolve8_horiz;
  best.convolve[1][1] = vpx_convolve8;
  std::vector<BlockKernels> levels;
#ifdef VPXRC_X86
  if (__builtin_cpu_supports("avx2")) {
    best.level = "avx2";
    best.subtract = subtract_avx2;
    best.energy = energy_avx2;
    best.add = add_avx2;
    best.quantise = quantise_avx2;
    best.forward = forward<rows_avx2, columns_avx2>;
    best.inverse = inverse<rows_avx2, columns_avx2>;
    levels.push_back(best);
  }
  if (__builtin_cpu_supports("sse4.1")) {
    best.level = "sse4.1";
    best.subtract = subtract_sse4;
    best.energy = energy_sse4;
    best.add = add_sse4;
    best.quantise = quantise_sse4;
    best.forward = forward<rows_sse4, columns_sse4>;
    best.inverse = inverse<rows_sse4, columns_sse4>;
    levels.push_back(best);
  }
#endif
  levels.push_back(scalar);
  return levels;
}

const std::vector<BlockKernels> &levels() {
  static const std::vector<BlockKernels> all = make_levels();
  return all;
}

}  // namespace

std::vector<std::string> kernel_levels() {
  std::vector<std::string> names;
  for (const BlockKernels &kernels : levels()) names.emplace_back(kernels.level);
  return names;
}

const BlockKernels *block_kernels(const std::string &level) {
  if (level == "best") return &levels().front();
  for (const BlockKernels &kernels : levels())
    if (level == kernels.level) return &kernels;
  return nullptr;
}

}  // namespace vpxrc
