// Encode sessions under sanitizers, on small, odd-sized clips. Python's tests compare with libvpx's
// own programs.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "clip.hpp"
#include "encode_session.hpp"

using vpxrc::Control;
using vpxrc::Decision;
using vpxrc::EncoderOptions;
using vpxrc::EncodeSession;
using vpxrc::State;

namespace {

std::string stream_of(const std::vector<vpxrc::Packet> &packets) {
  std::string stream;
  for (const auto &packet : packets) stream += packet.data;
  return stream;
}

constexpr double kPatience = 120.0;

// Runs a session to its end; `decide` answers frames.
template <typename Decide>
State run(EncodeSession &session, Decide decide) {
  State state = session.wait(kPatience);
  while (state == State::kFrame || state == State::kGroup) {
    if (state == State::kGroup)
      session.answer_group(std::vector<int16_t>(size_t(session.group().size), 90));
    else
      session.answer(decide(session));
    state = session.wait(kPatience);
  }
  return state;
}

void observed_equals_plain_and_replays(const Clip &clip, const EncoderOptions &options) {
  const std::string stats = vpxrc::run_first_pass(clip.source, options);
  const std::string plain = stream_of(vpxrc::run_plain_second_pass(clip.source, options, stats));
  EncodeSession observer(clip.source, options, stats, Control{true, false, true, {}}, nullptr, 0);
  CHECK(observer.wait(kPatience) == State::kDone);
  CHECK(stream_of(observer.packets()) == plain);
  CHECK(observer.reconstruction().size() == clip.source.frame_bytes());
  CHECK(observer.first_pass().size() == size_t(clip.source.num_frames) * VPXRC_FIRST_PASS_FIELDS);

  std::vector<Decision> script;
  int shown = 0;
  for (const auto &record : observer.records()) {
    shown += record.place.is_shown;
    if (record.is_shown_again) continue;
    Decision decision{record.q_index, 1.0, {}, 0, {}};
    decision.recode_trace.assign(record.recode_trace, record.recode_trace + VPXRC_TRACE_FIELDS);
    script.push_back(decision);
  }
  CHECK(shown == clip.source.num_frames);
  if (!options.tpl) {
    EncodeSession replay(clip.source, options, stats, Control{false, false, false, script}, nullptr,
                         0);
    CHECK(replay.wait(kPatience) == State::kDone);
    CHECK(stream_of(replay.packets()) == plain);
  }
  script.pop_back();
  EncodeSession too_short(clip.source, options, stats, Control{false, false, false, script},
                          nullptr, 0);
  CHECK(too_short.wait(kPatience) == State::kFailed);
  CHECK(too_short.error().find("script") != std::string::npos);
}

size_t blocks_of(const vpxrc::Source &source, int size) {
  return size_t((source.width + size - 1) / size) * size_t((source.height + size - 1) / size);
}

void every_lever(const Clip &clip, EncoderOptions options) {
  const std::string stats = vpxrc::run_first_pass(clip.source, options);
  const size_t superblocks =
      size_t((clip.source.width + 63) / 64) * size_t((clip.source.height + 63) / 64);
  EncodeSession session(clip.source, options, stats, Control{false, true, true, {}}, nullptr, 0);
  int with_tpl = 0;
  const State state = run(session, [&](const EncodeSession &at) {
    with_tpl += !at.tpl().values.empty();
    const vpxrc_frame &frame = at.frame();
    const vpxrc_place &place = frame.place;
    CHECK(place.show_index >= 0 && place.show_index < clip.source.num_frames);
    CHECK(frame.libvpx_q_index >= 0 && frame.libvpx_q_index <= 255);
    Decision decision{60 + 5 * place.layer_depth, place.coding_index % 2 ? 1.0 : 1.2, {}, -3, {}};
    if (place.coding_index % 3 == 0) decision.superblock_scale.assign(superblocks, 0.8f);
    if (place.coding_index % 4 < 3) {  // maps that change, and frames without
      vpxrc::Region &region = decision.region;
      region.block_scale.assign(blocks_of(clip.source, 16), 1.5f);
      region.segment_map.assign(blocks_of(clip.source, 8), 1);
      region.segment_map[size_t(place.coding_index % 2)] = 0;
      region.segment_q_offset = {-20, 10};
    }
    return decision;
  });
  CHECK(state == State::kDone);
  CHECK(with_tpl > 0);

  EncodeSession wrong(clip.source, options, stats, Control{}, nullptr, 0);
  CHECK(run(wrong, [&](const EncodeSession &) {
          return Decision{100, 1.0, std::vector<float>(superblocks + 1, 1.0f), 0, {}};
        }) == State::kFailed);
  CHECK(wrong.error().find("superblock") != std::string::npos);

  EncodeSession no_map(clip.source, options, stats, Control{}, nullptr, 0);
  CHECK(run(no_map, [&](const EncodeSession &) {
          Decision decision{100, 1.0, {}, 0, {}};
          decision.region.segment_map.assign(blocks_of(clip.source, 8) - 1, 0);
          return decision;
        }) == State::kFailed);
  CHECK(no_map.error().find("segment map") != std::string::npos);
}

void closed_anywhere(const Clip &clip, const EncoderOptions &options) {
  const std::string stats = vpxrc::run_first_pass(clip.source, options);
  std::mt19937 random(1);
  for (int i = 0; i < 24; ++i) {
    Control control;
    control.observe = i % 3 == 0;
    control.plan_groups = i % 3 == 1;
    EncodeSession session(clip.source, options, stats, control, nullptr, 0);
    for (unsigned steps = random() % 20; steps > 0; --steps) {
      const State state = session.wait(control.observe ? 0.001 : kPatience);
      if (state == State::kFrame) session.answer(Decision{120, 1.0, {}, 0, {}});
      if (state == State::kGroup) session.answer_group({});
    }
    CHECK(session.close(kPatience));
  }
}

// Two threads close, one steps and one reads, all the same session.
void used_by_several_threads(const Clip &clip, const EncoderOptions &options) {
  const std::string stats = vpxrc::run_first_pass(clip.source, options);
  std::mt19937 random(2);
  for (int i = 0; i < 24; ++i) {
    EncodeSession session(clip.source, options, stats, Control{false, true, true, {}}, nullptr, 0);
    const unsigned steps = random() % 20;
    std::atomic<bool> over{false};
    std::thread reader([&] {
      while (!over) try {
          const EncodeSession::Rest rest(session);
          size_t bits = session.reconstruction().size() + session.tpl().values.size();
          for (const auto &record : session.records()) bits += size_t(record.bits);
          CHECK(bits + size_t(session.group().size) > 0);
        } catch (const std::runtime_error &) {
          std::this_thread::yield();  // it runs
        }
    });
    std::thread stepper([&] {
      State state = session.wait(kPatience);
      while (state == State::kFrame || state == State::kGroup) {
        if (state == State::kGroup) session.answer_group({});
        if (state == State::kFrame) session.answer(Decision{120, 1.0, {}, 0, {}});
        state = session.wait(kPatience);
      }
      CHECK(state == State::kDone || session.error() == "the session was closed");
    });
    while (session.progress() < int64_t(steps)) std::this_thread::yield();
    std::thread closer([&] { CHECK(session.close(kPatience)); });
    CHECK(session.close(kPatience));
    CHECK(!session.answer(Decision{120, 1.0, {}, 0, {}}));
    closer.join();
    stepper.join();
    over = true;
    reader.join();
  }
  CHECK(EncodeSession::num_running() == 0);
}

// A fork has the session but not its thread: nothing there waits, and the parent's goes on.
void not_of_a_fork(const Clip &clip, const EncoderOptions &options) {
  const std::string stats = vpxrc::run_first_pass(clip.source, options);
  const auto queue = std::make_shared<vpxrc::ReadyQueue>();
  auto session = std::make_unique<EncodeSession>(clip.source, options, stats, Control{}, queue, 0);
  CHECK(queue->pop(kPatience).has_value());
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    int refused = 0;
    const std::function<void()> uses[] = {
        [&] { session->wait(kPatience); }, [&] { session->answer({}); },
        [&] { const EncodeSession::Rest rest(*session); }, [&] { queue->pop(kPatience); }};
    for (const auto &use : uses) try {
        use();
      } catch (const std::runtime_error &) {
        ++refused;
      }
    const bool closed = session->close(kPatience);
    session.reset();
    _exit(closed && refused == 4 ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(run(*session, [](const EncodeSession &) { return Decision{120, 1.0, {}, 0, {}}; }) ==
        State::kDone);
}

void many_at_once(const Clip &clip, const EncoderOptions &options) {
  const std::string stats = vpxrc::run_first_pass(clip.source, options);
  const auto queue = std::make_shared<vpxrc::ReadyQueue>();
  std::map<int64_t, std::unique_ptr<EncodeSession>> sessions;
  for (int64_t id = 0; id < 4; ++id)
    sessions[id] =
        std::make_unique<EncodeSession>(clip.source, options, stats, Control{}, queue, id);
  std::vector<std::string> streams;
  while (!sessions.empty()) {
    const auto id = queue->pop(kPatience);
    CHECK(id.has_value());
    EncodeSession &session = *sessions.at(*id);
    const State state = session.wait(0);
    CHECK(state == State::kFrame || state == State::kDone);
    if (state == State::kFrame) {
      session.answer(Decision{100, 1.0, {}, 0, {}});
    } else {
      streams.push_back(stream_of(session.packets()));
      sessions.erase(*id);
    }
  }
  for (const auto &stream : streams) CHECK(stream == streams.front());
  CHECK(!queue->pop(0.01).has_value());
}

void refused_by_libvpx(const Clip &clip) {
  EncoderOptions options;
  options.max_quantizer = 99;
  bool thrown = false;
  try {
    vpxrc::run_first_pass(clip.source, options);
  } catch (const std::runtime_error &error) {
    thrown = std::string(error.what()).size() > 0;
  }
  CHECK(thrown);
  EncodeSession session(clip.source, EncoderOptions{}, "not statistics", Control{}, nullptr, 0);
  CHECK(session.wait(kPatience) == State::kFailed);
  CHECK(!session.error().empty());
}

}  // namespace

void test_session(int bit_depth) {
  const Clip odd = make_clip(97, 67, 34, bit_depth);
  for (const int layers : {0, 1, 6})
    for (const bool tpl : {false, true}) {
      EncoderOptions options;
      options.target_bitrate = 60;
      options.cpu_used = 4;
      options.auto_alt_ref = layers;
      options.tpl = tpl;
      observed_equals_plain_and_replays(odd, options);
    }
  EncoderOptions options;
  options.cpu_used = 4;
  options.auto_alt_ref = 6;
  every_lever(odd, options);
  options.rate_control = vpxrc::RateControl::kQ;
  every_lever(odd, options);
  closed_anywhere(odd, options);
  used_by_several_threads(odd, options);
  not_of_a_fork(odd, options);
  many_at_once(odd, options);
  refused_by_libvpx(odd);
}
