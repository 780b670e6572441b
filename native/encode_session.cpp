#include "encode_session.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <stdexcept>
#include <thread>

#include "vpx/vp8cx.h"
#include "vpx/vpx_encoder.h"

namespace vpxrc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kDestructorGrace = 30.0;  // seconds; more than one frame takes

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double thread_cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Owns a vpx_codec_ctx_t. Every failure throws std::runtime_error with libvpx's own words.
class Codec {
 public:
  Codec(const Source &source, const EncoderOptions &options, vpx_enc_pass pass,
        const std::string *stats)
      : source_(source) {
    vpx_codec_enc_cfg_t cfg;
    vpx_codec_iface_t *const iface = vpx_codec_vp9_cx();
    if (vpx_codec_enc_config_default(iface, &cfg, 0) != VPX_CODEC_OK)
      throw std::runtime_error("no VP9 encoder in this libvpx");
    cfg.g_w = unsigned(source.width);
    cfg.g_h = unsigned(source.height);
    cfg.g_timebase = {source.fps_den, source.fps_num};
    if (source.bit_depth > 8) {
      cfg.g_profile = 2;
      cfg.g_bit_depth = vpx_bit_depth_t(source.bit_depth);
      cfg.g_input_bit_depth = unsigned(source.bit_depth);
    }
    cfg.g_threads = unsigned(options.threads);
    cfg.g_lag_in_frames = unsigned(options.lag_in_frames);
    cfg.g_pass = pass;
    cfg.rc_end_usage = options.rate_control == RateControl::kQ    ? VPX_Q
                       : options.rate_control == RateControl::kCq ? VPX_CQ
                                                                  : VPX_VBR;
    cfg.rc_target_bitrate = unsigned(options.target_bitrate);
    cfg.rc_min_quantizer = unsigned(options.min_quantizer);
    cfg.rc_max_quantizer = unsigned(options.max_quantizer);
    cfg.kf_max_dist = unsigned(options.key_frame_max_distance);
    if (stats != nullptr)
      cfg.rc_twopass_stats_in = {const_cast<char *>(stats->data()), stats->size()};
    const vpx_codec_flags_t flags = source.bit_depth > 8 ? VPX_CODEC_USE_HIGHBITDEPTH : 0;
    if (vpx_codec_enc_init(&context_, iface, &cfg, flags) != VPX_CODEC_OK)
      throw std::runtime_error(words());
    try {
      check(vpx_codec_control(&context_, VP8E_SET_CPUUSED, options.cpu_used));
      check(
          vpx_codec_control(&context_, VP8E_SET_ENABLEAUTOALTREF, unsigned(options.auto_alt_ref)));
      check(vpx_codec_control(&context_, VP9E_SET_TPL, options.tpl ? 1 : 0));
      if (options.rate_control != RateControl::kVbr)
        check(vpx_codec_control(&context_, VP8E_SET_CQ_LEVEL, unsigned(options.cq_level)));
    } catch (...) {
      vpx_codec_destroy(&context_);
      throw;
    }
  }
  ~Codec() { vpx_codec_destroy(&context_); }
  Codec(const Codec &) = delete;
  Codec &operator=(const Codec &) = delete;

  vpx_codec_ctx_t *context() { return &context_; }

  void check(vpx_codec_err_t status) {
    if (status != VPX_CODEC_OK) throw std::runtime_error(words());
  }

  // Encodes all frames and flushes; gives every packet to `take`.
  template <typename Take>
  void encode_all(Take take) {
    vpx_image_t image;
    for (int i = 0; i < source_.num_frames; ++i) {
      check(vpx_codec_encode(&context_, wrap(i, &image), i, 1, 0, VPX_DL_GOOD_QUALITY));
      drain(take);
    }
    do check(vpx_codec_encode(&context_, nullptr, -1, 1, 0, VPX_DL_GOOD_QUALITY));
    while (drain(take));
  }

 private:
  std::string words() {
    const char *const detail = vpx_codec_error_detail(&context_);
    std::string text = vpx_codec_error(&context_);
    return detail != nullptr ? text + ": " + detail : text;
  }

