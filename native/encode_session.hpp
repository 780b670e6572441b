// One VP9 two-pass encode on its own thread, handing over at every decision.
#pragma once

#include <unistd.h>

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "rate_control_seam.h"

namespace vpxrc {

enum class RateControl { kVbr, kCq, kQ };

struct EncoderOptions {
  int target_bitrate = 256;  // kbit/s
  int cpu_used = 2;
  int lag_in_frames = 25;
  int auto_alt_ref = 1;
  bool tpl = true;
  int threads = 1;
  int key_frame_max_distance = 128;  // frames
  int min_quantizer = 0;             // libvpx's 0..63
  int max_quantizer = 63;
  RateControl rate_control = RateControl::kVbr;
  int cq_level = 32;  // libvpx's 0..63; used by kCq and kQ
};

// I420 frames in one block: luma, then both chroma planes of ceil(w/2) x ceil(h/2), no padding.
// Samples of more than 8 bits take two bytes, as uint16_t.
struct Source {
  const uint8_t *frames = nullptr;
  int num_frames = 0;
  int width = 0;
  int height = 0;
  int fps_num = 0;
  int fps_den = 0;
  int bit_depth = 8;  // 8 or 10; 10 needs the libvpx that is built for it

  size_t luma_samples() const { return size_t(width) * height; }
  size_t chroma_samples() const { return size_t((width + 1) / 2) * ((height + 1) / 2); }
  size_t sample_bytes() const { return bit_depth > 8 ? sizeof(uint16_t) : sizeof(uint8_t); }
  size_t frame_samples() const { return luma_samples() + 2 * chroma_samples(); }
  size_t frame_bytes() const { return frame_samples() * sample_bytes(); }
  const uint8_t *frame(int index) const { return frames + frame_bytes() * index; }
};

struct Packet {
  std::string data;
  int64_t pts;
};

// One row of the encode log: a frame that was coded or shown again. numpy reads it as a record.
struct FrameRecord {
  vpxrc_place place;
  int32_t is_shown_again;  // nothing coded: q_index, tpl_q_index and rdmult are -1
  int32_t q_index;
  int32_t tpl_q_index;     // provisional q of the last TPL pass; -1 = none
  int32_t libvpx_q_index;  // -1 where libvpx decided by itself
  int32_t rdmult;
  int32_t target_bits;  // libvpx's own target, -1 where it was not asked
  double lambda_scale;
  int64_t bits;
  int64_t sse_y;  // squared error of the reconstruction against the source frame show_index
  int64_t sse_u;
  int64_t sse_v;
  int32_t recode_trace[VPXRC_TRACE_FIELDS];
};

// Which blocks of a frame matter more. Maps of a frame, row by row; empty: none.
struct Region {
  std::vector<float> block_scale;    // factors on lambda per 16x16 block
  std::vector<uint8_t> segment_map;  // segment of each 8x8 block
  std::array<int32_t, VPXRC_SEGMENTS> segment_q_offset{};
};

struct Decision {
  int q_index = VPXRC_LIBVPX_Q;
  double lambda_scale = 1.0;
  std::vector<float> superblock_scale;  // empty: libvpx's own
  int delta_q_uv = 0;
  std::vector<int32_t> recode_trace;  // a logged frame's, for an exact replay; else empty
  Region region = {};
};

// TPL statistics of a group, [frames][rows][cols][VPXRC_TPL_FIELDS]; NaN for frames without.
struct TplStats {
  int frames = 0;
  int rows = 0;
  int cols = 0;
  std::vector<double> values;
};

// Who decides. A script answers decision by decision, without a hand-over.
struct Control {
  bool observe = false;
  bool plan_groups = false;  // hand over at each new group for provisional q indices
  bool keep_reconstruction = false;
  std::optional<std::vector<Decision>> script;
};

// The process that made an object. A forked child has a copy of the object and none of the threads
// that work on it or hold its mutexes, so it may neither use nor destroy what they share.
class Process {
 public:
  bool is_here() const { return getpid() == pid_; }
  // Throws std::runtime_error in a forked child.
  void check() const {
    if (!is_here()) throw std::runtime_error("opened by another process, of which this is a fork");
  }

 private:
  pid_t pid_ = getpid();
};

// Hands back whichever of several sessions needs an answer next.
class ReadyQueue {
 public:
  ReadyQueue();
  ~ReadyQueue();
  ReadyQueue(const ReadyQueue &) = delete;
  ReadyQueue &operator=(const ReadyQueue &) = delete;

  void push(int64_t id);
  // The next id, or nothing after timeout_s seconds. Throws std::runtime_error in a forked child.
  std::optional<int64_t> pop(double timeout_s);

 private:
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<int64_t> ids;
  };
  Process process_;
  std::unique_ptr<Waiting> waiting_;
};

enum class State { kRunning, kGroup, kFrame, kDone, kFailed };

// May be used from several threads at once. A forked child gets std::runtime_error from all but
// close(), progress() and the destructor, which do nothing to the parent's session.
class EncodeSession {
 public:
  EncodeSession(const Source &source, const EncoderOptions &options, std::string first_pass_stats,
                Control control, std::shared_ptr<ReadyQueue> queue, int64_t id);
  ~EncodeSession();
  EncodeSession(const EncodeSession &) = delete;
  EncodeSession &operator=(const EncodeSession &) = delete;

  // Number of sessions of this process whose encoder has not ended.
  static int num_running();

  // Waits until the encoder needs an answer, is done or has failed. Returns kRunning where
  // timeout_s seconds go by without a frame coded: an encode without hand-overs may take as long as
  // it likes.
  State wait(double timeout_s) const;
  // Number of frames coded so far. May be called in every state.
  int64_t progress() const;
  // Both return false where the encoder waits for no such answer.
  bool answer_group(std::vector<int16_t> plan);
  bool answer(Decision decision);
  // Ends the encode wherever it is; may be called again. Returns false where the thread needs more
  // than grace_s seconds: it then runs on to the next hand-over and ends there, still reading the
  // source.
  bool close(double grace_s);
  bool is_closed() const;

  // Keeps the encoder where it is while its data are read. Throws std::runtime_error where it runs.
  class Rest {
   public:
    explicit Rest(const EncodeSession &session);
    ~Rest();
    Rest(const Rest &) = delete;
    Rest &operator=(const Rest &) = delete;

   private:
    const EncodeSession &session_;
  };

  // Valid while the session waits (kGroup, kFrame) or is over; with several threads, in a Rest.
  const vpxrc_group &group() const;
  const vpxrc_frame &frame() const;
  const TplStats &tpl() const;
  const std::vector<FrameRecord> &records() const;
  const std::vector<Packet> &packets() const;
  const std::vector<double> &first_pass() const;       // [num_frames][VPXRC_FIRST_PASS_FIELDS]
  const std::vector<uint8_t> &reconstruction() const;  // a frame as in Source
  int bit_depth() const;
  const std::string &error() const;
  double encode_seconds() const;  // wall time of the encoder's thread without its waits
  double cpu_seconds() const;

 private:
  struct Core;
  template <typename T>
  bool reply(State expected, T Core::*place, T value);

  Process process_;
  std::shared_ptr<Core> core_;  // the encoder's thread has the other reference
};

// First-pass statistics as libvpx's opaque blob. Throws std::runtime_error with libvpx's words.
std::string run_first_pass(const Source &source, const EncoderOptions &options);

// The stream of the second pass in one plain loop with nothing attached, the benchmarks' yardstick.
std::vector<Packet> run_plain_second_pass(const Source &source, const EncoderOptions &options,
                                          const std::string &first_pass_stats);

}  // namespace vpxrc
