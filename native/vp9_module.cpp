// The module vpxrc._native: the encoder of 8-bit video, and the types that the module
// vpxrc._native_high has, too. session_bindings.cpp has the bindings of sessions,
// dependency_bindings.cpp the model's, and quality_bindings.cpp those of what measures.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "bindings.hpp"
#include "encode_session.hpp"
#include "map_guard.hpp"
#include "vpx/vpx_codec.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

void bind_constants(py::module_ &m) {
  m.attr("LIBVPX_VERSION") = VPXRC_LIBVPX_VERSION;
  m.attr("LIBVPX_SHA256") = VPXRC_LIBVPX_SHA256;
  m.attr("LIBVPX_BUILD") = VPXRC_LIBVPX_BUILD;
  m.attr("FIRST_PASS_FIELDS") = py::make_tuple(
      "frame", "weight", "intra_error", "coded_error", "sr_coded_error", "frame_noise_energy",
      "pcnt_inter", "pcnt_motion", "pcnt_second_ref", "pcnt_neutral", "pcnt_intra_low",
      "pcnt_intra_high", "intra_skip_pct", "intra_smooth_pct", "inactive_zone_rows",
      "inactive_zone_cols", "mv_row", "mv_row_abs", "mv_col", "mv_col_abs", "mv_row_variance",
      "mv_col_variance", "mv_in_out_count", "duration", "count", "new_mv_count");
  m.attr("TPL_FIELDS") = py::make_tuple("intra_cost", "inter_cost", "mc_flow", "mc_dep_cost",
                                        "mc_ref_cost", "reference", "mv_row", "mv_col");
  // clang-format off
  PYBIND11_NUMPY_DTYPE_EX(vpxrc::FrameRecord,
      place.coding_index, "coding_index", place.show_index, "show_index",
      place.group_index, "group_index", place.group_position, "group_position",
      place.update_type, "update_type", place.layer_depth, "layer_depth",
      place.is_key, "is_key", place.is_shown, "is_shown",
      is_shown_again, "is_shown_again", q_index, "q_index", tpl_q_index, "tpl_q_index",
      libvpx_q_index, "libvpx_q_index", rdmult, "rdmult", target_bits, "target_bits",
      lambda_scale, "lambda_scale", bits, "bits", sse_y, "sse_y", sse_u, "sse_u", sse_v, "sse_v",
      recode_trace, "recode_trace");
  // clang-format on
  m.attr("FRAME_RECORD") = py::dtype::of<vpxrc::FrameRecord>();

  m.def(
      "ac_quantizer", [](int q_index) { return vpxrc_ac_quantizer(q_index, 8); }, "q_index"_a,
      "Return the AC quantiser step of a q index 0..255, in eighths of a sample of 8 bits.");
  m.def(
      "linked_version", [] { return vpx_codec_version_str(); },
      "Return the version string of the libvpx that is linked in.");
}

void bind_group(py::module_ &m) {
  py::class_<vpxrc_group> group(m, "Group", R"(A golden-frame group as libvpx planned it.

Position 0 is its key, golden or overlay frame. Arrays are int32 [size], in coding order.)");
  group.def_readonly("index", &vpxrc_group::index, "Number of the group within the encode.")
      .def_readonly("size", &vpxrc_group::size,
                    "Number of frames in the group, those shown again included.")
      .def_readonly("first_show_index", &vpxrc_group::first_show_index,
                    "Display index of position 0.")
      .def_readonly("max_layer_depth", &vpxrc_group::max_layer_depth,
                    "Depth of the group's deepest layer.")
      .def_readonly("key_boost", &vpxrc_group::key_boost, "libvpx's boost for the last key frame.")
      .def_property_readonly(
          "is_key_forced", [](const vpxrc_group &g) { return g.is_key_forced != 0; },
          "Whether the last key frame is there because of the greatest distance, without a cut.")
      .def_readonly(
          "zero_motion_share", &vpxrc_group::zero_motion_share,
          "Percentage of samples without motion from the last key frame to the next one.");
  using Column = int32_t (vpxrc_group::*)[VPXRC_MAX_GROUP];
  const auto column = [&group](const char *name, Column values, const char *doc) {
    group.def_property_readonly(
        name, [values](const vpxrc_group &g) { return py::array_t<int32_t>(g.size, g.*values); },
        doc);
  };
  column("update_type", &vpxrc_group::update_type,
         "0 key, 1 leaf, 2 golden, 3 ARF, 4 overlay, 6 shown again.");
  column("layer_depth", &vpxrc_group::layer_depth,
         "Layer of each frame: 0 key and golden, 1 base ARF, larger numbers for deeper layers.");
  column("show_index", &vpxrc_group::show_index, "Display index of each frame.");
  column("bit_allocation", &vpxrc_group::bit_allocation,
         "Bits that libvpx's own rate control allocates to each frame.");
  column("gfu_boost", &vpxrc_group::gfu_boost,
         "libvpx's boost for golden and alternate reference frames.");
  group.def_property_readonly(
      "references",
      [](const vpxrc_group &g) { return py::array_t<int32_t>({g.size, 3}, &g.references[0][0]); },
      "Group positions of each frame's last, golden and altref reference, int32 [size, 3]; -1 is a "
      "frame before the group.");
}

