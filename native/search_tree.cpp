#include "search_tree.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace vpxrc {
namespace {

constexpr float kTiny = std::numeric_limits<float>::min();
constexpr float kLowest = std::numeric_limits<float>::lowest();
// Bounds scores from below, so that even an unlikely action can be the only one considered.
constexpr float kLowScore = -1e9f;
// The smallest range of Q-values that is stretched to 0..1.
constexpr float kLeastRange = 1e-8f;

// Replaces values by their softmax.
void softmax(float *values, int n) {
  const float most = *std::max_element(values, values + n);
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) {
    values[i] = std::exp(values[i] - most);
    sum += values[i];
  }
  for (int i = 0; i < n; ++i) values[i] /= sum;
}

}  // namespace

std::vector<int32_t> considered_visits(int num_considered, int simulations) {
  std::vector<int32_t> sequence;
  sequence.reserve(size_t(simulations));
  if (num_considered <= 1) {
    sequence.resize(size_t(simulations));
    std::iota(sequence.begin(), sequence.end(), 0);
    return sequence;
  }
  int halvings = 0;  // ceil(log2(num_considered))
  while ((int64_t{1} << halvings) < num_considered) ++halvings;
  std::vector<int32_t> visits(size_t(num_considered), 0);
  int left = num_considered;
  while (true) {
    const int64_t extra = std::max<int64_t>(1, simulations / (int64_t{halvings} * left));
    for (int64_t round = 0; round < extra; ++round)
      for (int i = 0; i < left; ++i) {
        // Within a round all that are left have been visited equally often.
        sequence.push_back(visits[size_t(i)]++);
        if (sequence.size() == size_t(simulations)) return sequence;
      }
    left = std::max(2, left / 2);
  }
}

// Products are fused with sums where XLA fuses them for mctx. So the values are mctx's to the last
// bit, and the mean of equal values is that value.
float SearchTree::Edge::qvalue() const { return std::fma(discount, value, reward); }

SearchTree::SearchTree(const SearchSettings &settings, const float *logits, const float *value,
                       const float *embedding, const float *gumbel, const bool *invalid)
    : settings_(settings),
      nodes_per_tree_(settings.simulations + 1),
      nodes_(size_t(settings.batch) * size_t(nodes_per_tree_)),
      edges_(nodes_.size() * size_t(settings.actions)),
      embeddings_(nodes_.size() * size_t(settings.width)),
      gumbel_(gumbel, gumbel + size_t(settings.batch) * size_t(settings.actions)),
      invalid_(gumbel_.size(), 0),
      num_considered_(size_t(settings.batch)),
      parent_(size_t(settings.batch)),
      action_(size_t(settings.batch)),
      qvalues_(size_t(settings.actions)),
      probabilities_(size_t(settings.actions)) {
  if (invalid != nullptr) std::copy(invalid, invalid + invalid_.size(), invalid_.begin());
  const int actions = settings_.actions;
  considered_visits_.resize(size_t(std::min(actions, settings_.max_considered)) + 1);
  std::vector<float> masked(static_cast<size_t>(actions));
  for (int tree = 0; tree < settings_.batch; ++tree) {
    const float *const own = logits + size_t(tree) * size_t(actions);
    const uint8_t *const mask = &invalid_[size_t(tree) * size_t(actions)];
    std::copy(own, own + actions, masked.begin());
    if (invalid != nullptr) {
      const float most = *std::max_element(own, own + actions);
      for (int a = 0; a < actions; ++a) masked[size_t(a)] = mask[a] ? kLowest : own[a] - most;
    }
    fill(at(tree, 0), masked.data(), value[tree],
         embedding + size_t(tree) * size_t(settings_.width));
    const int num_valid = int(std::count(mask, mask + actions, 0));
    const int considered = std::min(settings_.max_considered, num_valid);
    num_considered_[size_t(tree)] = considered;
    std::vector<int32_t> &sequence = considered_visits_[size_t(considered)];
    if (sequence.empty()) sequence = considered_visits(considered, settings_.simulations);
  }
}

