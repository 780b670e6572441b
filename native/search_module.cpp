// The bindings of vpxrc._search: the MuZero agent's search trees and networks.
//
// Only a whole search releases the GIL. The other calls last microseconds, and waiting to get the
// GIL back behind another thread may last a thousand times as long.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "network.hpp"
#include "search_tree.hpp"
#include "without_gil.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Actions = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using Mask = py::array_t<bool, py::array::c_style | py::array::forcecast>;
using Shape = std::vector<py::ssize_t>;
using Expected = std::initializer_list<py::ssize_t>;

std::string words(const Shape &shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Shape shape_of(const py::array &array) { return {array.shape(), array.shape() + array.ndim()}; }

void check_shape(const char *name, const py::array &array, Expected expected) {
  if (!std::equal(array.shape(), array.shape() + array.ndim(), expected.begin(), expected.end()))
    throw py::value_error(name + (" has shape " + words(shape_of(array))) + "; expected " +
                          words(expected));
}

template <typename T>
T array_of(const char *name, const py::handle &values) {
  if (py::isinstance<T>(values)) return py::reinterpret_borrow<T>(values);  // saves a look-up
  T array = T::ensure(values);
  if (!array) throw py::value_error(name + std::string(" is not an array of numbers"));
  return array;
}

// Finite numbers, as float32 without gaps: the array itself where it is that already.
Array numbers(const char *name, const py::handle &values, Expected expected) {
  Array array = array_of<Array>(name, values);
  check_shape(name, array, expected);
  const float *const data = array.data();
  if (!std::all_of(data, data + array.size(), [](float v) { return std::isfinite(v); }))
    throw py::value_error(name + std::string(" has a value that is not a finite number"));
  return array;
}

int count(const char *name, int64_t given) {
  // Counts are float32 in the formulas, which holds no more of them exactly.
  constexpr int64_t kMost = 1 << 24;
  if (given < 1 || given > kMost)
    throw py::value_error(name + (" is " + std::to_string(given)) + "; expected 1 to " +
                          std::to_string(kMost));
  return int(given);
}

// The shape of a table, [rows, columns], that gives the other arrays their sizes.
Shape table_shape(const char *name, const py::handle &values) {
  const Shape shape = shape_of(array_of<Array>(name, values));
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1)
    throw py::value_error(name + (" has shape " + words(shape)) +
                          "; expected two dimensions of at least 1");
  return shape;
}

vpxrc::SearchTree make_tree(const py::object &prior_logits, const py::object &value,
                            const py::object &embedding, const py::object &gumbel,
                            const py::object &invalid_actions, int64_t num_simulations,
                            std::optional<int64_t> max_depth, int64_t max_considered,
                            float value_scale, float maxvisit_init, bool rescale,
                            bool mixed_value) {
  const Shape policy = table_shape("prior_logits", prior_logits);
  const Shape states = table_shape("embedding", embedding);
  const py::ssize_t batch = policy[0], actions = policy[1];
  if (!std::isfinite(value_scale) || !std::isfinite(maxvisit_init))
    throw py::value_error("value_scale and maxvisit_init must be finite numbers");
  vpxrc::SearchSettings settings;
  settings.batch = count("the batch", batch);
  settings.actions = count("the number of actions", actions);
  settings.width = count("the width of the embedding", states[1]);
  settings.simulations = count("num_simulations", num_simulations);
  settings.max_depth = count("max_depth", max_depth.value_or(num_simulations));
  settings.max_considered = count("max_considered", max_considered);
  settings.value_scale = value_scale;
  settings.maxvisit_init = maxvisit_init;
  settings.rescale = rescale;
  settings.mixed_value = mixed_value;
  Mask mask;
  if (!invalid_actions.is_none()) {
    mask = array_of<Mask>("invalid_actions", invalid_actions);
    check_shape("invalid_actions", mask, {batch, actions});
    for (py::ssize_t tree = 0; tree < batch; ++tree) {
      const bool *const row = mask.data(tree);
      if (std::all_of(row, row + actions, [](bool invalid) { return invalid; }))
        throw py::value_error("invalid_actions leaves no action in row " + std::to_string(tree));
    }
  }
  return vpxrc::SearchTree(settings, numbers("prior_logits", prior_logits, {batch, actions}).data(),
                           numbers("value", value, {batch}).data(),
                           numbers("embedding", embedding, {batch, states[1]}).data(),
                           numbers("gumbel", gumbel, {batch, actions}).data(),
                           invalid_actions.is_none() ? nullptr : mask.data());
}

