// The bindings of what measures quality.
#include <string>
#include <vector>

#include "bindings.hpp"
#include "structural_similarity.hpp"

using namespace pybind11::literals;

namespace vpxrc {
namespace {

py::array_t<double> run_ssim(const py::array_t<uint8_t> &frames,
                             const py::array_t<uint8_t> &reference, int width, int height) {
  if (width < kSsimWindow || height < kSsimWindow)
    throw py::value_error("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
                          " is smaller than a window of 8x8");
  for (const auto &one : {frames, reference}) {
    // Frames may lie apart, as they do between the markers of a Y4M file.
    if (one.ndim() != 2 || one.shape(1) < py::ssize_t(width) * height || one.strides(1) != 1)
      throw py::value_error("frames must be uint8 [num_frames, frame_bytes], their bytes adjacent");
  }
  if (frames.shape(0) != reference.shape(0))
    throw py::value_error(std::to_string(frames.shape(0)) + " frames and " +
                          std::to_string(reference.shape(0)) + " of the reference");
  std::vector<double> values(size_t(frames.shape(0)));
  {
    const WithoutGil release;
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = structural_similarity(frames.data() + py::ssize_t(i) * frames.strides(0),
                                        reference.data() + py::ssize_t(i) * reference.strides(0),
                                        width, height);
  }
  return array_of(values, {py::ssize_t(values.size())});
}

}  // namespace

void bind_quality(py::module_ &m) {
  m.def("ssim", &run_ssim, "frames"_a.noconvert(), "reference"_a.noconvert(), "width"_a, "height"_a,
        R"(Return the luma SSIM of every frame, float64 [num_frames], at most 1.

It is that of ffmpeg's filter ssim: windows of 8x8 samples at steps of 4. frames and reference are
uint8 [num_frames, frame_bytes], each row with a plane of width x height luma samples first; both
sides are at least 8. Raises ValueError where they differ in number or are of another form.)");
}

}  // namespace vpxrc
