// Bindings only. Every wait releases the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <tuple>

#include "encode_session.hpp"
#include "temporal_dependency.hpp"
#include "vpx/vpx_codec.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using Frames = py::array_t<uint8_t, py::array::c_style>;

vpxrc::Source source_of(const Frames &frames, int width, int height, int fps_num, int fps_den) {
  vpxrc::Source source{frames.data(), 0, width, height, fps_num, fps_den};
  if (width < 1 || height < 1 || fps_num < 1 || fps_den < 1)
    throw std::invalid_argument("width, height and frame rate must be positive");
  if (frames.ndim() != 2 || size_t(frames.shape(1)) != source.frame_bytes())
    throw std::invalid_argument("frames must be uint8 [num_frames, " +
                                std::to_string(source.frame_bytes()) + "], C-contiguous");
  source.num_frames = int(frames.shape(0));
  if (source.num_frames < 1) throw std::invalid_argument("no frames");
  return source;
}

void check_q(int q) {
  if (q < VPXRC_LIBVPX_Q || q > 255)
    throw py::value_error("q_index " + std::to_string(q) + " is not in 0..255 (or -1: libvpx's)");
}

vpxrc::Decision decision_of(int q_index, double lambda_scale, const py::object &superblock_scale,
                            int delta_q_uv, std::vector<int32_t> recode_trace) {
  check_q(q_index);
  if (!std::isfinite(lambda_scale) || lambda_scale <= 0.0 || lambda_scale > 64.0)
    throw py::value_error("lambda_scale must be in (0, 64]");
  if (delta_q_uv < -15 || delta_q_uv > 15) throw py::value_error("delta_q_uv must be in -15..15");
  if (!recode_trace.empty() && recode_trace.size() != VPXRC_TRACE_FIELDS)
    throw py::value_error("recode_trace must have " + std::to_string(VPXRC_TRACE_FIELDS) +
                          " fields, as in the encode log");
  vpxrc::Decision decision{q_index, lambda_scale, {}, delta_q_uv, std::move(recode_trace)};
  if (!superblock_scale.is_none()) {
    const auto map =
        py::cast<py::array_t<float, py::array::c_style | py::array::forcecast>>(superblock_scale);
    decision.superblock_scale.assign(map.data(), map.data() + map.size());
    for (const float scale : decision.superblock_scale)
      if (!std::isfinite(scale) || scale <= 0.0f || scale > 64.0f)
        throw py::value_error("superblock_scale must be in (0, 64] everywhere");
  }
  return decision;
}

using ScriptDecision = std::tuple<int, double, py::object, int, std::vector<int32_t>>;

// An int32 array [n, 3] or [n] of a group's column.
py::array_t<int32_t> group_column(const int32_t *values, int n) {
  return py::array_t<int32_t>(n, values);
}

// A session and the owner of its frames. Closes without the GIL; where the thread does not end in
// time, the frames are kept alive for good, since it may still read them.
class Session {
 public:
  Session(Frames frames, int width, int height, int fps_num, int fps_den,
          const vpxrc::EncoderOptions &options, const py::bytes &first_pass_stats,
          vpxrc::Control control, std::shared_ptr<vpxrc::ReadyQueue> queue, int64_t id)
      : frames_(std::move(frames)),
        session_(source_of(frames_, width, height, fps_num, fps_den), options, first_pass_stats,
                 std::move(control), std::move(queue), id) {}
  ~Session() { close(30.0); }

  bool close(double grace_s) {
    bool ended;
    {
      const py::gil_scoped_release release;
      ended = session_.close(grace_s);
    }
    if (!ended) frames_.inc_ref();
    closed_ = true;
    return ended;
  }

  vpxrc::State wait(double timeout_s) {
    check_open();
    const py::gil_scoped_release release;
    return session_.wait(timeout_s);
  }

  vpxrc::State step(int q_index, double lambda_scale, const py::object &superblock_scale,
                    int delta_q_uv, const std::vector<int32_t> &recode_trace, double timeout_s) {
    expect(vpxrc::State::kFrame, "no frame waits for a decision");
    vpxrc::Decision decision =
        decision_of(q_index, lambda_scale, superblock_scale, delta_q_uv, recode_trace);
    const py::gil_scoped_release release;
    session_.answer(std::move(decision));
    return timeout_s > 0 ? session_.wait(timeout_s) : vpxrc::State::kRunning;
  }