void SearchTree::select(int32_t *action, float *embedding) {
  if (selected_) throw std::logic_error("select() again before expand()");
  if (simulation_ == settings_.simulations) throw std::logic_error("no simulation is left");
  const size_t width = size_t(settings_.width);
  for (int tree = 0; tree < settings_.batch; ++tree) {
    const int considered = num_considered_[size_t(tree)];
    int node = 0;
    int chosen = best_of_root(tree, considered_visits_[size_t(considered)][size_t(simulation_)]);
    for (int depth = 1; depth < settings_.max_depth; ++depth) {
      const int32_t child = edges(at(tree, node))[chosen].child;
      if (child == kUnvisited) break;
      node = child;
      chosen = best_inside(at(tree, node));
    }
    parent_[size_t(tree)] = node;
    action_[size_t(tree)] = chosen;
    action[tree] = chosen;
    const float *const own = &embeddings_[at(tree, node) * width];
    std::copy(own, own + width, embedding + size_t(tree) * width);
  }
  selected_ = true;
}

void SearchTree::expand(const float *reward, const float *discount, const float *logits,
                        const float *value, const float *embedding) {
  if (!selected_) throw std::logic_error("expand() without select()");
  ++simulation_;
  selected_ = false;
  for (int tree = 0; tree < settings_.batch; ++tree) {
    const int32_t parent = parent_[size_t(tree)];
    const int32_t action = action_[size_t(tree)];
    Edge &edge = edges(at(tree, parent))[action];
    if (edge.child == kUnvisited) edge.child = simulation_;  // else beyond max_depth: once more
    edge.reward = reward[tree];
    edge.discount = discount[tree];
    const size_t child = at(tree, edge.child);
    nodes_[child].parent = parent;
    nodes_[child].action = action;
    fill(child, logits + size_t(tree) * size_t(settings_.actions), value[tree],
         embedding + size_t(tree) * size_t(settings_.width));
    back_up(tree, edge.child);
  }
}

void SearchTree::result(int32_t *action, float *weights, float *value, int32_t *visits,
                        float *qvalues) {
  if (simulation_ < settings_.simulations || selected_)
    throw std::logic_error("simulations are left");
  const int actions = settings_.actions;
  for (int tree = 0; tree < settings_.batch; ++tree) {
    const size_t root = at(tree, 0);
    const size_t row = size_t(tree) * size_t(actions);
    const Edge *const edge = edges(root);
    int32_t most_visits = 0;
    for (int a = 0; a < actions; ++a) {
      visits[row + size_t(a)] = edge[a].visits;
      most_visits = std::max(most_visits, edge[a].visits);
    }
    value[tree] = nodes_[root].value;
    action[tree] = best_of_root(tree, most_visits);
    complete(root);
    std::copy(qvalues_.begin(), qvalues_.end(), qvalues + row);
    scale(root);
    float *const improved = weights + row;
    for (int a = 0; a < actions; ++a)
      improved[a] = invalid_[row + size_t(a)] ? kLowest : edge[a].logit + qvalues_[size_t(a)];
    softmax(improved, actions);
  }
}

// Takes a node's evaluation, the first one or, beyond max_depth, another.
void SearchTree::fill(size_t node, const float *logits, float value, const float *embedding) {
  const int actions = settings_.actions;
  const size_t width = size_t(settings_.width);
  Edge *const edge = edges(node);
  std::copy(logits, logits + actions, probabilities_.begin());
  softmax(probabilities_.data(), actions);
  for (int a = 0; a < actions; ++a) {
    edge[a].logit = logits[a];
    edge[a].prior = std::max(kTiny, probabilities_[size_t(a)]);  // the mixed value divides by it
  }
  nodes_[node].raw_value = value;
  nodes_[node].value = value;
  ++nodes_[node].visits;
  std::copy(embedding, embedding + width, &embeddings_[node * width]);
}

