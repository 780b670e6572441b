// The agent's networks under the sanitizers, with every size of vectors, against the same formulas
// in double precision, one number after the other.
#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "search_tree.hpp"

using vpxrc::Network;

namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr float kLimit = 4.0f, kEpsilon = 1e-5f;

struct Layer {
  Floats weight, bias;
  Layer(std::mt19937 &random, size_t outputs, size_t inputs) {
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(float(inputs)));
    for (size_t i = 0; i < outputs * inputs; ++i) weight.push_back(normal(random));
    for (size_t i = 0; i < outputs; ++i) bias.push_back(normal(random));
  }
  vpxrc::LayerParameters parameters() const { return {weight.data(), bias.data()}; }
  Doubles operator()(const Doubles &x) const {
    Doubles y(bias.begin(), bias.end());
    for (size_t o = 0; o < y.size(); ++o)
      for (size_t i = 0; i < x.size(); ++i) y[o] += double(weight[o * x.size() + i]) * x[i];
    return y;
  }
};

Doubles relu(Doubles x) {
  for (double &v : x) v = std::max(v, 0.0);
  return x;
}

Doubles normalised(Doubles x) {
  double mean = 0.0, variance = 0.0;
  for (const double v : x) mean += v / double(x.size());
  for (double &v : x) v -= mean;
  for (const double v : x) variance += v * v / double(x.size());
  for (double &v : x) v /= std::sqrt(variance + double(kEpsilon));
  return x;
}

struct Example {
  std::mt19937 random{3};
  size_t observations, actions, hidden, width;
  Layer scale, represent1, represent2, dynamics1, dynamics2, reward, predict1, policy, value;

  Example(size_t n, size_t a, size_t h, size_t w)
      : observations(n),
        actions(a),
        hidden(h),
        width(w),
        scale(random, n, 1),
        represent1(random, w, n),
        represent2(random, h, w),
        dynamics1(random, w, h + a),
        dynamics2(random, h, w),
        reward(random, 1, w),
        predict1(random, w, h),
        policy(random, a, w),
        value(random, 1, w) {}

  Network network(bool wide) const {
    vpxrc::NetworkParameters p{};
    p.observations = observations;
    p.actions = actions;
    p.hidden = hidden;
    p.width = width;
    p.mean = scale.bias.data();
    p.gain = scale.weight.data();
    p.represent1 = represent1.parameters();
    p.represent2 = represent2.parameters();
    p.dynamics1 = dynamics1.parameters();
    p.dynamics2 = dynamics2.parameters();
    p.reward = reward.parameters();
    p.predict1 = predict1.parameters();
    p.policy = policy.parameters();
    p.value = value.parameters();
    p.limit = kLimit;
    p.epsilon = kEpsilon;
    p.wide = wide;
    return Network(p);
  }
};

Floats draw(std::mt19937 &random, size_t n) {
  std::normal_distribution<float> normal(0.0f, 3.0f);
  Floats values(n);
  for (float &v : values) v = normal(random);
  return values;
}

struct Answers {
  Floats states, logits, value, reward, next_logits, next_value, after;
  bool operator==(const Answers &o) const {
    return states == o.states && logits == o.logits && value == o.value && reward == o.reward &&
           next_logits == o.next_logits && next_value == o.next_value && after == o.after;
  }
};

Answers ask(const Network &network, const Floats &observations, const std::vector<int32_t> &taken,
            Network::Workspace &space) {
  const size_t batch = taken.size(), policy = batch * network.actions();
  const size_t numbers = batch * network.hidden();
  Answers a{Floats(numbers), Floats(policy), Floats(batch),  Floats(batch),
            Floats(policy),  Floats(batch),  Floats(numbers)};
  network.represent(batch, observations.data(), a.states.data(), space);
  network.predict(batch, a.states.data(), a.logits.data(), a.value.data(), space);
  network.step(batch, taken.data(), a.states.data(), a.reward.data(), a.next_logits.data(),
               a.next_value.data(), a.after.data(), space);
  return a;
}

