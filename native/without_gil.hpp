// The GIL given back for a while, safely at the end of the program too.
#pragma once

#include <pthread.h>
#include <pybind11/pybind11.h>

#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace vpxrc {

// Up to Python 3.13 a thread that asks for the GIL after Python's end is unwound from within
// PyEval_RestoreThread, and C++ aborts the program where that meets a destructor. As in Python 3.14
// such a thread waits here instead until the process ends.
class ExitGate {
 public:
  static ExitGate &get() {
    static ExitGate &gate = *new ExitGate;  // never destroyed: threads may wait in it at the end
    return gate;
  }

  // Closes the gate when Python ends. Called once, when a module is loaded.
  static void close_at_exit() {
    get();
    // A forked child has none of the other threads; one of them may have held the mutex.
    pthread_atfork(nullptr, nullptr, [] { new (&get()) ExitGate; });
    pybind11::module_::import("atexit").attr("register")(
        pybind11::cpp_function([] { get().close(); }));
  }

  void take_gil(PyThreadState *state) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return !closed_ || owner_ == std::this_thread::get_id(); });
      ++taking_;
    }
    PyEval_RestoreThread(state);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      --taking_;
    }
    changed_.notify_all();
  }

 private:
  // The thread that ends Python goes on passing. Those that are asking for the GIL already get it.
  void close() {
    PyThreadState *const state = PyEval_SaveThread();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      closed_ = true;
      owner_ = std::this_thread::get_id();
      changed_.wait(lock, [this] { return taking_ == 0; });
    }
    PyEval_RestoreThread(state);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread::id owner_;
  int taking_ = 0;
  bool closed_ = false;
};

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { ExitGate::get().take_gil(state_); }
  WithoutGil(const WithoutGil &) = delete;
  WithoutGil &operator=(const WithoutGil &) = delete;

 private:
  PyThreadState *const state_;
};

}  // namespace vpxrc