  // By hand, because vpx_img_wrap() pads the rows of odd widths.
  vpx_image_t *wrap(int index, vpx_image_t *image) const {
    uint8_t *const luma = const_cast<uint8_t *>(source_.frame(index));
    const int bytes = int(source_.sample_bytes());
    vpx_img_wrap(image, bytes > 1 ? VPX_IMG_FMT_I42016 : VPX_IMG_FMT_I420, unsigned(source_.width),
                 unsigned(source_.height), 1, luma);
    image->bit_depth = unsigned(source_.bit_depth);
    image->planes[VPX_PLANE_Y] = luma;
    image->planes[VPX_PLANE_U] = luma + source_.luma_samples() * bytes;
    image->planes[VPX_PLANE_V] = image->planes[VPX_PLANE_U] + source_.chroma_samples() * bytes;
    image->stride[VPX_PLANE_Y] = source_.width * bytes;
    image->stride[VPX_PLANE_U] = image->stride[VPX_PLANE_V] = (source_.width + 1) / 2 * bytes;
    return image;
  }

  template <typename Take>
  bool drain(Take take) {
    vpx_codec_iter_t iter = nullptr;
    bool any = false;
    while (const vpx_codec_cx_pkt_t *packet = vpx_codec_get_cx_data(&context_, &iter)) {
      any = true;
      take(*packet);
    }
    return any;
  }

  const Source &source_;
  vpx_codec_ctx_t context_{};
};

// `Sum` holds the sum of a row.
template <typename Sample, typename Sum>
int64_t squared_error(const vpxrc_plane &a, const uint8_t *b, int b_stride) {
  int64_t total = 0;
  for (int y = 0; y < a.height; ++y) {
    const Sample *const row_a = static_cast<const Sample *>(a.data) + ptrdiff_t(y) * a.stride;
    const Sample *const row_b = reinterpret_cast<const Sample *>(b) + ptrdiff_t(y) * b_stride;
    Sum sum = 0;
    for (int x = 0; x < a.width; ++x) {
      const int d = int(row_a[x]) - int(row_b[x]);
      sum += Sum(d * d);
    }
    total += int64_t(sum);
  }
  return total;
}

// Of a plane of the reconstruction against the source's, whose rows have no padding.
int64_t squared_error(const vpxrc_plane &a, const uint8_t *b, int b_stride, int bit_depth) {
  if (bit_depth > 8) return squared_error<uint16_t, uint64_t>(a, b, b_stride);
  // 65535 * 255^2 < 2^32: enough for VP9's widest row
  return squared_error<uint8_t, uint32_t>(a, b, b_stride);
}

void append(std::vector<Packet> &packets, const vpx_codec_cx_pkt_t &packet) {
  if (packet.kind == VPX_CODEC_CX_FRAME_PKT)
    packets.push_back(
        {std::string(static_cast<const char *>(packet.data.frame.buf), packet.data.frame.sz),
         packet.data.frame.pts});
}

}  // namespace

ReadyQueue::ReadyQueue() : waiting_(std::make_unique<Waiting>()) {}

ReadyQueue::~ReadyQueue() {
  if (!process_.is_here()) (void)waiting_.release();  // the parent's threads may wait in it
}

void ReadyQueue::push(int64_t id) {
  {
    const std::lock_guard<std::mutex> lock(waiting_->mutex);
    waiting_->ids.push_back(id);
  }
  waiting_->changed.notify_one();
}

std::optional<int64_t> ReadyQueue::pop(double timeout_s) {
  process_.check();
  std::unique_lock<std::mutex> lock(waiting_->mutex);
  if (!waiting_->changed.wait_for(lock, std::chrono::duration<double>(timeout_s),
                                  [this] { return !waiting_->ids.empty(); }))
    return std::nullopt;
  const int64_t id = waiting_->ids.front();
  waiting_->ids.pop_front();
  return id;
}

// The data that a session and its thread share. The thread writes in state kRunning, which it does
// not go back to while there are readers; the owners of the session read and answer in every other
// state. The mutex around `state` orders them.
struct EncodeSession::Core {
  static std::atomic<int> running;  // threads that have not ended

  Source source;
  EncoderOptions options;
  std::string first_pass_stats;
  Control control;
  std::shared_ptr<ReadyQueue> queue;
  int64_t id = 0;

  std::mutex mutex;
  std::condition_variable changed;
  State state = State::kRunning;
  bool closing = false;
  bool ended = false;  // the thread has nothing more to do
  int readers = 0;
  std::thread thread;
  bool joining = false;  // a closer has taken `thread`
  std::atomic<int64_t> progress{0};

