// The module vpxrc._native_high: the encoder of 10-bit video, on a libvpx of its own. A libvpx for
// high bit depths has coefficients of 32 bits, which slow 8-bit video down; hence two.
#include "bindings.hpp"

using namespace pybind11::literals;

namespace {

constexpr int kBitDepth = 10;

}  // namespace

PYBIND11_MODULE(_native_high, m, pybind11::mod_gil_not_used()) {
  m.doc() = "libvpx's VP9 two-pass encoder for 10-bit video, opened frame by frame.";
  pybind11::module_::import("vpxrc._native");  // has the types of frames, groups, states and queues
  m.attr("LIBVPX_BUILD") = VPXRC_LIBVPX_BUILD;
  m.def(
      "ac_quantizer", [](int q_index) { return vpxrc_ac_quantizer(q_index, kBitDepth); },
      "q_index"_a,
      "Return the AC quantiser step of a q index 0..255, in eighths of a sample of 10 bits.");
  vpxrc::bind_passes(m);
  vpxrc::bind_session(m);
  vpxrc::ExitGate::close_at_exit();
}
