#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>

namespace lstm_fast {
namespace {

struct Memory {
  std::byte* data = nullptr;
  std::size_t capacity = 0;
};

// Large blocks ask for large pages: weights and gates of many megabytes need more pages of the usual size than the
// processor keeps addresses of. A system that has none to give takes no notice.
constexpr std::size_t large_page = std::size_t{2} << 20;

std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes >= 2 * large_page ? large_page : reserve_alignment};
}

std::byte* new_memory(std::size_t bytes) {
  void* const data = ::operator new(bytes, alignment_of(bytes));
#ifdef MADV_HUGEPAGE
  if (bytes >= 2 * large_page) madvise(data, bytes / large_page * large_page, MADV_HUGEPAGE);
#endif
  return static_cast<std::byte*>(data);
}

void free_memory(Memory memory) { ::operator delete(memory.data, alignment_of(memory.capacity)); }

// Blocks without an owner, the oldest first. Whoever finds another thread at it does without: nobody waits for long, so
// that a child forked in the middle, where that thread does not exist, merely keeps nothing more.
class Spares {
 public:
  // The smallest that holds `bytes` and is at most a quarter larger; none: null.
  Memory take(std::size_t bytes) {
    const Access access(*this);
    if (!access.granted) return {};
    int best = -1;
    for (int place = 0; place < count_; ++place) {
      const std::size_t capacity = spares_[place].capacity;
      if (capacity < bytes || capacity - bytes > bytes / 4) continue;
      if (best < 0 || capacity < spares_[best].capacity) best = place;
    }
    return best < 0 ? Memory{} : remove(best);
  }

  void give(Memory memory) {
    Dropped dropped;
    {
      const Access access(*this);
      if (access.granted) {
        spares_[count_++] = memory;
        total_.fetch_add(memory.capacity, std::memory_order_relaxed);
        drop_beyond(limit_.load(std::memory_order_relaxed), &dropped);
      } else {
        dropped.add(memory);
      }
    }
    dropped.free();
  }

  // Frees what is kept beyond `most`, unless another thread does not let go.
  void shrink(std::size_t most) {
    constexpr int patience = 10'000;
    Dropped dropped;
    for (int tries = 0; tries < patience; ++tries) {
      {
        const Access access(*this);
        if (access.granted) {
          drop_beyond(most, &dropped);
          break;
        }
      }
      std::this_thread::yield();
    }
    dropped.free();
  }

  std::size_t limit() const { return limit_.load(std::memory_order_relaxed); }
  void set_limit(std::size_t bytes) {
    limit_.store(bytes, std::memory_order_relaxed);
    shrink(bytes);
  }
  std::size_t total() const { return total_.load(std::memory_order_relaxed); }

 private:
  static constexpr int places = 16;

  struct Access {
    explicit Access(Spares& own) : spares(own), granted(!own.busy_.test_and_set(std::memory_order_acquire)) {}
    ~Access() {
      if (granted) spares.busy_.clear(std::memory_order_release);
    }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;
    Spares& spares;
    const bool granted;
  };

  // To be freed when nobody is kept waiting: that can take as long as giving pages back to the system.
  struct Dropped {
    Memory memories[places + 1];
    int count = 0;
    void add(Memory memory) { memories[count++] = memory; }
    void free() {
      while (count > 0) free_memory(memories[--count]);
    }
  };

  void drop_beyond(std::size_t most, Dropped* dropped) {
    while (count_ > places || total() > most) dropped->add(remove(0));
  }

  Memory remove(int place) {
    const Memory found = spares_[place];
    std::move(spares_ + place + 1, spares_ + count_, spares_ + place);
    --count_;
    total_.fetch_sub(found.capacity, std::memory_order_relaxed);
    return found;
  }

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  Memory spares_[places + 1];
  int count_ = 0;
  std::atomic<std::size_t> total_{0};
  std::atomic<std::size_t> limit_{std::size_t{256} << 20};
};

// Never destroyed, since there is nothing to do: a block may be given back late.
constinit Spares spares;
static_assert(std::is_trivially_destructible_v<Spares>);

}  // namespace

std::size_t spare_memory_limit() { return spares.limit(); }

void set_spare_memory_limit(std::size_t bytes) { spares.set_limit(bytes); }

std::size_t spare_memory() { return spares.total(); }

Block::Block(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  const Memory spare = spares.take(bytes);
  data_ = spare.data;
  capacity_ = spare.capacity;
  if (data_) return;
  capacity_ = bytes;
  try {
    data_ = new_memory(bytes);
  } catch (const std::bad_alloc&) {
    spares.shrink(0);
    data_ = new_memory(bytes);
  }
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(other.size_), capacity_(other.capacity_) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

Block::~Block() {
  if (data_) spares.give({data_, capacity_});
}

}  // namespace lstm_fast