  vpxrc_group group{};
  vpxrc_frame frame{};
  bool frame_decided = false;
  TplStats tpl;
  std::vector<int16_t> plan;
  Decision decision;
  size_t script_position = 0;
  std::vector<FrameRecord> records;
  std::vector<Packet> packets;
  std::vector<double> first_pass;
  std::vector<uint8_t> reconstruction;
  std::string error;
  double waited = 0;
  double encode_seconds = 0;
  double cpu_seconds = 0;

  void enter(State next) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      state = next;
    }
    changed.notify_all();
    if (queue != nullptr) queue->push(id);
  }

  // Waits in the given state for an answer. Returns false where the session closes instead.
  bool hand_over(State next) {
    const auto start = Clock::now();
    enter(next);
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return (state == State::kRunning || closing) && readers == 0; });
    state = State::kRunning;
    waited += seconds_since(start);
    return !closing;
  }

  bool is_closing() {
    const std::lock_guard<std::mutex> lock(mutex);
    return closing;
  }

  // The seam's callbacks. They run on the encoder's thread; 0 lets it go on.
  static int on_first_pass(void *user, const double *stats, int num_frames) {
    auto *const core = static_cast<Core *>(user);
    core->first_pass.assign(stats, stats + size_t(num_frames) * VPXRC_FIRST_PASS_FIELDS);
    return 0;
  }

  static int on_group(void *user, const vpxrc_group *group, int16_t *plan) {
    auto *const core = static_cast<Core *>(user);
    core->group = *group;
    core->tpl = {};
    if (core->is_closing()) return 1;
    if (!core->control.plan_groups) return 0;
    core->plan.clear();
    if (!core->hand_over(State::kGroup)) return 1;
    std::copy_n(core->plan.begin(), std::min(core->plan.size(), size_t(group->size) + 1), plan);
    return 0;
  }

  void fetch_tpl(const void *encoder) {
    int rows = 0, cols = 0;
    const size_t none = tpl.values.size();
    for (int i = 1; i < group.size && none == 0; ++i) {
      if (!vpxrc_seam_tpl(encoder, i, &rows, &cols, nullptr)) continue;
      const size_t block = size_t(rows) * cols * VPXRC_TPL_FIELDS;
      if (tpl.values.empty())
        tpl = {group.size, rows, cols,
               std::vector<double>(block * group.size, std::numeric_limits<double>::quiet_NaN())};
      vpxrc_seam_tpl(encoder, i, &rows, &cols, tpl.values.data() + block * i);
    }
  }

  // Whether a map is empty or has a value for every block of a frame; says so where not.
  bool fits(size_t values, int block, const char *map, const char *blocks) {
    const size_t wanted =
        size_t((source.width + block - 1) / block) * size_t((source.height + block - 1) / block);
    if (values == 0 || values == wanted) return true;
    error = std::string(map) + " of " + std::to_string(values) + " values, the frame has " +
            std::to_string(wanted) + " " + blocks;
    return false;
  }

  static int on_decide(void *user, void *encoder, const vpxrc_frame *frame, vpxrc_decision *out) {
    auto *const core = static_cast<Core *>(user);
    core->frame = *frame;
    core->frame_decided = true;
    if (core->control.script.has_value()) {
      if (core->is_closing()) return 1;
      const auto &script = *core->control.script;
      if (core->script_position >= script.size()) {
        core->error =
            "the script has " + std::to_string(script.size()) + " decisions, the encode needs more";
        return 1;
      }
      core->decision = script[core->script_position++];
    } else {
      core->fetch_tpl(encoder);
      if (!core->hand_over(State::kFrame)) return 1;
    }
    const Decision &decision = core->decision;
    const Region &region = decision.region;
    if (!core->fits(decision.superblock_scale.size(), 64, "superblock map", "superblocks") ||
        !core->fits(region.block_scale.size(), 16, "block map", "blocks of 16x16") ||
        !core->fits(region.segment_map.size(), 8, "segment map", "blocks of 8x8"))
      return 1;
    out->q_index = decision.q_index;
    out->lambda_scale = decision.lambda_scale;
    out->delta_q_uv = decision.delta_q_uv;
    if (!decision.recode_trace.empty()) out->recode_trace = decision.recode_trace.data();
    if (!decision.superblock_scale.empty())
      out->superblock_scale = decision.superblock_scale.data();
    if (!region.block_scale.empty()) out->block_scale = region.block_scale.data();
    if (!region.segment_map.empty()) out->segment_map = region.segment_map.data();
    out->segment_q_offset = region.segment_q_offset.data();
    return 0;
  }

  static int on_result(void *user, const vpxrc_result *result) {
    auto *const core = static_cast<Core *>(user);
    if (core->is_closing()) return 1;
    const bool decided = core->frame_decided;
    FrameRecord record{};
    record.place = result->place;
    record.is_shown_again = result->is_shown_again;
    record.q_index = result->q_index;
    record.tpl_q_index = result->tpl_q_index;
    std::copy_n(result->recode_trace, VPXRC_TRACE_FIELDS, record.recode_trace);
    record.libvpx_q_index = decided ? core->frame.libvpx_q_index : -1;
    record.rdmult = result->rdmult;
    record.target_bits = decided ? core->frame.target_bits : -1;
    record.lambda_scale = decided ? core->decision.lambda_scale : 1.0;
    record.bits = result->bits;
    core->frame_decided = false;
    const int show_index = result->place.show_index;
    if (show_index >= 0 && show_index < core->source.num_frames) {
      const Source &source = core->source;
      const size_t bytes = source.sample_bytes();
      const uint8_t *const y = source.frame(show_index);
      const uint8_t *const u = y + source.luma_samples() * bytes;
      const uint8_t *const v = u + source.chroma_samples() * bytes;
      const int chroma_stride = (source.width + 1) / 2;
      const vpxrc_plane *const ours = result->reconstruction;
      record.sse_y = squared_error(ours[0], y, source.width, source.bit_depth);
      record.sse_u = squared_error(ours[1], u, chroma_stride, source.bit_depth);
      record.sse_v = squared_error(ours[2], v, chroma_stride, source.bit_depth);
    }
    if (core->control.keep_reconstruction) core->copy_reconstruction(*result);
    core->records.push_back(record);
    ++core->progress;
    return 0;
  }

  void copy_reconstruction(const vpxrc_result &result) {
    reconstruction.resize(source.frame_bytes());
    const size_t bytes = source.sample_bytes();
    uint8_t *out = reconstruction.data();
    for (const vpxrc_plane &plane : result.reconstruction) {
      const uint8_t *row = static_cast<const uint8_t *>(plane.data);
      for (int y = 0; y < plane.height; ++y, row += plane.stride * bytes)
        out = std::copy_n(row, plane.width * bytes, out);
    }
  }

  void run() {
    const auto start = Clock::now();
    State last = State::kDone;
    vpxrc_controller controller{
        this, control.observe ? 1 : 0, on_first_pass, on_group, on_decide, on_result};
    try {
      Codec codec(source, options, VPX_RC_LAST_PASS, &first_pass_stats);
      codec.check(vpxrc_seam_attach(codec.context(), &controller));
      codec.encode_all([this](const vpx_codec_cx_pkt_t &packet) { append(packets, packet); });
    } catch (const std::exception &failure) {
      last = State::kFailed;
      if (error.empty()) error = is_closing() ? "the session was closed" : failure.what();
    }
    encode_seconds = seconds_since(start) - waited;
    cpu_seconds = thread_cpu_seconds();
    --running;
    enter(last);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      ended = true;
    }
    changed.notify_all();
  }
};

