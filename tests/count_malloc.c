/* Loaded before the C library: counts calls that allocate memory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

static long count;

long allocations(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }

#define COUNTED(name, parameters, arguments)                       \
  void* name parameters {                                          \
    static void*(*real)parameters;                                 \
    if (!real) real = (void*(*)parameters)dlsym(RTLD_NEXT, #name); \
    __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);               \
    return real arguments;                                         \
  }

COUNTED(malloc, (size_t size), (size))
COUNTED(realloc, (void* old, size_t size), (old, size))
COUNTED(aligned_alloc, (size_t alignment, size_t size), (alignment, size))
