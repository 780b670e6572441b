// The search's trees under the sanitizers: every path, on models of random numbers. Python's tests
// check the choices.
#include "search_tree.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"

using vpxrc::SearchSettings;
using vpxrc::SearchTree;

namespace {

std::vector<float> draw(std::mt19937 &random, size_t n, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(n);
  for (float &v : values) v = normal(random);
  return values;
}

struct Result {
  std::vector<int32_t> action, visits;
  std::vector<float> weights, value, qvalues;
};

Result search(const SearchSettings &s, bool masked, float scale) {
  std::mt19937 random(5);
  const size_t batch = size_t(s.batch), width = size_t(s.width);
  const size_t policy = batch * size_t(s.actions);
  const auto invalid = std::make_unique<bool[]>(policy);
  // All but one action at most.
  for (size_t i = 0; i < policy; ++i) invalid[i] = i % size_t(s.actions) > 0 && random() % 2;
  SearchTree tree(s, draw(random, policy, scale).data(), draw(random, batch, scale).data(),
                  draw(random, batch * width).data(), draw(random, policy).data(),
                  masked ? invalid.get() : nullptr);
  std::vector<int32_t> action(batch);
  std::vector<float> embedding(batch * width);
  for (int n = 0; n < s.simulations; ++n) {
    tree.select(action.data(), embedding.data());
    for (const int32_t a : action) CHECK(a >= 0 && a < s.actions);
    tree.expand(draw(random, batch, scale).data(), draw(random, batch).data(),
                draw(random, policy, scale).data(), draw(random, batch, scale).data(),
                draw(random, batch * width).data());
  }
  Result r{std::vector<int32_t>(batch), std::vector<int32_t>(policy), std::vector<float>(policy),
           std::vector<float>(batch), std::vector<float>(policy)};
  tree.result(r.action.data(), r.weights.data(), r.value.data(), r.visits.data(), r.qvalues.data());
  for (size_t t = 0; t < batch; ++t) {
    const size_t row = t * size_t(s.actions);
    const int32_t *const visits = &r.visits[row];
    const float *const weights = &r.weights[row];
    CHECK(std::accumulate(visits, visits + s.actions, 0) == s.simulations);
    CHECK(std::abs(std::accumulate(weights, weights + s.actions, 0.0f) - 1.0f) < 1e-5f);
    CHECK(r.action[t] >= 0 && r.action[t] < s.actions);
    CHECK(!masked || !invalid[row + size_t(r.action[t])]);
    for (int a = 0; a < s.actions; ++a)
      CHECK(!masked || !invalid[row + size_t(a)] || r.visits[row + size_t(a)] == 0);
  }
  return r;
}

void every_setting() {
  for (const int actions : {1, 2, 9, 33})
    for (const int simulations : {1, 7, 60})
      for (const int max_depth : {1, 3, 60})
        for (const int max_considered : {1, 5, 64})
          for (const bool masked : {false, true}) {
            SearchSettings s;
            s.batch = 3;
            s.actions = actions;
            s.width = 5;
            s.simulations = simulations;
            s.max_depth = max_depth;
            s.max_considered = max_considered;
            s.rescale = simulations != 7;
            s.mixed_value = max_depth != 3;
            search(s, masked, 1.0f);
            search(s, masked, 100.0f);
          }
}

// Logits and gumbel that never win, and numbers as large as they come: still an action every time.
void extremes() {
  const float huge = std::numeric_limits<float>::max();
  SearchSettings s;
  s.actions = 3;
  s.simulations = 8;
  s.max_depth = 8;
  const float logits[] = {-huge, huge, 0.0f}, gumbel[] = {huge, -huge, huge};
  const float value = huge, embedding = 0.0f, discount = 1.0f;
  SearchTree tree(s, logits, &value, &embedding, gumbel, nullptr);
  int32_t action, visits[3];
  float weights[3], root, qvalues[3], state;
  for (int n = 0; n < s.simulations; ++n) {
    tree.select(&action, &state);
    CHECK(action >= 0 && action < 3);
    tree.expand(&value, &discount, logits, &value, &embedding);
  }
  tree.result(&action, weights, &root, visits, qvalues);
  CHECK(action >= 0 && action < 3);
}

template <typename Call>
bool refused(Call call) {
  try {
    call();
  } catch (const std::logic_error &) {
    return true;
  }
  return false;
}

void out_of_turn() {
  SearchSettings s;
  const float zero = 0.0f;
  int32_t action, visits;
  float weights, value, qvalues, state;
  SearchTree tree(s, &zero, &zero, &zero, &zero, nullptr);
  const auto select = [&] { tree.select(&action, &state); };
  const auto expand = [&] { tree.expand(&zero, &zero, &zero, &zero, &zero); };
  const auto result = [&] { tree.result(&action, &weights, &value, &visits, &qvalues); };
  CHECK(refused(expand) && refused(result));
  select();
  CHECK(refused(select) && refused(result));
  expand();
  CHECK(refused(select) && refused(expand));
  result();
  CHECK(action == 0 && visits == 1 && weights == 1.0f);
}

void halvings() {
  using Sequence = std::vector<int32_t>;
  CHECK(vpxrc::considered_visits(1, 4) == Sequence({0, 1, 2, 3}));
  CHECK(vpxrc::considered_visits(4, 8) == Sequence({0, 0, 0, 0, 1, 1, 2, 2}));
  CHECK(vpxrc::considered_visits(3, 2) == Sequence({0, 0}));
  CHECK(vpxrc::considered_visits(16, 16) == Sequence(16, 0));
}

}  // namespace

void test_search_tree() {
  halvings();
  every_setting();
  extremes();
  out_of_turn();
}
