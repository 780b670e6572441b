// Bindings only. They keep the GIL: a call lasts microseconds, and waiting to get the GIL back
// behind another thread may last a thousand times as long.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "search_tree.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;
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

// Rows and columns of what says how large the others have to be.
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

}  // namespace

PYBIND11_MODULE(_search, m, py::mod_gil_not_used()) {
  m.doc() = "The trees of Gumbel MuZero's search; vpxrc.agents.muzero.search is their interface.";

  py::class_<vpxrc::SearchTree>(m, "SearchTree", R"(One tree per state of a batch, grown together.

Of one thread at a time. Arrays are float32 unless said otherwise and must be finite; ValueError
says which is not, or which has the wrong shape.)")
      .def(py::init(&make_tree), "prior_logits"_a, "value"_a, "embedding"_a, "gumbel"_a,
           "invalid_actions"_a, py::kw_only(), "num_simulations"_a, "max_depth"_a,
           "max_considered"_a, "value_scale"_a, "maxvisit_init"_a, "rescale"_a, "mixed_value"_a)
      .def(
          "select",
          [](vpxrc::SearchTree &tree) {
            const vpxrc::SearchSettings &s = tree.settings();
            // New ones every time: the model may keep what it is given.
            py::array_t<int32_t> action(s.batch);
            py::array_t<float> embedding({s.batch, s.width});
            tree.select(action.mutable_data(), embedding.mutable_data());
            return py::make_tuple(std::move(action), std::move(embedding));
          },
          "What the model is asked next: actions int32 [B] and the embeddings [B, H] of the nodes "
          "where they are taken.")
      .def(
          "expand",
          [](vpxrc::SearchTree &tree, const py::object &reward, const py::object &discount,
             const py::object &prior_logits, const py::object &value,
             const py::object &embedding) {
            const vpxrc::SearchSettings &s = tree.settings();
            tree.expand(numbers("reward", reward, {s.batch}).data(),
                        numbers("discount", discount, {s.batch}).data(),
                        numbers("prior_logits", prior_logits, {s.batch, s.actions}).data(),
                        numbers("value", value, {s.batch}).data(),
                        numbers("embedding", embedding, {s.batch, s.width}).data());
          },
          "reward"_a, "discount"_a, "prior_logits"_a, "value"_a, "embedding"_a,
          "The model's answer to select().")
      .def(
          "result",
          [](vpxrc::SearchTree &tree) {
            const vpxrc::SearchSettings &s = tree.settings();
            py::array_t<int32_t> action(s.batch), visits({s.batch, s.actions});
            py::array_t<float> weights({s.batch, s.actions}), value(s.batch),
                qvalues({s.batch, s.actions});
            tree.result(action.mutable_data(), weights.mutable_data(), value.mutable_data(),
                        visits.mutable_data(), qvalues.mutable_data());
            return py::make_tuple(std::move(action), std::move(weights), std::move(value),
                                  std::move(visits), std::move(qvalues));
          },
          "After the last simulation: actions int32 [B], weights [B, A], values [B], visits int32 "
          "[B, A] and completed Q-values [B, A] of the roots.");
}
