#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "search_tree.hpp"

#if defined(__x86_64__)
#define VPXRC_X86 1
#endif

namespace vpxrc {
namespace {

constexpr size_t kTile = sizeof(Tile) / sizeof(float);

// Bodies that are compiled for the vectors that the function around them may use.

#define VPXRC_INLINE inline __attribute__((always_inline))

// Sums of some rows and tiles, kept in registers over all inputs.
template <typename Lanes, size_t kRows, size_t kTiles>
VPXRC_INLINE void multiply_block(size_t inputs, const float *x, size_t stride, const Tile *weights,
                                 size_t tiles, Tile *y) {
  constexpr size_t kLanes = sizeof(Lanes) / sizeof(float), kVectors = kTile / kLanes;
  Lanes sum[kRows][kTiles][kVectors];
  for (size_t r = 0; r < kRows; ++r) std::memcpy(sum[r], y + r * tiles, sizeof(sum[r]));
  for (size_t i = 0; i < inputs; ++i)
    for (size_t t = 0; t < kTiles; ++t)
      for (size_t v = 0; v < kVectors; ++v) {
        Lanes weight;
        std::memcpy(&weight, weights[t * inputs + i].of + v * kLanes, sizeof(weight));
        for (size_t r = 0; r < kRows; ++r) sum[r][t][v] += x[r * stride + i] * weight;
      }
  for (size_t r = 0; r < kRows; ++r) std::memcpy(y + r * tiles, sum[r], sizeof(sum[r]));
}

// y [rows][tiles] += x [rows][inputs], stride numbers apart, times weights [tiles][inputs]
template <typename Lanes>
VPXRC_INLINE void multiply_body(size_t rows, size_t inputs, const float *x, size_t stride,
                                const Tile *weights, size_t tiles, Tile *y) {
  // Eight sums at a time hide what an addition takes, and leave registers for its operands.
  constexpr size_t kSide = 8 * sizeof(Lanes) / sizeof(Tile);
  for (; rows >= kSide; rows -= kSide, x += kSide * stride, y += kSide * tiles)
    for (size_t t = 0; t < tiles; ++t)
      multiply_block<Lanes, kSide, 1>(inputs, x, stride, weights + t * inputs, tiles, y + t);
  for (; rows > 0; --rows, x += stride, y += tiles) {
    size_t t = 0;
    for (; t + kSide <= tiles; t += kSide)
      multiply_block<Lanes, 1, kSide>(inputs, x, stride, weights + t * inputs, tiles, y + t);
    for (; t < tiles; ++t)
      multiply_block<Lanes, 1, 1>(inputs, x, stride, weights + t * inputs, tiles, y + t);
  }
}

using Narrow = float __attribute__((vector_size(16)));  // every processor with 64 bits has them

void multiply_narrow(size_t rows, size_t inputs, const float *x, size_t stride, const Tile *weights,
                     size_t tiles, Tile *y) {
  multiply_body<Narrow>(rows, inputs, x, stride, weights, tiles, y);
}

#ifdef VPXRC_X86
using Wide = float __attribute__((vector_size(32)));

__attribute__((target("avx2"))) void multiply_wide(size_t rows, size_t inputs, const float *x,
                                                   size_t stride, const Tile *weights, size_t tiles,
                                                   Tile *y) {
  multiply_body<Wide>(rows, inputs, x, stride, weights, tiles, y);
}
#endif

using Multiply = decltype(&multiply_narrow);

Multiply best_multiply(bool wide) {
#ifdef VPXRC_X86
  if (wide && __builtin_cpu_supports("avx2")) return multiply_wide;
#endif
  (void)wide;
  return multiply_narrow;
}

float *flat(Tile *tiles) { return reinterpret_cast<float *>(tiles); }

// Adds lane by lane and then the lanes, in one fixed order whatever the width of the vectors.
float sum(const Tile *row, size_t tiles) {
  Tile total = row[0];
  for (size_t t = 1; t < tiles; ++t)
    for (size_t i = 0; i < kTile; ++i) total.of[i] += row[t].of[i];
  for (size_t half = kTile / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) total.of[i] += total.of[i + half];
  return total.of[0];
}

void relu(std::vector<Tile> &rows) {
  for (Tile &tile : rows)
    for (float &v : tile.of) v = v < 0.0f ? 0.0f : v;  // a NaN stays one
}

void check_finite(const char *name, const std::vector<float> &values) {
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
    throw std::domain_error(name + std::string(" has a value that is not a finite number"));
}

}  // namespace

Network::Dense::Dense(size_t inputs_of, size_t outputs)
    : inputs(inputs_of),
      tiles((outputs + kTile - 1) / kTile),
      weights(tiles * inputs),
      bias(tiles) {}

void Network::Dense::put(size_t first, size_t outputs, const LayerParameters &layer,
                         size_t stride) {
  for (size_t o = 0; o < outputs; ++o) {
    const size_t tile = (first + o) / kTile, lane = (first + o) % kTile;
    bias[tile].of[lane] = layer.bias[o];
    for (size_t i = 0; i < inputs; ++i)
      weights[tile * inputs + i].of[lane] = layer.weight[o * stride + i];
  }
}

Network::Network(const NetworkParameters &p)
    : actions_(p.actions),
      hidden_(p.hidden),
      limit_(p.limit),
      epsilon_(p.epsilon),
      multiply_(best_multiply(p.wide)),
      mean_(p.mean, p.mean + p.observations),
      gain_(p.gain, p.gain + p.observations),
      represent1_(p.observations, p.width),
      represent2_(p.width, p.hidden),
      dynamics1_(p.hidden, p.width),
      dynamics2_(p.width, p.hidden + 1),
      predict1_(p.hidden, p.width),
      heads_(p.width, p.actions + 1) {
  represent1_.put(0, p.width, p.represent1, p.observations);
  represent2_.put(0, p.hidden, p.represent2, p.width);
  dynamics1_.put(0, p.width, p.dynamics1, p.hidden + p.actions);
  dynamics2_.put(0, p.hidden, p.dynamics2, p.width);
  dynamics2_.put(p.hidden, 1, p.reward, p.width);
  predict1_.put(0, p.width, p.predict1, p.hidden);
  heads_.put(0, p.actions, p.policy, p.width);
  heads_.put(p.actions, 1, p.value, p.width);
  // The action is one-hot in the inputs of dynamics1, so its product is one column of the weights.
  for (size_t a = 0; a < p.actions; ++a) {
    action_.insert(action_.end(), dynamics1_.bias.begin(), dynamics1_.bias.end());
    Tile *const row = &action_[a * dynamics1_.tiles];
    for (size_t o = 0; o < p.width; ++o)
      row[o / kTile].of[o % kTile] += p.dynamics1.weight[o * (p.hidden + p.actions) + p.hidden + a];
  }
}

void Network::represent(size_t batch, const float *observations, float *states,
                        Workspace &space) const {
  const size_t n = mean_.size();
  std::vector<float> scaled(batch * n);
  for (size_t b = 0; b < batch; ++b)
    for (size_t i = 0; i < n; ++i) {
      const float v = (observations[b * n + i] - mean_[i]) * gain_[i];
      scaled[b * n + i] = std::min(std::max(v, -limit_), limit_);
    }
  apply(represent1_, batch, scaled.data(), n, space.inner);
  relu(space.inner);
  apply(represent2_, batch, flat(space.inner.data()), represent1_.tiles * kTile, space.outer);
  for (size_t b = 0; b < batch; ++b)
    normalise(&space.outer[b * represent2_.tiles], states + b * hidden_);
}

void Network::predict(size_t batch, const float *states, float *logits, float *value,
                      Workspace &space) const {
  apply(predict1_, batch, states, hidden_, space.inner);
  relu(space.inner);
  apply(heads_, batch, flat(space.inner.data()), predict1_.tiles * kTile, space.outer);
  for (size_t b = 0; b < batch; ++b) {
    const float *const row = flat(&space.outer[b * heads_.tiles]);
    std::copy(row, row + actions_, logits + b * actions_);
    value[b] = row[actions_];
  }
}

void Network::step(size_t batch, const int32_t *actions, const float *states, float *reward,
                   float *logits, float *value, float *after, Workspace &space) const {
  space.inner.resize(batch * dynamics1_.tiles);
  for (size_t b = 0; b < batch; ++b)
    std::copy_n(&action_[size_t(actions[b]) * dynamics1_.tiles], dynamics1_.tiles,
                &space.inner[b * dynamics1_.tiles]);
  multiply_(batch, hidden_, states, hidden_, dynamics1_.weights.data(), dynamics1_.tiles,
            space.inner.data());
  relu(space.inner);
  apply(dynamics2_, batch, flat(space.inner.data()), dynamics1_.tiles * kTile, space.outer);
  for (size_t b = 0; b < batch; ++b) {
    Tile *const tiles = &space.outer[b * dynamics2_.tiles];
    float *const row = flat(tiles);
    reward[b] = row[hidden_];
    row[hidden_] = 0.0f;
    for (size_t i = 0; i < hidden_; ++i) row[i] += states[b * hidden_ + i];
    normalise(tiles, after + b * hidden_);
  }
  predict(batch, after, logits, value, space);
}

void Network::apply(const Dense &layer, size_t batch, const float *x, size_t stride,
                    std::vector<Tile> &y) const {
  y.resize(batch * layer.tiles);
  for (size_t b = 0; b < batch; ++b)
    std::copy(layer.bias.begin(), layer.bias.end(), &y[b * layer.tiles]);
  multiply_(batch, layer.inputs, x, stride, layer.weights.data(), layer.tiles, y.data());
}

// tiles, 0 behind the hidden numbers -> a state with mean 0 and variance 1
void Network::normalise(Tile *tiles, float *state) const {
  const size_t count = (hidden_ + kTile - 1) / kTile;
  const float n = float(hidden_);
  float *const row = flat(tiles);
  const float mean = sum(tiles, count) / n;
  for (size_t i = 0; i < hidden_; ++i) {
    row[i] -= mean;
    state[i] = row[i];
    row[i] *= row[i];
  }
  const float deviation = std::sqrt(sum(tiles, count) / n + epsilon_);
  for (size_t i = 0; i < hidden_; ++i) state[i] /= deviation;
}

void search(SearchTree &tree, const Network &network) {
  const SearchSettings &s = tree.settings();
  const size_t batch = size_t(s.batch);
  std::vector<int32_t> actions(batch);
  std::vector<float> states(batch * network.hidden()), after(states.size());
  std::vector<float> logits(batch * network.actions()), reward(batch), value(batch);
  const std::vector<float> discount(batch, Network::kDiscount);
  Network::Workspace space;
  for (int n = 0; n < s.simulations; ++n) {
    tree.select(actions.data(), states.data());
    network.step(batch, actions.data(), states.data(), reward.data(), logits.data(), value.data(),
                 after.data(), space);
    check_finite("reward", reward);
    check_finite("prior_logits", logits);
    check_finite("value", value);
    check_finite("embedding", after);
    tree.expand(reward.data(), discount.data(), logits.data(), value.data(), after.data());
  }
}

}  // namespace vpxrc