// The sizes of the network are those of its weights. The arrays are copied.
vpxrc::Network make_network(const py::dict &parameters, float limit, float epsilon,
                            int64_t reward) {
  const auto given = [&](const char *name) {
    if (!parameters.contains(name)) throw py::value_error("no " + std::string(name));
    return py::object(parameters[name]);
  };
  const auto table = [&](const char *name) { return table_shape(name, given(name)); };
  const Shape outcome = table("outcome.weight");
  const py::ssize_t observations = table("represent1.weight")[1];
  const py::ssize_t hidden = table("represent2.weight")[0], width = outcome[1];
  const py::ssize_t actions = table("policy.weight")[0];
  if (!std::isfinite(limit) || !std::isfinite(epsilon) || limit <= 0 || epsilon <= 0)
    throw py::value_error("limit and epsilon must be finite numbers above 0");
  if (reward < 0 || reward >= outcome[0])
    throw py::value_error("reward is " + std::to_string(reward) + " of " +
                          std::to_string(outcome[0]) + " outcomes");
  std::vector<Array> kept;  // alive until the network has copied them
  const auto vector = [&](const char *name, py::ssize_t size) {
    return kept.emplace_back(numbers(name, given(name), {size})).data();
  };
  const auto layer = [&](const std::string &name, py::ssize_t outputs, py::ssize_t inputs) {
    const std::string weight = name + ".weight", bias = name + ".bias";
    kept.push_back(numbers(weight.c_str(), given(weight.c_str()), {outputs, inputs}));
    return vpxrc::LayerParameters{kept.back().data(), vector(bias.c_str(), outputs)};
  };
  vpxrc::NetworkParameters p{};
  p.observations = size_t(observations);
  p.actions = size_t(count("the number of actions", actions));
  p.hidden = size_t(count("the width of a state", hidden));
  p.width = size_t(width);
  p.mean = vector("observation_mean", observations);
  p.gain = vector("observation_gain", observations);
  p.represent1 = layer("represent1", width, observations);
  p.represent2 = layer("represent2", hidden, width);
  p.dynamics1 = layer("dynamics1", width, hidden + actions);
  p.dynamics2 = layer("dynamics2", hidden, width);
  const vpxrc::LayerParameters outcomes = layer("outcome", outcome[0], width);
  p.reward = {outcomes.weight + reward * width, outcomes.bias + reward};
  p.predict1 = layer("predict1", width, hidden);
  p.policy = layer("policy", actions, width);
  p.value = layer("value", 1, width);
  p.limit = limit;
  p.epsilon = epsilon;
  return vpxrc::Network(p);
}

// The batch of rows that a network is asked about.
Array rows(const char *name, const py::object &values, size_t columns) {
  return numbers(name, values, {table_shape(name, values)[0], py::ssize_t(columns)});
}

using vpxrc::Network;
using vpxrc::SearchTree;

Array represent(const Network &network, const py::object &observations) {
  const Array given = rows("observations", observations, network.observations());
  Array states({given.shape(0), py::ssize_t(network.hidden())});
  Network::Workspace space;
  network.represent(size_t(given.shape(0)), given.data(), states.mutable_data(), space);
  return states;
}

py::tuple predict(const Network &network, const py::object &states) {
  const Array given = rows("states", states, network.hidden());
  const py::ssize_t batch = given.shape(0);
  Array logits({batch, py::ssize_t(network.actions())}), value(batch);
  Network::Workspace space;
  network.predict(size_t(batch), given.data(), logits.mutable_data(), value.mutable_data(), space);
  return py::make_tuple(std::move(logits), std::move(value));
}

py::tuple step(const Network &network, const py::object &actions, const py::object &states) {
  const Array given = rows("states", states, network.hidden());
  const py::ssize_t batch = given.shape(0);
  const Actions taken = array_of<Actions>("actions", actions);
  check_shape("actions", taken, {batch});
  for (py::ssize_t b = 0; b < batch; ++b)
    if (taken.at(b) < 0 || size_t(taken.at(b)) >= network.actions())
      throw py::value_error("actions has " + std::to_string(taken.at(b)) + "; expected 0 to " +
                            std::to_string(network.actions() - 1));
  Array reward(batch), discount(batch), value(batch);
  Array logits({batch, py::ssize_t(network.actions())});
  Array after({batch, py::ssize_t(network.hidden())});
  std::fill_n(discount.mutable_data(), batch, Network::kDiscount);
  Network::Workspace space;
  network.step(size_t(batch), taken.data(), given.data(), reward.mutable_data(),
               logits.mutable_data(), value.mutable_data(), after.mutable_data(), space);
  return py::make_tuple(std::move(reward), std::move(discount), std::move(logits), std::move(value),
                        std::move(after));
}

py::tuple select(SearchTree &tree) {
  const vpxrc::SearchSettings &s = tree.settings();
  // New arrays every time, because the model may keep what it is given.
  py::array_t<int32_t> action(s.batch);
  Array embedding({s.batch, s.width});
  tree.select(action.mutable_data(), embedding.mutable_data());
  return py::make_tuple(std::move(action), std::move(embedding));
}