  vpxrc::State step_group(const py::object &plan, double timeout_s) {
    expect(vpxrc::State::kGroup, "no group waits for a plan");
    std::vector<int16_t> q_indices;
    if (!plan.is_none()) q_indices = py::cast<std::vector<int16_t>>(plan);
    const size_t size = size_t(session_.group().size);
    if (!q_indices.empty() && q_indices.size() != size && q_indices.size() != size + 1)
      throw py::value_error("a plan of " + std::to_string(q_indices.size()) +
                            " q indices for a group of " + std::to_string(size));
    for (const int16_t q : q_indices) check_q(q);
    const py::gil_scoped_release release;
    session_.answer_group(std::move(q_indices));
    return timeout_s > 0 ? session_.wait(timeout_s) : vpxrc::State::kRunning;
  }

  // The encoder's own data; refused while its thread may be writing them.
  const vpxrc::EncodeSession &at_rest() const {
    if (closed_ ? false : state() == vpxrc::State::kRunning)
      throw std::runtime_error("the encoder is running: wait() first");
    return session_;
  }

  int64_t progress() const { return session_.progress(); }

  vpxrc::State state() const { return const_cast<vpxrc::EncodeSession &>(session_).wait(0); }

 private:
  void check_open() const {
    if (closed_) throw std::runtime_error("the session is closed");
  }
  void expect(vpxrc::State wanted, const char *complaint) const {
    check_open();
    if (state() != wanted) throw std::runtime_error(complaint);
  }

  Frames frames_;
  vpxrc::EncodeSession session_;
  bool closed_ = false;
};

template <typename T>
py::array_t<T> array_of(const std::vector<T> &values, const std::vector<py::ssize_t> &shape) {
  return py::array_t<T>(shape, values.data());
}