std::atomic<int> EncodeSession::Core::running{0};

EncodeSession::EncodeSession(const Source &source, const EncoderOptions &options,
                             std::string first_pass_stats, Control control,
                             std::shared_ptr<ReadyQueue> queue, int64_t id)
    : core_(std::make_shared<Core>()) {
  core_->source = source;
  core_->options = options;
  core_->first_pass_stats = std::move(first_pass_stats);
  core_->control = std::move(control);
  core_->queue = std::move(queue);
  core_->id = id;
  ++Core::running;
  try {
    core_->thread = std::thread([core = core_] { core->run(); });
  } catch (...) {
    --Core::running;
    throw;
  }
}

EncodeSession::~EncodeSession() {
  if (process_.is_here())
    close(kDestructorGrace);
  else  // a thread that does not exist here may hold its mutex
    new std::shared_ptr<Core>(std::move(core_));
}

int EncodeSession::num_running() { return Core::running; }

State EncodeSession::wait(double timeout_s) const {
  process_.check();
  std::unique_lock<std::mutex> lock(core_->mutex);
  int64_t before;
  do {
    before = core_->progress;
    core_->changed.wait_for(lock, std::chrono::duration<double>(timeout_s),
                            [this] { return core_->state != State::kRunning; });
  } while (core_->state == State::kRunning && timeout_s > 0 && core_->progress != before);
  return core_->state;
}

