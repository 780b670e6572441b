// The bindings of the encoder's passes and sessions: what both modules have, each of its own
// libvpx.
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

using namespace pybind11::literals;

namespace vpxrc {
namespace {

using Scales = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Segments = py::array_t<uint8_t, py::array::c_style>;

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
EncoderOptions options_of(const py::object &given) {
  const auto number = [&given](const char *name) { return field<int>(given, py::str(name)); };
  const auto mode = field<std::string>(given, py::str("rate_control"));
  EncoderOptions options;
  options.target_bitrate = number("target_bitrate");
  options.cpu_used = number("cpu_used");
  options.lag_in_frames = number("lag_in_frames");
  options.auto_alt_ref = number("auto_alt_ref");
  options.tpl = field<bool>(given, py::str("tpl"));
  options.threads = number("threads");
  options.key_frame_max_distance = number("key_frame_max_distance");
  options.min_quantizer = number("min_quantizer");
  options.max_quantizer = number("max_quantizer");
  options.rate_control = mode == "q"    ? RateControl::kQ
                         : mode == "cq" ? RateControl::kCq
                                        : RateControl::kVbr;
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
  py::handle region = PyUnicode_InternFromString("region");
  py::handle block_scale = PyUnicode_InternFromString("block_scale");
  py::handle segment_map = PyUnicode_InternFromString("segment_map");
  py::handle segment_q_offset = PyUnicode_InternFromString("segment_q_offset");
};

// Factors on lambda; empty for None. Throws ValueError where one is out of range.
std::vector<float> scales_of(const py::object &given, py::handle name) {
  const auto map = field<std::optional<Scales>>(given, name);
  if (!map.has_value()) return {};
  std::vector<float> scales(map->data(), map->data() + map->size());
  if (scales.empty() || !std::all_of(scales.begin(), scales.end(), is_scale))
    throw py::value_error(std::string(py::str(name)) + " must be in (0, 64] everywhere");
  return scales;
}

// A vpxrc.Region. Throws ValueError or TypeError, which name the field that is out of range.
Region region_of(const py::object &given, const DecisionNames &name) {
  Region region;
  region.block_scale = scales_of(given, name.block_scale);
  const auto map = field<std::optional<Segments>>(given, name.segment_map);
  const auto offsets = field<std::vector<int32_t>>(given, name.segment_q_offset);
  if (offsets.size() > VPXRC_SEGMENTS ||
      !std::all_of(offsets.begin(), offsets.end(), [](int q) { return q >= -255 && q <= 255; }))
    throw py::value_error("segment_q_offset must have at most " + std::to_string(VPXRC_SEGMENTS) +
                          " offsets in -255..255");
  std::copy(offsets.begin(), offsets.end(), region.segment_q_offset.begin());
  if (!map.has_value()) return region;
  region.segment_map.assign(map->data(), map->data() + map->size());
  if (region.segment_map.empty() ||
      *std::max_element(region.segment_map.begin(), region.segment_map.end()) >= offsets.size())
    throw py::value_error("segment_map must have segments that segment_q_offset has");
  return region;
}

// A vpxrc.Decision. Throws ValueError or TypeError, which name the field that is out of range.
Decision decision_of(const py::object &given) {
  static const DecisionNames name;
  Decision decision;
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
  decision.superblock_scale = scales_of(given, name.superblock_scale);
  const py::object region = given.attr(name.region);
  if (!region.is_none()) decision.region = region_of(region, name);
  return decision;
}

py::list packet_list(const std::vector<Packet> &packets) {
  py::list out;
  for (const auto &packet : packets) out.append(py::make_tuple(py::bytes(packet.data), packet.pts));
  return out;
}

// An EncodeSession that owns the frames it reads. It closes without the GIL. Where the encoder's
// thread does not end in time, the frames are kept alive for good, since it may still read them.
class Session {
 public:
  Session(py::array frames, int width, int height, int fps_num, int fps_den,
          const py::object &options, const py::bytes &first_pass_stats, bool observe,
          bool plan_groups, bool keep_reconstruction,
          const std::optional<std::vector<py::object>> &script, std::shared_ptr<ReadyQueue> queue,
          int64_t id)
      : frames_(std::move(frames)),
        session_(source_of(frames_, width, height, fps_num, fps_den), options_of(options),
                 first_pass_stats, {observe, plan_groups, keep_reconstruction, script_of(script)},
                 std::move(queue), id) {}
  ~Session() { close(30.0); }

  bool close(double grace_s) {
    bool ended;
    {
      const WithoutGil release;
      ended = session_.close(grace_s);
    }
    if (!ended) frames_.inc_ref();
    return ended;
  }

  State wait(double timeout_s) const {
    check_open();
    const WithoutGil release;
    return session_.wait(timeout_s);
  }

  State step(const py::object &given, double timeout_s) {
    expect(State::kFrame, kNoFrame);
    Decision decision = decision_of(given);
    const WithoutGil release;
    if (!session_.answer(std::move(decision))) throw std::runtime_error(kNoFrame);
    return timeout_s > 0 ? session_.wait(timeout_s) : State::kRunning;
  }