void bind_frame(py::module_ &m) {
  py::class_<vpxrc_frame> frame(m, "Frame", "A frame that is about to be coded.");
  const auto place = [&frame](const char *name, int32_t vpxrc_place::*value, const char *doc) {
    frame.def_property_readonly(
        name, [value](const vpxrc_frame &f) { return f.place.*value; }, doc);
  };
  place("coding_index", &vpxrc_place::coding_index,
        "Position in coding order. Frames shown again count.");
  place("show_index", &vpxrc_place::show_index, "Display index of the frame's source.");
  place("group_index", &vpxrc_place::group_index,
        "Number of the frame's golden-frame group within the encode.");
  place("group_position", &vpxrc_place::group_position,
        "Position in the golden-frame group, in coding order.");
  place("update_type", &vpxrc_place::update_type, "0 key, 1 leaf, 2 golden, 3 ARF, 4 overlay.");
  place("layer_depth", &vpxrc_place::layer_depth,
        "0 key and golden, 1 base ARF, larger numbers for deeper layers.");
  frame
      .def_property_readonly(
          "is_key", [](const vpxrc_frame &f) { return f.place.is_key != 0; },
          "Whether it is a key frame.")
      .def_property_readonly(
          "is_shown", [](const vpxrc_frame &f) { return f.place.is_shown != 0; },
          "Whether it is shown when it is coded. False for an ARF.")
      .def_readonly("tpl_q_index", &vpxrc_frame::tpl_q_index,
                    "Provisional q index, 0..255, that the last TPL pass took for it; -1 = none.")
      .def_property_readonly(
          "reference_coding_index",
          [](const vpxrc_frame &f) {
            const auto &index = f.reference_coding_index;
            return py::make_tuple(index[0], index[1], index[2]);
          },
          "Coding indices of the last, golden and altref reference; -1 = none.")
      .def_readonly("libvpx_q_index", &vpxrc_frame::libvpx_q_index,
                    "The q index that libvpx's own rate control would take, 0..255.")
      .def_readonly("libvpx_q_low", &vpxrc_frame::libvpx_q_low,
                    "The lowest q index that libvpx would take, 0..255.")
      .def_readonly("libvpx_q_high", &vpxrc_frame::libvpx_q_high,
                    "The highest q index that libvpx would take, 0..255.")
      .def_readonly("libvpx_rdmult", &vpxrc_frame::libvpx_rdmult,
                    "libvpx's lambda (rdmult) for the frame at libvpx_q_index.")
      .def_readonly("target_bits", &vpxrc_frame::target_bits,
                    "Bits that libvpx's own rate control wants to spend on the frame.")
      .def_readonly("gfu_boost", &vpxrc_frame::gfu_boost,
                    "libvpx's boost for golden and alternate reference frames.")
      .def_readonly("frames_to_key", &vpxrc_frame::frames_to_key,
                    "Number of frames to the next key frame.")
      .def_property_readonly(
          "has_tpl", [](const vpxrc_frame &f) { return f.has_tpl != 0; },
          "Whether the group's TPL statistics are there for the frame.")
      .def_property_readonly(
          "takes_superblock_scale",
          [](const vpxrc_frame &f) { return f.takes_superblock_scale != 0; },
          "Whether a map of superblock scales has an effect on the frame. It has none where TPL is "
          "off, at position 0 of a group and for an ARF deeper than layer 3.")
      .def_readonly("r0", &vpxrc_frame::r0,
                    "intra_cost / mc_dep_cost over the frame, in (0, 1]; NaN without TPL.");
}

void bind_types(py::module_ &m) {
  bind_constants(m);
  py::enum_<vpxrc::State>(m, "State", "What a session is doing.")
      .value("RUNNING", vpxrc::State::kRunning, "The encoder works.")
      .value("GROUP", vpxrc::State::kGroup, "A new group waits for provisional q indices.")
      .value("FRAME", vpxrc::State::kFrame, "A frame waits for its decision.")
      .value("DONE", vpxrc::State::kDone, "The stream is complete.")
      .value("FAILED", vpxrc::State::kFailed, "The encode ended early; see Session.error.");
  bind_group(m);
  bind_frame(m);
}

void bind_maps(py::module_ &m) {
  m.def(
      "watch_map",
      [](const py::buffer &map, int descriptor) {
        const py::buffer_info info = map.request();
        return vpxrc::watch_map(info.ptr, size_t(info.size * info.itemsize), descriptor);
      },
      "map"_a, "descriptor"_a,
      R"(Watch the memory map of a file, and return a number for forget_map().

Where another program cuts the file, reading beyond its new end gives zeros and is_cut() is true.
Without this the process would end by SIGBUS. The map begins where the file does.)");
  m.def("forget_map", &vpxrc::forget_map, "number"_a,
        "Watch a map no longer. Must come before it is unmapped.");
  m.def(
      "is_cut", [](const py::buffer &map) { return vpxrc::is_cut(map.request().ptr); }, "map"_a,
      "Return whether the file of the watched map that an array begins in was cut.");
}

void bind_queue(py::module_ &m) {
  py::class_<vpxrc::ReadyQueue, std::shared_ptr<vpxrc::ReadyQueue>>(
      m, "ReadyQueue", "Ids of sessions that need an answer, in the order in which they came.")
      .def(py::init<>(), "Make an empty queue.")
      .def("pop", &vpxrc::ReadyQueue::pop, "timeout_s"_a, py::call_guard<vpxrc::WithoutGil>(),
           "Return the next id, or None after timeout_s seconds.")
      .def("push", &vpxrc::ReadyQueue::push, "id"_a, "Add the id of a session that is at rest.");
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "libvpx's VP9 two-pass encoder, opened frame by frame.";
  bind_types(m);
  bind_queue(m);
  bind_maps(m);
  vpxrc::bind_passes(m);
  vpxrc::bind_session(m);
  vpxrc::bind_model(m);
  vpxrc::bind_quality(m);
  vpxrc::ExitGate::close_at_exit();
}