int64_t EncodeSession::progress() const { return core_->progress; }

template <typename T>
bool EncodeSession::reply(State expected, T Core::*place, T value) {
  process_.check();
  {
    const std::lock_guard<std::mutex> lock(core_->mutex);
    if (core_->state != expected || core_->closing) return false;
    (*core_).*place = std::move(value);
    core_->state = State::kRunning;
  }
  core_->changed.notify_all();
  return true;
}

bool EncodeSession::answer_group(std::vector<int16_t> plan) {
  return reply(State::kGroup, &Core::plan, std::move(plan));
}

bool EncodeSession::answer(Decision decision) {
  return reply(State::kFrame, &Core::decision, std::move(decision));
}

bool EncodeSession::close(double grace_s) {
  if (!process_.is_here()) return true;
  Core &core = *core_;
  std::unique_lock<std::mutex> lock(core.mutex);
  core.closing = true;
  core.changed.notify_all();
  const bool ended = core.changed.wait_for(lock, std::chrono::duration<double>(grace_s),
                                           [&core] { return core.ended && !core.joining; });
  if (!core.thread.joinable()) return ended;
  if (!ended) {
    core.thread.detach();
    return false;
  }
  // One closer joins. The others wait until it has.
  std::thread thread = std::move(core.thread);
  core.joining = true;
  lock.unlock();
  thread.join();
  lock.lock();
  core.joining = false;
  core.changed.notify_all();
  return true;
}

bool EncodeSession::is_closed() const {
  process_.check();
  return core_->is_closing();
}

EncodeSession::Rest::Rest(const EncodeSession &session) : session_(session) {
  session.process_.check();
  const std::lock_guard<std::mutex> lock(session.core_->mutex);
  if (session.core_->state == State::kRunning)
    throw std::runtime_error("the encoder is running: wait() first");
  ++session.core_->readers;
}

EncodeSession::Rest::~Rest() {
  Core &core = *session_.core_;
  bool goes_on;  // else the encoder sleeps on: most readers come before the answer
  {
    const std::lock_guard<std::mutex> lock(core.mutex);
    goes_on = --core.readers == 0 && (core.state == State::kRunning || core.closing);
  }
  if (goes_on) core.changed.notify_all();
}

const vpxrc_group &EncodeSession::group() const { return core_->group; }
const vpxrc_frame &EncodeSession::frame() const { return core_->frame; }
const TplStats &EncodeSession::tpl() const { return core_->tpl; }
const std::vector<FrameRecord> &EncodeSession::records() const { return core_->records; }
const std::vector<Packet> &EncodeSession::packets() const { return core_->packets; }
const std::vector<double> &EncodeSession::first_pass() const { return core_->first_pass; }
const std::vector<uint8_t> &EncodeSession::reconstruction() const { return core_->reconstruction; }
int EncodeSession::bit_depth() const { return core_->source.bit_depth; }
const std::string &EncodeSession::error() const { return core_->error; }
double EncodeSession::encode_seconds() const { return core_->encode_seconds; }
double EncodeSession::cpu_seconds() const { return core_->cpu_seconds; }

std::string run_first_pass(const Source &source, const EncoderOptions &options) {
  std::string stats;
  Codec codec(source, options, VPX_RC_FIRST_PASS, nullptr);
  codec.encode_all([&stats](const vpx_codec_cx_pkt_t &packet) {
    if (packet.kind == VPX_CODEC_STATS_PKT)
      stats.append(static_cast<const char *>(packet.data.twopass_stats.buf),
                   packet.data.twopass_stats.sz);
  });
  return stats;
}

std::vector<Packet> run_plain_second_pass(const Source &source, const EncoderOptions &options,
                                          const std::string &first_pass_stats) {
  std::vector<Packet> packets;
  Codec codec(source, options, VPX_RC_LAST_PASS, &first_pass_stats);
  codec.encode_all([&packets](const vpx_codec_cx_pkt_t &packet) { append(packets, packet); });
  return packets;
}

}  // namespace vpxrc
