// A clip for the native tests.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "encode_session.hpp"

struct Clip {
  std::vector<uint8_t> bytes;
  vpxrc::Source source;
};

// A texture that moves by one sample a frame, with a cut and a little noise.
inline Clip make_clip(int width, int height, int num_frames, int bit_depth) {
  Clip clip;
  clip.source = {nullptr, num_frames, width, height, 30, 1, bit_depth};
  std::mt19937 random(7);
  const auto add = [&clip, &random, bit_depth](int sample) {
    if (bit_depth == 8) {
      clip.bytes.push_back(uint8_t(sample));
      return;
    }
    const uint16_t fine = uint16_t(4 * sample + int(random() % 4));
    const auto *const bytes = reinterpret_cast<const uint8_t *>(&fine);
    clip.bytes.insert(clip.bytes.end(), bytes, bytes + sizeof(fine));
  };
  for (int n = 0; n < num_frames; ++n) {
    const int seed = n < num_frames / 2 ? 3 : 11;
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) add(((x + n) * seed ^ (y * 5)) % 200 + int(random() % 8));
    for (size_t i = 0; i < 2 * clip.source.chroma_samples(); ++i) add(int(128 + i % 16));
  }
  clip.source.frames = clip.bytes.data();
  return clip;
}
