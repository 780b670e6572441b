// The bindings of the temporal dependency model.
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "temporal_dependency.hpp"

using namespace pybind11::literals;

namespace vpxrc {
namespace {

using Frames = py::array_t<uint8_t, py::array::c_style>;

py::dict run_model(const Frames &frames, int width, int height, const std::vector<int> &show_index,
                   const std::vector<std::array<int, 3>> &references,
                   const std::vector<int> &q_index, const std::vector<double> &weights,
                   bool reconstructed, int lambda_q_index, const std::string &level) {
  const Source source = source_of(frames, width, height, 1, 1);
  const size_t n = show_index.size();
  const auto refuse = [](const std::string &words) { throw py::value_error(words); };
  const auto check = [&refuse](const char *name, int q) {
    if (q < 1 || q > 255) refuse(name + (" " + std::to_string(q)) + " is not in 1..255");
  };
  if (width < kBlock || height < kBlock)
    refuse("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
           " is smaller than a block of 16x16");
  if (n < 2) refuse("a group of " + std::to_string(n) + " frame(s): nothing depends on anything");
  if (n > 127) refuse("a group of " + std::to_string(n) + " frames; at most 127");
  if (references.size() != n || q_index.size() != n || weights.size() != n)
    refuse("show_index, references, q_index and weights differ in length");
  const BlockKernels *const kernels = block_kernels(level);
  if (kernels == nullptr) refuse("this processor has no level '" + level + "'");
  check("lambda_q_index", lambda_q_index);
  std::vector<DependencyFrame> group(n);
  for (size_t i = 0; i < n; ++i) {
    if (show_index[i] < 0 || show_index[i] >= source.num_frames)
      refuse("show_index " + std::to_string(show_index[i]) + " is outside the clip");
    check("q_index", q_index[i]);
    if (!std::isfinite(weights[i]) || weights[i] <= 0) refuse("weights must be above 0 and finite");
    group[i] = {source.frame(show_index[i]), {-1, -1, -1}, q_index[i], weights[i]};
    for (size_t r = 0; r < 3; ++r) {
      if (references[i][r] < -1 || references[i][r] >= int(i))
        refuse("frame " + std::to_string(i) + " references " + std::to_string(references[i][r]) +
               ", which is not coded before it");
      group[i].references[r] = references[i][r];
    }
  }
  Dependency d;
  {
    const WithoutGil release;
    d = temporal_dependency(group, width, height, reconstructed, lambda_q_index, *kernels);
  }
  const std::vector<py::ssize_t> blocks{d.frames, d.rows, d.cols};
  py::dict out;
  out["intra_cost"] = array_of(d.intra_cost, blocks);
  out["inter_cost"] = array_of(d.inter_cost, blocks);
  out["reference"] = array_of(d.reference, blocks);
  out["mv"] = array_of(d.mv, {d.frames, d.rows, d.cols, 2});
  out["source_rate"] = array_of(d.source_rate, blocks);
  out["source_distortion"] = array_of(d.source_distortion, blocks);
  out["rate"] = array_of(d.rate, blocks);
  out["distortion"] = array_of(d.distortion, blocks);
  out["dep_rate"] = array_of(d.dep_rate, blocks);
  out["dep_distortion"] = array_of(d.dep_distortion, blocks);
  out["importance"] = array_of(d.importance, blocks);
  out["frame_importance"] = array_of(d.frame_importance, {d.frames});
  return out;
}

}  // namespace

void bind_model(py::module_ &m) {
  m.def("kernel_levels", &kernel_levels,
        "Return the levels of vector instructions that this processor has, the fastest first.");
  m.def("temporal_dependency", &run_model, "frames"_a.noconvert(), "width"_a, "height"_a,
        py::kw_only(), "show_index"_a, "references"_a, "q_index"_a, "weights"_a, "reconstructed"_a,
        "lambda_q_index"_a, "level"_a, R"(Run the temporal dependency model (arXiv 2108.11586).

frames is I420, uint8 [num_frames, frame_bytes], of width x height samples, at least 16x16. The N
frames of the group, 2 to 127, are given in coding order: show_index [N] in frames, references
[N, 3] positions of earlier ones (-1 = none), q_index [N] in 1..255, weights [N] above 0. The model
is the paper's with reconstructed, else libvpx's. lambda_q_index, 1..255, has the lambda that turns
bits into squared error. level is "best" or one of kernel_levels(), which all give the same result.

Returns a dict of arrays per 16x16 block, [N, rows, cols]: int32 intra_cost, inter_cost (SATD),
source_rate, rate (bits), source_distortion, distortion (squared error), mv ([N, rows, cols, 2],
row and column in quarter samples); int8 reference (position, -1 = intra); float64 dep_rate (bits),
dep_distortion (squared error), importance; and float64 frame_importance [N]. Raises ValueError
where an argument is out of range.)");
}

}  // namespace vpxrc
