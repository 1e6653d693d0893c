#include "memory.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <type_traits>
#include <utility>

namespace lstm_fast {
namespace {

struct Memory {
  std::byte* data = nullptr;
  std::size_t capacity = 0;
};

void free_memory(Memory memory) { ::operator delete(memory.data, std::align_val_t{reserve_alignment}); }

// Blocks without an owner, the oldest first. Whoever finds another thread at it does without: nobody waits, so that a
// fork in the middle leaves a child that merely keeps nothing.
class Spares {
 public:
  // The smallest that holds `bytes` and is not mostly larger; none: null.
  Memory take(std::size_t bytes) {
    const Access access(*this);
    if (!access.granted) return {};
    int best = -1;
    for (int place = 0; place < count_; ++place) {
      const std::size_t capacity = spares_[place].capacity;
      if (capacity < bytes || capacity / 2 > bytes) continue;
      if (best < 0 || capacity < spares_[best].capacity) best = place;
    }
    return best < 0 ? Memory{} : remove(best);
  }

  void give(Memory memory, std::size_t most) {
    const Access access(*this);
    if (!access.granted || memory.capacity > most) return free_memory(memory);
    if (count_ == places) free_memory(remove(0));
    shrink_to(most - memory.capacity);
    spares_[count_++] = memory;
    total_ += memory.capacity;
  }

  void shrink(std::size_t most) {
    const Access access(*this);
    if (access.granted) shrink_to(most);
  }

  std::size_t total() {
    const Access access(*this);
    return access.granted ? total_ : 0;
  }

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

  void shrink_to(std::size_t most) {
    while (total_ > most) free_memory(remove(0));
  }

  Memory remove(int place) {
    const Memory found = spares_[place];
    std::move(spares_ + place + 1, spares_ + count_, spares_ + place);
    --count_;
    total_ -= found.capacity;
    return found;
  }

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  Memory spares_[places];
  int count_ = 0;
  std::size_t total_ = 0;
};

// Never destroyed, since there is nothing to do: a block may be given back late.
constinit Spares spares;
static_assert(std::is_trivially_destructible_v<Spares>);

std::atomic<std::size_t> limit{std::size_t{256} << 20};

}  // namespace

std::size_t spare_memory_limit() { return limit.load(std::memory_order_relaxed); }

void set_spare_memory_limit(std::size_t bytes) {
  limit.store(bytes, std::memory_order_relaxed);
  spares.shrink(bytes);
}

std::size_t spare_memory() { return spares.total(); }

Block::Block(std::size_t bytes) : size_(bytes) {
  const Memory spare = bytes > spare_memory_limit() ? Memory{} : spares.take(bytes);
  data_ = spare.data;
  capacity_ = spare.capacity;
  if (data_) return;
  capacity_ = bytes;
  try {
    data_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{reserve_alignment}));
  } catch (const std::bad_alloc&) {
    spares.shrink(0);
    data_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{reserve_alignment}));
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
  if (data_) spares.give({data_, capacity_}, spare_memory_limit());
}

}  // namespace lstm_fast
