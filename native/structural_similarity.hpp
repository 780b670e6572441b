// Luma SSIM of a frame, as ffmpeg's filter `ssim` computes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vpxrc {

constexpr int kSsimWindow = 8;  // samples, of a window's sides

// The mean SSIM over windows of 8x8 samples at steps of 4, in both directions. Rows of the planes
// lie `width` samples apart. Both sides are at least kSsimWindow; samples beyond the last whole
// block of 4x4 do not count.
double structural_similarity(const uint8_t *plane, const uint8_t *reference, int width, int height);

// The same of samples of 10 bits.
double structural_similarity(const uint16_t *plane, const uint16_t *reference, int width,
                             int height);

}  // namespace vpxrc
