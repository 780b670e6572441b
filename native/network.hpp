// The MuZero agent's networks; agents/muzero/network.py says what they are. float32.
//
// Every sum has one order and no product is fused with it, so that a row has the same result to the
// last bit in any batch and on any processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vpxrc {

class SearchTree;

// Weights [outputs][inputs], biases [outputs].
struct LayerParameters {
  const float *weight;
  const float *bias;
};

// The caller has checked: sizes of at least 1, every number finite.
struct NetworkParameters {
  size_t observations, actions, hidden, width;
  const float *mean, *gain;  // standardise observations; [observations]
  LayerParameters represent1, represent2, dynamics1, dynamics2, reward, predict1, policy, value;
  float limit;       // bound on the size of a standardised observation
  float epsilon;     // added to a state's variance before it is normalised
  bool wide = true;  // wide vectors where the processor has them
};

// Sixteen numbers side by side: a cache line.
struct alignas(64) Tile {
  float of[16];
};

class Network {
 public:
  // Memory for the inner layers. One thread at a time may use it; reusing it saves allocations.
  struct Workspace {
    std::vector<Tile> inner, outer;
  };

  // The discount of every step. The model has no end of an episode: it has learned rewards of 0
  // after it.
  static constexpr float kDiscount = 1.0f;

  explicit Network(const NetworkParameters &parameters);

  // observations [batch][observations] -> states [batch][hidden]
  void represent(size_t batch, const float *observations, float *states, Workspace &space) const;
  // states -> logits [batch][actions], value [batch]
  void predict(size_t batch, const float *states, float *logits, float *value,
               Workspace &space) const;
  // actions [batch], states -> reward [batch], the states after, and what is predicted there
  void step(size_t batch, const int32_t *actions, const float *states, float *reward, float *logits,
            float *value, float *after, Workspace &space) const;

  size_t observations() const { return represent1_.inputs; }
  size_t actions() const { return actions_; }
  size_t hidden() const { return hidden_; }

 private:
  // One layer, or several with the same inputs. Outputs are in tiles; the last is filled with 0.
  struct Dense {
    Dense(size_t inputs, size_t outputs);
    // Puts a layer's outputs at `first` and after. Its weights have `stride` numbers per output.
    void put(size_t first, size_t outputs, const LayerParameters &layer, size_t stride);

    size_t inputs, tiles;
    std::vector<Tile> weights;  // [tiles][inputs]
    std::vector<Tile> bias;     // [tiles]
  };

  void apply(const Dense &layer, size_t batch, const float *x, size_t stride,
             std::vector<Tile> &y) const;
  void normalise(Tile *tiles, float *state) const;

  size_t actions_, hidden_;
  float limit_, epsilon_;
  // y [rows][tiles] += x [rows][inputs], stride numbers apart, times weights [tiles][inputs]
  void (*multiply_)(size_t rows, size_t inputs, const float *x, size_t stride, const Tile *weights,
                    size_t tiles, Tile *y);
  std::vector<float> mean_, gain_;
  Dense represent1_, represent2_;
  Dense dynamics1_;           // its inputs are those of the state
  std::vector<Tile> action_;  // [actions][tiles]: weights of an action, plus the bias
  Dense dynamics2_;           // outputs: the state and, behind it, the reward
  Dense predict1_;
  Dense heads_;  // outputs: the logits and, behind them, the value
};

// Runs all simulations of a new tree, which has the network's numbers of states and actions. Throws
// std::domain_error where the network gives a number that is not finite.
void search(SearchTree &tree, const Network &network);

}  // namespace vpxrc
