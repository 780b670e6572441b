// The trees of Gumbel MuZero's search (Danihelka et al., "Policy improvement by planning with
// Gumbel", ICLR 2022), one per state of a batch. The caller has the model: select() says which
// action of which node to ask it about next, expand() takes the answer.
//
// The choices are those of mctx 0.0.71's gumbel_muzero_policy with
// qtransform_completed_by_mix_value: float32, its formulas in its order of operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vpxrc {

struct SearchSettings {
  int batch = 1;    // trees
  int actions = 1;  // of every node
  int width = 1;    // of an embedding
  int simulations = 1;
  int max_depth = 1;        // edges from the root; a deeper node is evaluated again, not passed
  int max_considered = 16;  // actions of the root that sequential halving starts with
  float value_scale = 0.1f;
  float maxvisit_init = 50.0f;
  bool rescale = true;      // Q-values to 0..1 before they are scaled
  bool mixed_value = true;  // an unvisited action's value; else the network's value of the node
};

// The caller has checked: sizes of at least 1, every number finite, in every tree a valid action.
class SearchTree {
 public:
  // logits, gumbel [batch][actions], value [batch], embedding [batch][width]; invalid
  // [batch][actions], or null where every action may be taken.
  SearchTree(const SearchSettings &settings, const float *logits, const float *value,
             const float *embedding, const float *gumbel, const bool *invalid);

  // Walks every tree down to an action without a node (or to max_depth). Gives that action,
  // [batch], and the embedding of the node where it is taken, [batch][width].
  // Throws std::logic_error where an expand() is due or no simulation is left.
  void select(int32_t *action, float *embedding);

  // Puts the model's answer where select() ended and takes it up to the root. reward, discount,
  // value [batch], logits [batch][actions], embedding [batch][width].
  // Throws std::logic_error where no select() came before.
  void expand(const float *reward, const float *discount, const float *logits, const float *value,
              const float *embedding);

  // Of the roots. action, value [batch]; the others [batch][actions]: weights the improved policy
  // softmax(logits + scaled Q-values), qvalues completed, in units of reward.
  // Throws std::logic_error where simulations are left.
  void result(int32_t *action, float *weights, float *value, int32_t *visits, float *qvalues);

  const SearchSettings &settings() const { return settings_; }

 private:
  static constexpr int32_t kUnvisited = -1;

  // A node's action: the edge to the child, and the child's value when last backed up.
  struct Edge {
    float logit = 0.0f;
    float prior = 0.0f;  // softmax of the logits
    float reward = 0.0f;
    float discount = 0.0f;
    float value = 0.0f;
    int32_t visits = 0;
    int32_t child = kUnvisited;
    float qvalue() const;
  };
  struct Node {
    float raw_value = 0.0f;  // the network's
    float value = 0.0f;      // mean of what was backed up
    int32_t visits = 0;
    int32_t parent = kUnvisited;
    int32_t action = kUnvisited;  // of the parent, that leads here
  };

  size_t at(int tree, int node) const {
    return size_t(tree) * size_t(nodes_per_tree_) + size_t(node);
  }
  Edge *edges(size_t node) { return &edges_[node * size_t(settings_.actions)]; }
  const Edge *edges(size_t node) const { return &edges_[node * size_t(settings_.actions)]; }

  void fill(size_t node, const float *logits, float value, const float *embedding);
  void back_up(int tree, int node);
  void complete(size_t node);
  void scale(size_t node);
  int best_of_root(int tree, int32_t considered_visit);
  int best_inside(size_t node);

  SearchSettings settings_;
  int nodes_per_tree_;
  int simulation_ = 0;
  bool selected_ = false;
  std::vector<Node> nodes_;                              // [batch][nodes]
  std::vector<Edge> edges_;                              // [batch][nodes][actions]
  std::vector<float> embeddings_;                        // [batch][nodes][width]
  std::vector<float> gumbel_;                            // [batch][actions]
  std::vector<uint8_t> invalid_;                         // [batch][actions]
  std::vector<std::vector<int32_t>> considered_visits_;  // by number of actions considered
  std::vector<int32_t> num_considered_;                  // [batch]
  std::vector<int32_t> parent_;                          // [batch]: where select() ended
  std::vector<int32_t> action_;
  std::vector<float> qvalues_;        // [actions]: what complete() and scale() work on
  std::vector<float> probabilities_;  // [actions]
};

// For every simulation, how often an action has to have been visited to be its turn, where
// sequential halving starts with num_considered actions. [simulations]
std::vector<int32_t> considered_visits(int num_considered, int simulations);

}  // namespace vpxrc
