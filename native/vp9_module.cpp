// The module vpxrc._native: the bindings of the encoder. dependency_bindings.cpp has the model's,
// and quality_bindings.cpp those of what measures.
//
// Every call that may wait releases the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "encode_session.hpp"
#include "map_guard.hpp"
#include "vpx/vpx_codec.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using vpxrc::array_of;
using vpxrc::Frames;
using vpxrc::source_of;
using Scales = py::array_t<float, py::array::c_style | py::array::forcecast>;

// An attribute of a Python object, as a T. Throws TypeError where it is something else.
template <typename T>
T field(const py::object &owner, py::handle name) {
  const py::object value = owner.attr(name);
  try {
    return py::cast<T>(value);
  } catch (const py::cast_error &) {
    throw py::type_error(std::string(py::str(name)) + " cannot be " + std::string(py::repr(value)));
  }
}

// A vpxrc.EncoderOptions, which has checked its ranges itself.
vpxrc::EncoderOptions options_of(const py::object &given) {
  const auto number = [&given](const char *name) { return field<int>(given, py::str(name)); };
  const auto mode = field<std::string>(given, py::str("rate_control"));
  vpxrc::EncoderOptions options;
  options.target_bitrate = number("target_bitrate");
  options.cpu_used = number("cpu_used");
  options.lag_in_frames = number("lag_in_frames");
  options.auto_alt_ref = number("auto_alt_ref");
  options.tpl = field<bool>(given, py::str("tpl"));
  options.threads = number("threads");
  options.key_frame_max_distance = number("key_frame_max_distance");
  options.min_quantizer = number("min_quantizer");
  options.max_quantizer = number("max_quantizer");
  options.rate_control = mode == "q"    ? vpxrc::RateControl::kQ
                         : mode == "cq" ? vpxrc::RateControl::kCq
                                        : vpxrc::RateControl::kVbr;
  options.cq_level = number("cq_level");
  return options;
}

void check_q(int q) {
  if (q < VPXRC_LIBVPX_Q || q > 255)
    throw py::value_error("q_index " + std::to_string(q) + " is not in 0..255 (or -1: libvpx's)");
}

bool is_scale(double value) { return std::isfinite(value) && value > 0.0 && value <= 64.0; }

// The names of a decision's fields, made once: the path of a step makes no strings.
struct DecisionNames {
  py::handle q_index = PyUnicode_InternFromString("q_index");
  py::handle lambda_scale = PyUnicode_InternFromString("lambda_scale");
  py::handle superblock_scale = PyUnicode_InternFromString("superblock_scale");
  py::handle delta_q_uv = PyUnicode_InternFromString("delta_q_uv");
  py::handle recode_trace = PyUnicode_InternFromString("recode_trace");
};

// A vpxrc.Decision. Throws ValueError or TypeError, which name the field that is out of range.
vpxrc::Decision decision_of(const py::object &given) {
  static const DecisionNames name;
  vpxrc::Decision decision;
  decision.q_index = field<int>(given, name.q_index);
  check_q(decision.q_index);
  decision.lambda_scale = field<double>(given, name.lambda_scale);
  if (!is_scale(decision.lambda_scale)) throw py::value_error("lambda_scale must be in (0, 64]");
  decision.delta_q_uv = field<int>(given, name.delta_q_uv);
  if (decision.delta_q_uv < -15 || decision.delta_q_uv > 15)
    throw py::value_error("delta_q_uv must be in -15..15");
  decision.recode_trace = field<std::vector<int32_t>>(given, name.recode_trace);
  if (!decision.recode_trace.empty() && decision.recode_trace.size() != VPXRC_TRACE_FIELDS)
    throw py::value_error("recode_trace must have " + std::to_string(VPXRC_TRACE_FIELDS) +
                          " fields, as in the encode log");
  const auto map = field<std::optional<Scales>>(given, name.superblock_scale);
  if (map.has_value()) {
    decision.superblock_scale.assign(map->data(), map->data() + map->size());
    if (!std::all_of(decision.superblock_scale.begin(), decision.superblock_scale.end(), is_scale))
      throw py::value_error("superblock_scale must be in (0, 64] everywhere");
  }
  return decision;
}