py::dict temporal_dependency(const Frames &frames, int width, int height,
                             const std::vector<int> &show_index,
                             const std::vector<std::array<int, 3>> &references,
                             const std::vector<int> &q_index, const std::vector<double> &weights,
                             bool reconstructed, int lambda_q_index, const std::string &level) {
  const vpxrc::Source source = source_of(frames, width, height, 1, 1);
  const size_t n = show_index.size();
  const auto refuse = [](const std::string &words) { throw py::value_error(words); };
  const auto check = [&refuse](const char *name, int q) {
    if (q < 1 || q > 255) refuse(name + (" " + std::to_string(q)) + " is not in 1..255");
  };
  if (width < vpxrc::kBlock || height < vpxrc::kBlock)
    refuse("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
           " is smaller than a block of 16x16");
  if (n < 2) refuse("a group of " + std::to_string(n) + " frame(s): nothing depends on anything");
  if (n > 127) refuse("a group of " + std::to_string(n) + " frames; at most 127");
  if (references.size() != n || q_index.size() != n || weights.size() != n)
    refuse("show_index, references, q_index and weights differ in length");
  const vpxrc::BlockKernels *const kernels = vpxrc::block_kernels(level);
  if (kernels == nullptr) refuse("this processor has no level '" + level + "'");
  check("lambda_q_index", lambda_q_index);
  std::vector<vpxrc::DependencyFrame> group(n);
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
  vpxrc::Dependency d;
  {
    const py::gil_scoped_release release;
    d = vpxrc::temporal_dependency(group, width, height, reconstructed, lambda_q_index, *kernels);
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

py::array tpl_array(const vpxrc::TplStats &tpl) {
  return py::array_t<double>({tpl.frames, tpl.rows, tpl.cols, VPXRC_TPL_FIELDS}, tpl.values.data());
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "libvpx's VP9 two-pass encoder, opened frame by frame.";
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
  m.def("ac_quantizer", &vpxrc_ac_quantizer, "q_index"_a,
        "The AC quantiser step of a q index 0..255, in eighths of a sample.");
  m.def(
      "linked_version", [] { return vpx_codec_version_str(); },
      "Version string of the libvpx that is linked in.");

  PYBIND11_NUMPY_DTYPE(vpxrc::FrameRecord, coding_index, show_index, group_index, group_position,
                       update_type, layer_depth, is_key, is_shown, is_shown_again, q_index,
                       tpl_q_index, libvpx_q_index, rdmult, target_bits, lambda_scale, bits, sse_y,
                       sse_u, sse_v, recode_trace);
  m.attr("FRAME_RECORD") = py::dtype::of<vpxrc::FrameRecord>();

  py::enum_<vpxrc::State>(m, "State", "What a session is doing.")
      .value("RUNNING", vpxrc::State::kRunning, "The encoder works.")
      .value("GROUP", vpxrc::State::kGroup, "A new group waits for provisional q indices.")
      .value("FRAME", vpxrc::State::kFrame, "A frame waits for its decision.")
      .value("DONE", vpxrc::State::kDone, "The stream is complete.")
      .value("FAILED", vpxrc::State::kFailed, "The encode ended early; see Session.error.");

  py::enum_<vpxrc::RateControl>(m, "RateControl", "The mode underneath.")
      .value("vbr", vpxrc::RateControl::kVbr, "Two-pass variable bitrate.")
      .value("cq", vpxrc::RateControl::kCq, "The same with a floor of q: constrained quality.")
      .value("q", vpxrc::RateControl::kQ, "Constant quality.");

  py::class_<vpxrc::EncoderOptions>(m, "EncoderOptions",
                                    "Plain options; vpxrc.EncoderOptions validates them.")
      .def(py::init([](int target_bitrate, int cpu_used, int lag_in_frames, int auto_alt_ref,
                       bool tpl, int threads, int key_frame_max_distance, int min_quantizer,
                       int max_quantizer, vpxrc::RateControl rate_control, int cq_level) {
             return vpxrc::EncoderOptions{target_bitrate,         cpu_used,      lag_in_frames,
                                          auto_alt_ref,           tpl,           threads,
                                          key_frame_max_distance, min_quantizer, max_quantizer,
                                          rate_control,           cq_level};
           }),
           py::kw_only(), "target_bitrate"_a, "cpu_used"_a, "lag_in_frames"_a, "auto_alt_ref"_a,
           "tpl"_a, "threads"_a, "key_frame_max_distance"_a, "min_quantizer"_a, "max_quantizer"_a,
           "rate_control"_a, "cq_level"_a);

  py::class_<vpxrc_group>(m, "Group", R"(A golden-frame group as libvpx planned it.

Position 0 is its key, golden or overlay frame. Arrays are int32 [size].)")
      .def_readonly("index", &vpxrc_group::index, "Number of the group within the encode.")
      .def_readonly("size", &vpxrc_group::size, "Frames, those shown again included.")
      .def_readonly("first_show_index", &vpxrc_group::first_show_index)
      .def_readonly("max_layer_depth", &vpxrc_group::max_layer_depth)
      .def_property_readonly(
          "update_type", [](const vpxrc_group &g) { return group_column(g.update_type, g.size); },
          "0 key, 1 leaf, 2 golden, 3 ARF, 4 overlay, 6 shown again.")
      .def_property_readonly(
          "layer_depth", [](const vpxrc_group &g) { return group_column(g.layer_depth, g.size); },
          "0 key and golden, 1 base ARF, deeper layers above.")
      .def_property_readonly(
          "show_index", [](const vpxrc_group &g) { return group_column(g.show_index, g.size); },
          "Display index of each frame.")
      .def_property_readonly(
          "bit_allocation",
          [](const vpxrc_group &g) { return group_column(g.bit_allocation, g.size); },
          "libvpx's own allocation, bits.")
      .def_property_readonly(
          "gfu_boost", [](const vpxrc_group &g) { return group_column(g.gfu_boost, g.size); },
          "libvpx's boosts.")
      .def_property_readonly(
          "references",
          [](const vpxrc_group &g) {
            return py::array_t<int32_t>({g.size, 3}, &g.references[0][0]);
          },
          "[size, 3] positions of the last, golden and altref reference; -1 = before the group.");

  py::class_<vpxrc_frame>(m, "Frame", "A frame about to be coded.")
      .def_readonly("coding_index", &vpxrc_frame::coding_index,
                    "Position in coding order; frames shown again count.")
      .def_readonly("show_index", &vpxrc_frame::show_index, "Display index of its source frame.")
      .def_readonly("group_index", &vpxrc_frame::group_index)
      .def_readonly("group_position", &vpxrc_frame::group_position)
      .def_readonly("update_type", &vpxrc_frame::update_type,
                    "0 key, 1 leaf, 2 golden, 3 ARF, 4 overlay.")
      .def_readonly("layer_depth", &vpxrc_frame::layer_depth)
      .def_property_readonly("is_key", [](const vpxrc_frame &f) { return f.is_key != 0; })
      .def_property_readonly("is_shown", [](const vpxrc_frame &f) { return f.is_shown != 0; })
      .def_readonly("tpl_q_index", &vpxrc_frame::tpl_q_index,
                    "Provisional q index of the last TPL pass for this frame; -1 = none.")
      .def_property_readonly(
          "reference_coding_index",
          [](const vpxrc_frame &f) {
            return py::make_tuple(f.reference_coding_index[0], f.reference_coding_index[1],
                                  f.reference_coding_index[2]);
          },
          "Coding indices of the last, golden and altref reference; -1 = none.")
      .def_readonly("libvpx_q_index", &vpxrc_frame::libvpx_q_index,
                    "What libvpx's own rate control would take, 0..255.")
      .def_readonly("libvpx_q_low", &vpxrc_frame::libvpx_q_low)
      .def_readonly("libvpx_q_high", &vpxrc_frame::libvpx_q_high)
      .def_readonly("libvpx_rdmult", &vpxrc_frame::libvpx_rdmult, "Frame lambda at that q.")
      .def_readonly("target_bits", &vpxrc_frame::target_bits, "libvpx's target for the frame.")
      .def_readonly("gfu_boost", &vpxrc_frame::gfu_boost)
      .def_readonly("frames_to_key", &vpxrc_frame::frames_to_key)
      .def_property_readonly("has_tpl", [](const vpxrc_frame &f) { return f.has_tpl != 0; })
      .def_property_readonly(
          "takes_superblock_scale",
          [](const vpxrc_frame &f) { return f.takes_superblock_scale != 0; },
          "A superblock map has an effect on this frame: TPL on, not at position 0 of a group, no "
          "ARF "
          "deeper than layer 3.")
      .def_readonly("r0", &vpxrc_frame::r0,
                    "intra_cost / mc_dep_cost over the frame, in (0, 1]; NaN without TPL.");

  py::class_<vpxrc::ReadyQueue, std::shared_ptr<vpxrc::ReadyQueue>>(
      m, "ReadyQueue", "Ids of sessions that need an answer, in the order in which they came.")
      .def(py::init<>())
      .def("pop", &vpxrc::ReadyQueue::pop, "timeout_s"_a, py::call_guard<py::gil_scoped_release>(),
           "The next id, or None after timeout_s seconds.");

  py::class_<Session>(m, "Session", "One second-pass encode on its own native thread.")
      .def(py::init([](Frames frames, int width, int height, int fps_num, int fps_den,
                       const vpxrc::EncoderOptions &options, const py::bytes &first_pass_stats,
                       bool observe, bool plan_groups, bool keep_reconstruction,
                       const std::optional<std::vector<ScriptDecision>> &script,
                       std::shared_ptr<vpxrc::ReadyQueue> queue, int64_t id) {
             vpxrc::Control control{observe, plan_groups, keep_reconstruction, std::nullopt};
             if (script.has_value()) {
               control.script.emplace();
               for (const auto &[q_index, lambda_scale, superblock_scale, delta_q_uv,
                                 recode_trace] : *script)
                 control.script->push_back(decision_of(q_index, lambda_scale, superblock_scale,
                                                       delta_q_uv, recode_trace));
             }
             return std::make_unique<Session>(std::move(frames), width, height, fps_num, fps_den,
                                              options, first_pass_stats, std::move(control),
                                              std::move(queue), id);
           }),
           "frames"_a.noconvert(), "width"_a, "height"_a, "fps_num"_a, "fps_den"_a, "options"_a,
           "first_pass_stats"_a, py::kw_only(), "observe"_a = false, "plan_groups"_a = false,
           "keep_reconstruction"_a = false, "script"_a = py::none(), "queue"_a = nullptr,
           "id"_a = 0)
      .def(
          "wait", &Session::wait, "timeout_s"_a,
          "Waits for a hand-over or the end; RUNNING where timeout_s seconds go by without a frame "
          "coded.")
      .def("step", &Session::step, "q_index"_a, "lambda_scale"_a = 1.0,
           "superblock_scale"_a = py::none(), "delta_q_uv"_a = 0,
           "recode_trace"_a = std::vector<int32_t>{}, "timeout_s"_a = 0.0,
           "Answers the pending frame; with timeout_s > 0 waits for what comes next.")
      .def("step_group", &Session::step_group, "plan"_a, "timeout_s"_a = 0.0,
           "Answers the pending group with q indices [size], or [size + 1] with the overlay that "
           "follows (-1, or None for all: libvpx's own).")
      .def("close", &Session::close, "grace_s"_a = 30.0,
           "Ends the encode wherever it is; False if the thread outlives grace_s.")
      .def_property_readonly("state", &Session::state)
      .def_property_readonly("progress", &Session::progress,
                             "Frames coded so far; may be asked for at any time.")
      .def_property_readonly("frame", [](const Session &s) { return s.at_rest().frame(); })
      .def_property_readonly("group", [](const Session &s) { return s.at_rest().group(); })
      .def_property_readonly(
          "tpl",
          [](const Session &s) -> py::object {
            const auto &tpl = s.at_rest().tpl();
            if (tpl.values.empty()) return py::none();
            return tpl_array(tpl);
          },
          "TPL statistics of the current group after propagation, float64 [size, rows, cols, 8] in "
          "32x32 blocks, NaN for frames without; None before group position 1 or without TPL.")
      .def(
          "records",
          [](const Session &s, size_t start) {
            const auto &records = s.at_rest().records();
            start = std::min(start, records.size());
            return py::array_t<vpxrc::FrameRecord>(py::ssize_t(records.size() - start),
                                                   records.data() + start);
          },
          "start"_a = 0, "The encode log from row `start`, as records of FRAME_RECORD.")
      .def_property_readonly("num_records",
                             [](const Session &s) { return s.at_rest().records().size(); })
      .def_property_readonly(
          "packets",
          [](const Session &s) {
            py::list out;
            for (const auto &packet : s.at_rest().packets())
              out.append(py::make_tuple(py::bytes(packet.data), packet.pts));
            return out;
          },
          "The stream so far, as (bytes, pts) per packet.")
      .def_property_readonly(
          "first_pass",
          [](const Session &s) {
            const auto &stats = s.at_rest().first_pass();
            return py::array_t<double>({py::ssize_t(stats.size() / VPXRC_FIRST_PASS_FIELDS),
                                        py::ssize_t(VPXRC_FIRST_PASS_FIELDS)},
                                       stats.data());
          },
          "First-pass statistics, float64 [num_frames, 26] in the order of FIRST_PASS_FIELDS.")
      .def_property_readonly(
          "reconstruction",
          [](const Session &s) -> py::object {
            const auto &frame = s.at_rest().reconstruction();
            if (frame.empty()) return py::none();
            return py::array_t<uint8_t>(py::ssize_t(frame.size()), frame.data());
          },
          "The frame coded last, I420 uint8 [frame_bytes], where it was asked for; else None.")
      .def_property_readonly("error", [](const Session &s) { return s.at_rest().error(); })
      .def_property_readonly("encode_seconds",
                             [](const Session &s) { return s.at_rest().encode_seconds(); })
      .def_property_readonly("cpu_seconds",
                             [](const Session &s) { return s.at_rest().cpu_seconds(); });

  m.def("kernel_levels", &vpxrc::kernel_levels,
        "Levels of vector instructions that this processor has for the model, the fastest first.");
  m.def("temporal_dependency", &temporal_dependency, "frames"_a.noconvert(), "width"_a, "height"_a,
        py::kw_only(), "show_index"_a, "references"_a, "q_index"_a, "weights"_a, "reconstructed"_a,
        "lambda_q_index"_a, "level"_a,
        "The temporal dependency model; vpxrc.temporal_dependency.analyse says what it takes and "
        "gives.");

  m.def(
      "run_first_pass",
      [](const Frames &frames, int width, int height, int fps_num, int fps_den,
         const vpxrc::EncoderOptions &options) {
        const vpxrc::Source source = source_of(frames, width, height, fps_num, fps_den);
        std::string stats;
        {
          const py::gil_scoped_release release;
          stats = vpxrc::run_first_pass(source, options);
        }
        return py::bytes(stats);
      },
      "frames"_a.noconvert(), "width"_a, "height"_a, "fps_num"_a, "fps_den"_a, "options"_a,
      "First-pass statistics as libvpx's opaque blob.");

  m.def(
      "run_plain_second_pass",
      [](const Frames &frames, int width, int height, int fps_num, int fps_den,
         const vpxrc::EncoderOptions &options, const std::string &first_pass_stats) {
        const vpxrc::Source source = source_of(frames, width, height, fps_num, fps_den);
        std::vector<vpxrc::Packet> packets;
        {
          const py::gil_scoped_release release;
          packets = vpxrc::run_plain_second_pass(source, options, first_pass_stats);
        }
        py::list out;
        for (const auto &packet : packets)
          out.append(py::make_tuple(py::bytes(packet.data), packet.pts));
        return out;
      },
      "frames"_a.noconvert(), "width"_a, "height"_a, "fps_num"_a, "fps_den"_a, "options"_a,
      "first_pass_stats"_a,
      "The second pass in one plain C++ loop with nothing attached, as (bytes, pts) per packet.");
}
