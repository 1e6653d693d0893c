// Memory of the workspace and the reserve. What a call gives back is kept for the next one, since fresh pages from the
// system take time: docs/design.md says how much.
#pragma once

#include <cstddef>

namespace lstm_fast {

inline constexpr std::size_t reserve_alignment = 64;

// Owns memory aligned to reserve_alignment, with undefined contents.
class Block {
 public:
  Block() = default;
  explicit Block(std::size_t bytes);  // throws std::bad_alloc; none: null
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  ~Block();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// How many bytes are kept at most, for all threads together. What is kept beyond a new limit is freed, at the latest
// when the next block is given back.
std::size_t spare_memory_limit();
void set_spare_memory_limit(std::size_t bytes);

// How many bytes are kept now.
std::size_t spare_memory();

}  // namespace lstm_fast
