// The bindings of what measures quality.
#include <string>
#include <vector>

#include "bindings.hpp"
#include "structural_similarity.hpp"

using namespace pybind11::literals;

namespace vpxrc {
namespace {

template <typename Sample>
py::array_t<double> run_ssim(const py::array_t<Sample> &frames,
                             const py::array_t<Sample> &reference, int width, int height) {
  if (width < kSsimWindow || height < kSsimWindow)
    throw py::value_error("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
                          " is smaller than a window of 8x8");
  for (const auto &one : {frames, reference}) {
    // Frames may lie apart, as they do between the markers of a Y4M file.
    if (one.ndim() != 2 || one.shape(1) < py::ssize_t(width) * height ||
        one.strides(1) != one.itemsize() || one.strides(0) % one.itemsize() != 0)
      throw py::value_error("frames must be [num_frames, frame_samples], their samples adjacent");
  }
  if (frames.shape(0) != reference.shape(0))
    throw py::value_error(std::to_string(frames.shape(0)) + " frames and " +
                          std::to_string(reference.shape(0)) + " of the reference");
  std::vector<double> values(size_t(frames.shape(0)));
  {
    const WithoutGil release;
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = structural_similarity(frames.data(py::ssize_t(i)), reference.data(py::ssize_t(i)),
                                        width, height);
  }
  return array_of(values, {py::ssize_t(values.size())});
}

}  // namespace

void bind_quality(py::module_ &m) {
  const char *const words = R"(Return the luma SSIM of every frame, float64 [num_frames], at most 1.

It is that of ffmpeg's filter ssim: windows of 8x8 samples at steps of 4. frames and reference are
uint8, or uint16 of 10 bits, [num_frames, frame_samples], each row with a plane of width x height
luma samples first; both sides are at least 8. Raises ValueError where they differ in number or are
of another form.)";
  m.def("ssim", &run_ssim<uint8_t>, "frames"_a.noconvert(), "reference"_a.noconvert(), "width"_a,
        "height"_a, words);
  m.def("ssim", &run_ssim<uint16_t>, "frames"_a.noconvert(), "reference"_a.noconvert(), "width"_a,
        "height"_a, words);
}

}  // namespace vpxrc