py::list packet_list(const std::vector<vpxrc::Packet> &packets) {
  py::list out;
  for (const auto &packet : packets) out.append(py::make_tuple(py::bytes(packet.data), packet.pts));
  return out;
}

// An EncodeSession that owns the frames it reads. It closes without the GIL. Where the encoder's
// thread does not end in time, the frames are kept alive for good, since it may still read them.
class Session {
 public:
  Session(Frames frames, int width, int height, int fps_num, int fps_den, const py::object &options,
          const py::bytes &first_pass_stats, bool observe, bool plan_groups,
          bool keep_reconstruction, const std::optional<std::vector<py::object>> &script,
          std::shared_ptr<vpxrc::ReadyQueue> queue, int64_t id)
      : frames_(std::move(frames)),
        session_(source_of(frames_, width, height, fps_num, fps_den), options_of(options),
                 first_pass_stats, {observe, plan_groups, keep_reconstruction, script_of(script)},
                 std::move(queue), id) {}
  ~Session() { close(30.0); }

  bool close(double grace_s) {
    bool ended;
    {
      const vpxrc::WithoutGil release;
      ended = session_.close(grace_s);
    }
    if (!ended) frames_.inc_ref();
    return ended;
  }

  vpxrc::State wait(double timeout_s) const {
    check_open();
    const vpxrc::WithoutGil release;
    return session_.wait(timeout_s);
  }

  vpxrc::State step(const py::object &given, double timeout_s) {
    expect(vpxrc::State::kFrame, kNoFrame);
    vpxrc::Decision decision = decision_of(given);
    const vpxrc::WithoutGil release;
    if (!session_.answer(std::move(decision))) throw std::runtime_error(kNoFrame);
    return timeout_s > 0 ? session_.wait(timeout_s) : vpxrc::State::kRunning;
  }

  vpxrc::State step_group(const std::optional<std::vector<int16_t>> &plan, double timeout_s) {
    expect(vpxrc::State::kGroup, kNoGroup);
    std::vector<int16_t> q_indices = plan.value_or(std::vector<int16_t>{});
    const size_t size = size_t(group().size);
    if (!q_indices.empty() && q_indices.size() != size && q_indices.size() != size + 1)
      throw py::value_error("a plan of " + std::to_string(q_indices.size()) +
                            " q indices for a group of " + std::to_string(size));
    for (const int16_t q : q_indices) check_q(q);
    const vpxrc::WithoutGil release;
    if (!session_.answer_group(std::move(q_indices))) throw std::runtime_error(kNoGroup);
    return timeout_s > 0 ? session_.wait(timeout_s) : vpxrc::State::kRunning;
  }

  vpxrc::State state() const { return session_.wait(0); }
  int64_t progress() const { return session_.progress(); }
  vpxrc_frame frame() const {
    return at_rest([](const auto &session) { return session.frame(); });
  }
  vpxrc_group group() const {
    return at_rest([](const auto &session) { return session.group(); });
  }
  py::list packets() const {
    return at_rest([](const auto &session) { return packet_list(session.packets()); });
  }
  std::string error() const {
    return at_rest([](const auto &session) { return session.error(); });
  }
  double encode_seconds() const {
    return at_rest([](const auto &session) { return session.encode_seconds(); });
  }
  double cpu_seconds() const {
    return at_rest([](const auto &session) { return session.cpu_seconds(); });
  }

  std::optional<py::array_t<double>> tpl() const {
    return at_rest([](const auto &session) -> std::optional<py::array_t<double>> {
      const vpxrc::TplStats &tpl = session.tpl();
      if (tpl.values.empty()) return std::nullopt;
      return array_of(tpl.values, {tpl.frames, tpl.rows, tpl.cols, VPXRC_TPL_FIELDS});
    });
  }

  py::array_t<vpxrc::FrameRecord> records(size_t start) const {
    return at_rest([start](const auto &session) {
      const auto &records = session.records();
      const size_t first = std::min(start, records.size());
      return py::array_t<vpxrc::FrameRecord>(py::ssize_t(records.size() - first),
                                             records.data() + first);
    });
  }

  py::array_t<double> first_pass() const {
    return at_rest([](const auto &session) {
      const auto &stats = session.first_pass();
      const size_t frames = stats.size() / VPXRC_FIRST_PASS_FIELDS;
      return array_of(stats, {py::ssize_t(frames), VPXRC_FIRST_PASS_FIELDS});
    });
  }

