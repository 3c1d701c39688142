#include "threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace kmvn {
namespace {

// One call. Any free thread takes the next part. The caller takes parts, too, and waits only for
// those that others have begun, so the call ends even if no helper ever starts.
struct Work {
  Work(int64_t n, int64_t grain, kmvn_body body, void* context)
      : n(n), grain(grain), body(body), context(context) {}

  void help() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      const int64_t end = begin + grain < n ? begin + grain : n;
      try {
        body(context, begin, end);
      } catch (const std::exception&) {  // out of memory; no exception may leave a foreign thread
        failed.store(true, std::memory_order_relaxed);
      }
      if (done.fetch_add(end - begin, std::memory_order_acq_rel) + (end - begin) == n) {
        std::lock_guard<std::mutex> lock(mutex);
        finished = true;
        all_done.notify_one();
      }
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    all_done.wait(lock, [this] { return finished; });
  }

  const int64_t n, grain;
  const kmvn_body body;
  void* const context;
  std::atomic<int64_t> next{0}, done{0};
  std::atomic<bool> failed{false};
  bool finished = false;
  std::mutex mutex;
  std::condition_variable all_done;
};

// A task shares ownership of the work, which thus outlives a call whose helpers start late.
using Share = std::shared_ptr<Work>;

void help(void* data) {
  const std::unique_ptr<Share> share(static_cast<Share*>(data));
  (*share)->help();
}

#if defined(_WIN32)
int this_process() { return 0; }
#else
int this_process() { return int(getpid()); }
#endif

class Pool {
 public:
  const int owner = this_process();

  void submit(void (*task)(void*), void* data) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (idle_ <= int(queue_.size())) {
        std::thread([this] { serve(); }).detach();
        ++idle_;
      }
      queue_.push_back({task, data});
    }
    wake_.notify_one();
  }

 private:
  struct Task {
    void (*run)(void*);
    void* data;
  };

  void serve() {
    for (;;) {
      Task task;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return !queue_.empty(); });
        task = queue_.front();
        queue_.pop_front();
        --idle_;
      }
      task.run(task.data);
      std::lock_guard<std::mutex> lock(mutex_);
      ++idle_;
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> queue_;
  int idle_ = 0;  // threads that wait or are about to
};

// Never destroyed, because its threads outlive static objects. A forked child has no threads, so it
// gets its own pool.
Pool& pool() {
  static std::atomic<Pool*> current{nullptr};  // no lock, because a fork could copy it locked
  Pool* found = current.load(std::memory_order_acquire);
  while (!found || found->owner != this_process()) {
    Pool* const made = new Pool;
    if (current.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return *made;
    delete made;
  }
  return *found;
}

// Runs everything in this thread.
bool run_here(int64_t n, kmvn_body body, void* context) {
  Work work(n, n, body, context);
  work.help();
  return !work.failed;
}

int submit_to_pool(void* pool, void (*task)(void*), void* data) {
  try {
    static_cast<Pool*>(pool)->submit(task, data);
    return 0;
  } catch (const std::exception&) {  // no more threads: the caller works alone
    return 1;
  }
}

}  // namespace

bool run_in_parts(const kmvn_threads& threads, int64_t n, int64_t grain, kmvn_body body,
                  void* context) try {
  const int64_t parts = (n + grain - 1) / grain;
  const int64_t helpers = std::min<int64_t>(parts, threads.threads) - 1;
  if (helpers < 1) return run_here(n, body, context);
  if (threads.team) {
    Work work(n, grain, body, context);
    threads.team([](void* data) { static_cast<Work*>(data)->help(); }, &work, unsigned(helpers + 1),
                 0);
    return !work.failed;
  }
  const auto submit = threads.submit ? threads.submit : submit_to_pool;
  void* const scheduler = threads.submit ? threads.scheduler : &pool();
  const Share work = std::make_shared<Work>(n, grain, body, context);
  for (int64_t i = 0; i < helpers; ++i) {
    std::unique_ptr<Share> share(new (std::nothrow) Share(work));
    if (!share || submit(scheduler, help, share.get()) != 0) break;
    share.release();
  }
  work->help();
  work->wait();
  return !work->failed;
} catch (const std::bad_alloc&) {  // no memory even for Work; nothing has started
  return run_here(n, body, context);
}

}  // namespace kmvn