  State step_group(const std::optional<std::vector<int16_t>> &plan, double timeout_s) {
    expect(State::kGroup, kNoGroup);
    std::vector<int16_t> q_indices = plan.value_or(std::vector<int16_t>{});
    const size_t size = size_t(group().size);
    if (!q_indices.empty() && q_indices.size() != size && q_indices.size() != size + 1)
      throw py::value_error("a plan of " + std::to_string(q_indices.size()) +
                            " q indices for a group of " + std::to_string(size));
    for (const int16_t q : q_indices) check_q(q);
    const WithoutGil release;
    if (!session_.answer_group(std::move(q_indices))) throw std::runtime_error(kNoGroup);
    return timeout_s > 0 ? session_.wait(timeout_s) : State::kRunning;
  }

  State state() const { return session_.wait(0); }
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
      const TplStats &tpl = session.tpl();
      if (tpl.values.empty()) return std::nullopt;
      return array_of(tpl.values, {tpl.frames, tpl.rows, tpl.cols, VPXRC_TPL_FIELDS});
    });
  }

  py::array_t<FrameRecord> records(size_t start) const {
    return at_rest([start](const auto &session) {
      const auto &records = session.records();
      const size_t first = std::min(start, records.size());
      // Copied here, since numpy copies records field by field.
      py::array_t<FrameRecord> rows(py::ssize_t(records.size() - first));
      std::copy(records.begin() + ptrdiff_t(first), records.end(), rows.mutable_data());
      return rows;
    });
  }

  py::array_t<double> first_pass() const {
    return at_rest([](const auto &session) {
      const auto &stats = session.first_pass();
      const size_t frames = stats.size() / VPXRC_FIRST_PASS_FIELDS;
      return array_of(stats, {py::ssize_t(frames), VPXRC_FIRST_PASS_FIELDS});
    });
  }

  std::optional<py::array> reconstruction() const {
    return at_rest([](const auto &session) -> std::optional<py::array> {
      const auto &bytes = session.reconstruction();
      if (bytes.empty()) return std::nullopt;
      const py::dtype type =
          session.bit_depth() > 8 ? py::dtype::of<uint16_t>() : py::dtype::of<uint8_t>();
      return py::array(type, {py::ssize_t(bytes.size()) / type.itemsize()}, bytes.data());
    });
  }

 private:
  static std::optional<std::vector<Decision>> script_of(
      const std::optional<std::vector<py::object>> &given) {
    if (!given.has_value()) return std::nullopt;
    std::vector<Decision> script;
    script.reserve(given->size());
    for (const py::object &decision : *given) script.push_back(decision_of(decision));
    return script;
  }

  void check_open() const {
    if (session_.is_closed()) throw std::runtime_error("the session is closed");
  }

  void expect(State wanted, const char *complaint) const {
    check_open();
    if (state() != wanted) throw std::runtime_error(complaint);
  }

  // Reads the encoder's own data while its thread cannot write them.
  template <typename Read>
  std::invoke_result_t<Read, const EncodeSession &> at_rest(Read read) const {
    const EncodeSession::Rest rest(session_);
    return read(session_);
  }

  static constexpr const char *kNoFrame = "no frame waits for a decision";
  static constexpr const char *kNoGroup = "no group waits for a plan";

  py::array frames_;
  EncodeSession session_;
};

py::bytes first_pass(const py::array &frames, int width, int height, int fps_num, int fps_den,
                     const py::object &options) {
  const Source source = source_of(frames, width, height, fps_num, fps_den);
  const EncoderOptions native = options_of(options);
  std::string stats;
  {
    const WithoutGil release;
    stats = run_first_pass(source, native);
  }
  return stats;
}

py::list plain_second_pass(const py::array &frames, int width, int height, int fps_num, int fps_den,
                           const py::object &options, const std::string &first_pass_stats) {
  const Source source = source_of(frames, width, height, fps_num, fps_den);
  const EncoderOptions native = options_of(options);
  std::vector<Packet> packets;
  {
    const WithoutGil release;
    packets = run_plain_second_pass(source, native, first_pass_stats);
  }
  return packet_list(packets);
}

}  // namespace

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

void bind_session(py::module_ &m) {
  m.def("num_running", &EncodeSession::num_running,
        "Return the number of this process's sessions whose encoder has not ended.");

  py::class_<Session>(m, "Session", R"(One second-pass encode on its own native thread.

Reading a property while the encoder runs raises RuntimeError, except for state and progress.)")
      .def(py::init<py::array, int, int, int, int, const py::object &, const py::bytes &, bool,
                    bool, bool, const std::optional<std::vector<py::object>> &,
                    std::shared_ptr<ReadyQueue>, int64_t>(),
           "frames"_a.noconvert(), "width"_a, "height"_a, "fps_num"_a, "fps_den"_a, "options"_a,
           "first_pass_stats"_a, py::kw_only(), "observe"_a = false, "plan_groups"_a = false,
           "keep_reconstruction"_a = false, "script"_a = py::none(), "queue"_a = nullptr,
           "id"_a = 0, R"(Start the encode.

frames is I420, uint8 [num_frames, frame_samples] or, in _native_high, uint16 with 10 bits, and is
read in place; width and height are in samples, fps_num / fps_den in frames per second. options is a vpxrc.EncoderOptions, first_pass_stats
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
          "The frame coded last, I420 [frame_samples], of the type of frames; None where it is not "
          "kept.")
      .def_property_readonly("error", &Session::error,
                             "Why the encode failed, in libvpx's words; empty where it has not.")
      .def_property_readonly(
          "encode_seconds", &Session::encode_seconds,
          "Wall time of the encoder's thread in seconds, waits for answers left out.")
      .def_property_readonly("cpu_seconds", &Session::cpu_seconds,
                             "Processor time of the encoder's thread in seconds.");
}

}  // namespace vpxrc
