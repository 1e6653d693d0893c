// Preloaded by test_guard_pages.py: while it is on, every large allocation of the process stands between two pages that
// may not be touched, filled with NaN, its end (mode 1) or its start (mode 2) at the page's edge. Freed pages are
// closed too.
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
extern void __libc_free(void*);

enum { page = 4096, least = 64 };
static const size_t arena_bytes = (size_t)1 << 38;  // of addresses; they are not used again
static char* arena;
static size_t used;
static int mode;
static size_t count;

size_t guard_malloc_count(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }

int guard_malloc_mode(int wanted) {
  if (!arena) {
    void* place = mmap(NULL, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) return -1;
    arena = place;
  }
  __atomic_store_n(&mode, wanted, __ATOMIC_RELEASE);
  return 0;
}

static int guarded(const void* p) { return arena && (const char*)p >= arena && (const char*)p < arena + arena_bytes; }

// The size is kept at the start of a page of its own before the first guard page.
static void* guarded_alloc(size_t alignment, size_t size) {
  const size_t body = (size + page - 1) / page * page;
  const size_t whole = body + 3 * page;  // size page, guard, body, guard
  const size_t at = __atomic_fetch_add(&used, whole, __ATOMIC_RELAXED);
  if (alignment > page || size > arena_bytes / 2 || at + whole > arena_bytes) return NULL;
  char* base = arena + at;
  if (mprotect(base, page, PROT_READ | PROT_WRITE) || mprotect(base + 2 * page, body, PROT_READ | PROT_WRITE))
    return NULL;
  char* start = base + 2 * page;
  if (__atomic_load_n(&mode, __ATOMIC_RELAXED) == 1) start += (body - size) / alignment * alignment;
  ((size_t*)base)[0] = size;
  memset(start, 0xFF, size);  // NaN in every floating-point format
  __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
  return start;
}

static char* base_of(const void* p) {  // the size page stands two pages before the page of the start
  char* first = (char*)((uintptr_t)p / page * page);
  return first - 2 * page;
}

static void guarded_free(void* p) {
  char* base = base_of(p);
  const size_t body = (((size_t*)base)[0] + page - 1) / page * page;
  madvise(base, body + 3 * page, MADV_DONTNEED);
  mprotect(base, body + 3 * page, PROT_NONE);
}

static int wanted(size_t size) { return __atomic_load_n(&mode, __ATOMIC_ACQUIRE) && size >= least; }

void* malloc(size_t size) { return wanted(size) ? guarded_alloc(16, size) : __libc_malloc(size); }

void* calloc(size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
  if (!wanted(bytes)) return __libc_calloc(n, size);
  void* p = guarded_alloc(16, bytes);
  return p ? memset(p, 0, bytes) : NULL;
}

void free(void* p) {
  const int error = errno;
  if (guarded(p))
    guarded_free(p);
  else
    __libc_free(p);
  errno = error;
}

void* realloc(void* p, size_t size) {
  if (!guarded(p)) return __libc_realloc(p, size);
  const size_t before = ((size_t*)base_of(p))[0];
  void* moved = wanted(size) ? guarded_alloc(16, size) : __libc_malloc(size);
  if (!moved) return NULL;
  memcpy(moved, p, before < size ? before : size);
  guarded_free(p);
  return moved;
}

void* memalign(size_t alignment, size_t size) {
  return wanted(size) ? guarded_alloc(alignment < 16 ? 16 : alignment, size) : __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void** p, size_t alignment, size_t size) {
  *p = memalign(alignment, size);
  return *p ? 0 : ENOMEM;
}
