// What the bindings of vpxrc._native and vpxrc._native_high share: arrays in and out, and the parts
// of the modules.
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

// The clip that frames hold: uint8 samples of 8 bits, or uint16 ones of 10. Throws
// std::invalid_argument where they do not have its geometry.
inline Source source_of(const py::array &frames, int width, int height, int fps_num, int fps_den) {
  if (width < 1 || height < 1 || fps_num < 1 || fps_den < 1)
    throw std::invalid_argument("width, height and frame rate must be positive");
  const bool is_deep = py::isinstance<py::array_t<uint16_t, py::array::c_style>>(frames);
  Source source{static_cast<const uint8_t *>(frames.data()),
                0,
                width,
                height,
                fps_num,
                fps_den,
                is_deep ? 10 : 8};
  if ((!is_deep && !py::isinstance<py::array_t<uint8_t, py::array::c_style>>(frames)) ||
      frames.ndim() != 2 || size_t(frames.shape(1)) != source.frame_samples())
    throw std::invalid_argument("frames must be uint8 or uint16 [num_frames, " +
                                std::to_string(source.frame_samples()) + "], C-contiguous");
  source.num_frames = int(frames.shape(0));
  if (source.num_frames < 1) throw std::invalid_argument("no frames");
  return source;
}

template <typename T>
py::array_t<T> array_of(const std::vector<T> &values, const std::vector<py::ssize_t> &shape) {
  return py::array_t<T>(shape, values.data());
}

void bind_passes(py::module_ &m);
void bind_session(py::module_ &m);
void bind_model(py::module_ &m);
void bind_quality(py::module_ &m);

}  // namespace vpxrc