  std::optional<py::array_t<uint8_t>> reconstruction() const {
    return at_rest([](const auto &session) -> std::optional<py::array_t<uint8_t>> {
      const auto &samples = session.reconstruction();
      if (samples.empty()) return std::nullopt;
      return array_of(samples, {py::ssize_t(samples.size())});
    });
  }

 private:
  static std::optional<std::vector<vpxrc::Decision>> script_of(
      const std::optional<std::vector<py::object>> &given) {
    if (!given.has_value()) return std::nullopt;
    std::vector<vpxrc::Decision> script;
    script.reserve(given->size());
    for (const py::object &decision : *given) script.push_back(decision_of(decision));
    return script;
  }

  void check_open() const {
    if (session_.is_closed()) throw std::runtime_error("the session is closed");
  }

  void expect(vpxrc::State wanted, const char *complaint) const {
    check_open();
    if (state() != wanted) throw std::runtime_error(complaint);
  }

  // Reads the encoder's own data while its thread cannot write them.
  template <typename Read>
  std::invoke_result_t<Read, const vpxrc::EncodeSession &> at_rest(Read read) const {
    const vpxrc::EncodeSession::Rest rest(session_);
    return read(session_);
  }

  static constexpr const char *kNoFrame = "no frame waits for a decision";
  static constexpr const char *kNoGroup = "no group waits for a plan";

  Frames frames_;
  vpxrc::EncodeSession session_;
};

py::bytes first_pass(const Frames &frames, int width, int height, int fps_num, int fps_den,
                     const py::object &options) {
  const vpxrc::Source source = source_of(frames, width, height, fps_num, fps_den);
  const vpxrc::EncoderOptions native = options_of(options);
  std::string stats;
  {
    const vpxrc::WithoutGil release;
    stats = vpxrc::run_first_pass(source, native);
  }
  return stats;
}

py::list plain_second_pass(const Frames &frames, int width, int height, int fps_num, int fps_den,
                           const py::object &options, const std::string &first_pass_stats) {
  const vpxrc::Source source = source_of(frames, width, height, fps_num, fps_den);
  const vpxrc::EncoderOptions native = options_of(options);
  std::vector<vpxrc::Packet> packets;
  {
    const vpxrc::WithoutGil release;
    packets = vpxrc::run_plain_second_pass(source, native, first_pass_stats);
  }
  return packet_list(packets);
}

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

  m.def("ac_quantizer", &vpxrc_ac_quantizer, "q_index"_a,
        "Return the AC quantiser step of a q index 0..255, in eighths of a sample (8-bit video).");
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