void close(const Floats &found, size_t row, const Doubles &expected) {
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(std::abs(double(found[row * expected.size() + i]) - expected[i]) <
          2e-5 * (1.0 + std::abs(expected[i])));
}

void agrees(size_t observations, size_t actions, size_t hidden, size_t width) {
  Example e(observations, actions, hidden, width);
  const Network network = e.network(true), narrow = e.network(false);
  Network::Workspace space;
  for (const size_t batch : {1, 2, 3, 4, 5, 7, 8, 16}) {
    const Floats seen = draw(e.random, batch * observations);
    std::vector<int32_t> taken(batch);
    for (int32_t &action : taken) action = int32_t(e.random() % actions);
    const Answers together = ask(network, seen, taken, space);
    CHECK(together == ask(narrow, seen, taken, space));
    for (size_t b = 0; b < batch; ++b) {
      const float *const own = &seen[b * observations];
      const Answers alone = ask(network, Floats(own, own + observations), {taken[b]}, space);
      CHECK(alone.value[0] == together.value[b] && alone.reward[0] == together.reward[b]);
      CHECK(alone.next_value[0] == together.next_value[b]);
      for (size_t i = 0; i < hidden; ++i) CHECK(alone.after[i] == together.after[b * hidden + i]);

      Doubles scaled(observations);
      for (size_t i = 0; i < observations; ++i)
        scaled[i] = std::clamp(double(own[i] - e.scale.bias[i]) * double(e.scale.weight[i]),
                               -double(kLimit), double(kLimit));
      const Doubles state = normalised(e.represent2(relu(e.represent1(scaled))));
      close(together.states, b, state);
      Doubles joined = state;
      joined.resize(hidden + actions, 0.0);
      joined[hidden + size_t(taken[b])] = 1.0;
      const Doubles inner = relu(e.dynamics1(joined));
      close(together.reward, b, e.reward(inner));
      Doubles after = e.dynamics2(inner);
      for (size_t i = 0; i < hidden; ++i) after[i] += state[i];
      after = normalised(after);
      close(together.after, b, after);
      const auto predicted = [&](const Doubles &at, const Floats &logits, const Floats &value) {
        const Doubles layer = relu(e.predict1(at));
        close(logits, b, e.policy(layer));
        close(value, b, e.value(layer));
      };
      predicted(state, together.logits, together.value);
      predicted(after, together.next_logits, together.next_value);
    }
  }
}

void searches() {
  const auto run = [](Example &e) {
    const Network network = e.network(true);
    const size_t batch = 5;
    vpxrc::SearchSettings s;
    s.batch = int(batch);
    s.actions = int(e.actions);
    s.width = int(e.hidden);
    s.simulations = s.max_depth = 20;
    Network::Workspace space;
    const std::vector<int32_t> none(batch, 0);
    const Answers root = ask(network, draw(e.random, batch * e.observations), none, space);
    const Floats gumbel = draw(e.random, batch * e.actions);
    vpxrc::SearchTree tree(s, root.logits.data(), root.value.data(), root.states.data(),
                           gumbel.data(), nullptr);
    vpxrc::search(tree, network);
    std::vector<int32_t> action(batch), visits(batch * e.actions);
    Floats weights(visits.size()), value(batch), qvalues(visits.size());
    tree.result(action.data(), weights.data(), value.data(), visits.data(), qvalues.data());
    for (const int32_t a : action) CHECK(a >= 0 && size_t(a) < e.actions);
  };
  Example e(4, 7, 19, 33);
  run(e);
  // Finite, but their sum is not.
  for (float &bias : e.dynamics2.bias) bias = std::numeric_limits<float>::max();
  bool refused = false;
  try {
    run(e);
  } catch (const std::domain_error &) {
    refused = true;
  }
  CHECK(refused);
}

}  // namespace

void test_network() {
  agrees(1, 1, 1, 1);
  agrees(3, 2, 2, 15);
  agrees(6, 9, 16, 16);
  agrees(44, 17, 33, 127);
  agrees(40, 9, 64, 128);
  searches();
}