void expand(SearchTree &tree, const py::object &reward, const py::object &discount,
            const py::object &prior_logits, const py::object &value, const py::object &embedding) {
  const vpxrc::SearchSettings &s = tree.settings();
  tree.expand(numbers("reward", reward, {s.batch}).data(),
              numbers("discount", discount, {s.batch}).data(),
              numbers("prior_logits", prior_logits, {s.batch, s.actions}).data(),
              numbers("value", value, {s.batch}).data(),
              numbers("embedding", embedding, {s.batch, s.width}).data());
}

void search(SearchTree &tree, const Network &network) {
  const vpxrc::SearchSettings &s = tree.settings();
  if (size_t(s.actions) != network.actions() || size_t(s.width) != network.hidden())
    throw py::value_error("network has " + std::to_string(network.actions()) + " actions and " +
                          std::to_string(network.hidden()) + " numbers per state; expected " +
                          std::to_string(s.actions) + " and " + std::to_string(s.width));
  const vpxrc::WithoutGil release;
  vpxrc::search(tree, network);
}

py::tuple result(SearchTree &tree) {
  const vpxrc::SearchSettings &s = tree.settings();
  py::array_t<int32_t> action(s.batch), visits({s.batch, s.actions});
  Array weights({s.batch, s.actions}), value(s.batch), qvalues({s.batch, s.actions});
  tree.result(action.mutable_data(), weights.mutable_data(), value.mutable_data(),
              visits.mutable_data(), qvalues.mutable_data());
  return py::make_tuple(std::move(action), std::move(weights), std::move(value), std::move(visits),
                        std::move(qvalues));
}

void bind_network(py::module_ &m) {
  py::class_<Network>(m, "Network", R"(The networks of vpxrc.agents.muzero.network.

They take float32 observations [B, N] and have states [B, H] and actions 0..A-1, for any number of
threads at once. Every number given must be finite. ValueError says which array is not, is missing
or has the wrong shape.)")
      .def(py::init(&make_network), "parameters"_a, py::kw_only(), "limit"_a, "epsilon"_a,
           "reward"_a, R"(Copy the parameters.

parameters are float32 arrays by name: weight [outputs, inputs] and bias [outputs] of the layers
represent1, represent2, dynamics1, dynamics2, outcome, predict1, policy and value, and
observation_mean and observation_gain [N]. limit bounds a standardised observation on both sides,
epsilon is added to the variance of a state before it is normalised; both are above 0. reward is the
row of outcome that predicts the reward.)")
      .def("represent", &represent, "observations"_a,
           "Return the states, float32 [B, H], of observations, float32 [B, N].")
      .def("predict", &predict, "states"_a,
           "Return the policy's logits, float32 [B, A], and the values, float32 [B] in units of "
           "reward, of states, float32 [B, H].")
      .def("step", &step, "actions"_a, "states"_a, R"(Take actions, int32 [B], in states [B, H].

Returns the arguments of SearchTree.expand(): reward [B], discount [B], and the logits [B, A], value
[B] and embedding [B, H] of the states after.)");
}

void bind_tree(py::module_ &m) {
  py::class_<SearchTree>(m, "SearchTree", R"(One tree per state of a batch, grown together.

One thread at a time may use it. Arrays are float32 unless said otherwise and must be finite.
ValueError says which is not, or has the wrong shape.)")
      .def(py::init(&make_tree), "prior_logits"_a, "value"_a, "embedding"_a, "gumbel"_a,
           "invalid_actions"_a, py::kw_only(), "num_simulations"_a, "max_depth"_a,
           "max_considered"_a, "value_scale"_a, "maxvisit_init"_a, "rescale"_a, "mixed_value"_a,
           R"(Begin with the roots.

prior_logits and gumbel are [B, A], value [B], embedding [B, H], invalid_actions bool [B, A] or None
where every action may be taken. max_depth counts edges from the root, None for num_simulations.
Sequential halving starts with at most max_considered actions. value_scale, maxvisit_init, rescale
and mixed_value are those of mctx's qtransform_completed_by_mix_value.)")
      .def("select", &select, R"(Walk every tree to the next question for the model.

Returns actions, int32 [B], and the embeddings [B, H] of the nodes where they are to be taken.)")
      .def("expand", &expand, "reward"_a, "discount"_a, "prior_logits"_a, "value"_a, "embedding"_a,
           R"(Put the model's answer to select() into the trees.

reward, discount and value are [B], prior_logits [B, A], embedding [B, H].)")
      .def("search", &search, "network"_a,
           "Run all simulations on a Network, without the GIL. ValueError says where it has other "
           "sizes than the tree or answers with a number that is not finite.")
      .def("result", &result, R"(Return what the search says of the roots, after all simulations.

Actions, int32 [B]; weights of the improved policy [B, A]; values [B]; visits, int32 [B, A]; and
completed Q-values [B, A], in units of reward.)");
}

}  // namespace

PYBIND11_MODULE(_search, m, py::mod_gil_not_used()) {
  m.doc() = "Gumbel MuZero's trees and the agent's networks, for vpxrc.agents.muzero.";
  bind_network(m);
  bind_tree(m);
  vpxrc::ExitGate::close_at_exit();
}