void bind_passes(py::module_ &m) {
  m.def("run_first_pass", &first_pass, "frames"_a.noconvert(), "width"_a, "height"_a, "fps_num"_a,
        "fps_den"_a, "options"_a, R"(Return a clip's first-pass statistics, as libvpx's opaque blob.

Arguments as for Session. Raises RuntimeError with libvpx's own words.)");
  m.def("run_plain_second_pass", &plain_second_pass, "frames"_a.noconvert(), "width"_a, "height"_a,
        "fps_num"_a, "fps_den"_a, "options"_a, "first_pass_stats"_a,
        R"(Return the stream of a second pass with nothing attached, as (bytes, pts) per packet.

One plain C++ loop: the yardstick of the tests and benchmarks. Arguments as for Session. Raises
RuntimeError with libvpx's own words.)");
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

void bind_session(py::module_ &m) {
  py::class_<vpxrc::ReadyQueue, std::shared_ptr<vpxrc::ReadyQueue>>(
      m, "ReadyQueue", "Ids of sessions that need an answer, in the order in which they came.")
      .def(py::init<>(), "Make an empty queue.")
      .def("pop", &vpxrc::ReadyQueue::pop, "timeout_s"_a, py::call_guard<vpxrc::WithoutGil>(),
           "Return the next id, or None after timeout_s seconds.")
      .def("push", &vpxrc::ReadyQueue::push, "id"_a, "Add the id of a session that is at rest.");

  m.def("num_running", &vpxrc::EncodeSession::num_running,
        "Return the number of this process's sessions whose encoder has not ended.");

  py::class_<Session>(m, "Session", R"(One second-pass encode on its own native thread.

Reading a property while the encoder runs raises RuntimeError, except for state and progress.)")
      .def(py::init<Frames, int, int, int, int, const py::object &, const py::bytes &, bool, bool,
                    bool, const std::optional<std::vector<py::object>> &,
                    std::shared_ptr<vpxrc::ReadyQueue>, int64_t>(),
           "frames"_a.noconvert(), "width"_a, "height"_a, "fps_num"_a, "fps_den"_a, "options"_a,
           "first_pass_stats"_a, py::kw_only(), "observe"_a = false, "plan_groups"_a = false,
           "keep_reconstruction"_a = false, "script"_a = py::none(), "queue"_a = nullptr,
           "id"_a = 0, R"(Start the encode.

frames is I420, uint8 [num_frames, frame_bytes], and is read in place; width and height are in
samples, fps_num / fps_den in frames per second. options is a vpxrc.EncoderOptions, first_pass_stats
what run_first_pass() gives, script a list of vpxrc.Decision that are taken without stopping. With
observe libvpx decides everything; with plan_groups the session stops at every new group too; with
keep_reconstruction it keeps the frame coded last. queue is told id whenever the session needs an
answer or is over. Raises ValueError or TypeError where an argument is out of range.)")
      .def("wait", &Session::wait, "timeout_s"_a,
           "Wait until an answer is needed or the encode is over, and return the state. It is "
           "RUNNING where timeout_s seconds go by without a frame coded.")
      .def("step", &Session::step, "decision"_a, "timeout_s"_a = 0.0,
           R"(Answer the pending frame with a vpxrc.Decision.

With timeout_s > 0 wait() for what comes next. Raises ValueError or TypeError where the decision is
out of range, and RuntimeError where no frame waits for one.)")
      .def("step_group", &Session::step_group, "plan"_a, "timeout_s"_a = 0.0,
           R"(Answer the pending group with provisional q indices for its TPL pass.

plan is [size], or [size + 1] with the overlay that follows the group; -1 each, or None for all,
leaves them to libvpx. With timeout_s > 0 wait() for what comes next. Raises ValueError or TypeError
where the plan is out of range, and RuntimeError where no group waits for one.)")
      .def("close", &Session::close, "grace_s"_a = 30.0,
           "End the encode wherever it is. Return False where its thread outlives grace_s seconds.")
      .def_property_readonly("state", &Session::state, "What the session is doing right now.")
      .def_property_readonly("progress", &Session::progress,
                             "Number of frames coded so far, those shown again included.")
      .def_property_readonly("frame", &Session::frame,
                             "The frame announced last; in state FRAME it waits for its decision.")
      .def_property_readonly("group", &Session::group, "The current golden-frame group.")
      .def_property_readonly("tpl", &Session::tpl, R"(TPL statistics of the current group.

They are those after propagation: float64 [size, rows, cols, 8] in 32x32 blocks, columns TPL_FIELDS,
NaN for frames without. None before group position 1 and where libvpx runs no TPL pass.)")
      .def("records", &Session::records, "start"_a = 0,
           "Return the encode log from row start, as records of FRAME_RECORD.")
      .def_property_readonly("packets", &Session::packets,
                             "The stream so far, as (bytes, pts) per packet.")
      .def_property_readonly(
          "first_pass", &Session::first_pass,
          "First-pass statistics, float64 [num_frames, 26] in the order of FIRST_PASS_FIELDS.")
      .def_property_readonly(
          "reconstruction", &Session::reconstruction,
          "The frame coded last, I420 uint8 [frame_bytes]; None where it is not kept.")
      .def_property_readonly("error", &Session::error,
                             "Why the encode failed, in libvpx's words; empty where it has not.")
      .def_property_readonly(
          "encode_seconds", &Session::encode_seconds,
          "Wall time of the encoder's thread in seconds, waits for answers left out.")
      .def_property_readonly("cpu_seconds", &Session::cpu_seconds,
                             "Processor time of the encoder's thread in seconds.");
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "libvpx's VP9 two-pass encoder, opened frame by frame.";
  bind_types(m);
  bind_passes(m);
  bind_session(m);
  bind_maps(m);
  vpxrc::bind_model(m);
  vpxrc::bind_quality(m);
  vpxrc::ExitGate::close_at_exit();
}