void SearchTree::back_up(int tree, int node) {
  float leaf_value = nodes_[at(tree, node)].value;
  while (node != 0) {
    const Node &child = nodes_[at(tree, node)];
    Node &parent = nodes_[at(tree, child.parent)];
    Edge &edge = edges(at(tree, child.parent))[child.action];
    const float count = float(parent.visits);
    leaf_value = std::fma(edge.discount, leaf_value, edge.reward);
    parent.value = std::fma(parent.value, count, leaf_value) / (count + 1.0f);
    ++parent.visits;
    edge.value = child.value;
    ++edge.visits;
    node = child.parent;
  }
}

// Sets qvalues_ for a node's actions. An action that was not visited gets the node's own value,
// mixed from the network's value and the visited actions' (appendix D of the paper).
void SearchTree::complete(size_t node) {
  const int actions = settings_.actions;
  const Edge *const edge = edges(node);
  int32_t visits = 0;
  float visited_prior = 0.0f;
  for (int a = 0; a < actions; ++a) {
    if (edge[a].visits == 0) continue;
    visits += edge[a].visits;
    visited_prior += edge[a].prior;
    qvalues_[size_t(a)] = edge[a].qvalue();
  }
  float value = nodes_[node].raw_value;
  if (settings_.mixed_value) {
    float weighted = 0.0f;
    for (int a = 0; a < actions; ++a)
      if (edge[a].visits > 0) weighted += edge[a].prior * qvalues_[size_t(a)] / visited_prior;
    value = (value + float(visits) * weighted) / (float(visits) + 1.0f);
  }
  for (int a = 0; a < actions; ++a)
    if (edge[a].visits == 0) qvalues_[size_t(a)] = value;
}

// Turns completed qvalues_ into the terms that are added to the logits.
void SearchTree::scale(size_t node) {
  const int actions = settings_.actions;
  const Edge *const edge = edges(node);
  if (settings_.rescale) {
    const auto [least, most] = std::minmax_element(qvalues_.begin(), qvalues_.end());
    const float low = *least;
    const float range = std::max(*most - low, kLeastRange);
    for (float &q : qvalues_) q = (q - low) / range;
  }
  int32_t most_visits = 0;
  for (int a = 0; a < actions; ++a) most_visits = std::max(most_visits, edge[a].visits);
  const float factor = (settings_.maxvisit_init + float(most_visits)) * settings_.value_scale;
  for (float &q : qvalues_) q *= factor;
}

// The valid action of the root with the highest score among those visited considered_visit times.
int SearchTree::best_of_root(int tree, int32_t considered_visit) {
  const int actions = settings_.actions;
  const size_t root = at(tree, 0);
  const Edge *const edge = edges(root);
  const size_t row = size_t(tree) * size_t(actions);
  complete(root);
  scale(root);
  float most = edge[0].logit;
  for (int a = 1; a < actions; ++a) most = std::max(most, edge[a].logit);
  int best = 0;
  float best_score = -std::numeric_limits<float>::infinity();
  for (int a = 0; a < actions; ++a) {
    if (invalid_[row + size_t(a)] || edge[a].visits != considered_visit) continue;
    const float sum = gumbel_[row + size_t(a)] + (edge[a].logit - most) + qvalues_[size_t(a)];
    const float score = std::max(kLowScore, sum);
    if (score > best_score) {
      best = a;
      best_score = score;
    }
  }
  return best;
}

// The action that is visited least for what the improved policy gives it.
int SearchTree::best_inside(size_t node) {
  const int actions = settings_.actions;
  const Edge *const edge = edges(node);
  complete(node);
  scale(node);
  int32_t visits = 0;
  for (int a = 0; a < actions; ++a) {
    visits += edge[a].visits;
    probabilities_[size_t(a)] = edge[a].logit + qvalues_[size_t(a)];
  }
  softmax(probabilities_.data(), actions);
  int best = 0;
  float best_score = -std::numeric_limits<float>::infinity();
  for (int a = 0; a < actions; ++a) {
    const float score = probabilities_[size_t(a)] - float(edge[a].visits) / (1.0f + float(visits));
    if (score > best_score) {
      best = a;
      best_score = score;
    }
  }
  return best;
}

}  // namespace vpxrc
