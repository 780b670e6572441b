// What the bindings of vpxrc._native share: arrays in and out, and the parts of the module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "encode_session.hpp"
#include "without_gil.hpp"

namespace vpxrc {

namespace py = pybind11;

using Frames = py::array_t<uint8_t, py::array::c_style>;

// The clip that frames hold. Throws std::invalid_argument where they do not have its geometry.
inline Source source_of(const Frames &frames, int width, int height, int fps_num, int fps_den) {
  Source source{frames.data(), 0, width, height, fps_num, fps_den};
  if (width < 1 || height < 1 || fps_num < 1 || fps_den < 1)
    throw std::invalid_argument("width, height and frame rate must be positive");
  if (frames.ndim() != 2 || size_t(frames.shape(1)) != source.frame_bytes())
    throw std::invalid_argument("frames must be uint8 [num_frames, " +
                                std::to_string(source.frame_bytes()) + "], C-contiguous");
  source.num_frames = int(frames.shape(0));
  if (source.num_frames < 1) throw std::invalid_argument("no frames");
  return source;
}

template <typename T>
py::array_t<T> array_of(const std::vector<T> &values, const std::vector<py::ssize_t> &shape) {
  return py::array_t<T>(shape, values.data());
}

void bind_model(py::module_ &m);
void bind_quality(py::module_ &m);

}  // namespace vpxrc
