/* What the files of C have in common: attributes, sizes, memory, and compiling a text for one instruction set. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define EXPORT __attribute__((visibility("default")))

static int64_t ceil_div(int64_t size, int64_t by) { return (size + by - 1) / by; }

static int64_t round_up(int64_t size, int64_t multiple) { return ceil_div(size, multiple) * multiple; }

#if defined(__x86_64__)
#define TARGET_PUSH(FEATURES) TARGET_PUSH_(FEATURES)
#ifdef __clang__
#define PRAGMA(X) _Pragma(#X)
#define TARGET_PUSH_(F) PRAGMA(clang attribute push(__attribute__((target(F))), apply_to = function))
#define TARGET_POP _Pragma("clang attribute pop")
#else
#define PRAGMA(X) _Pragma(#X)
#define TARGET_PUSH_(F) _Pragma("GCC push_options") PRAGMA(GCC target(F))
#define TARGET_POP _Pragma("GCC pop_options")
#endif
#endif

/* On a cache line; free() releases it. */
static inline float *allocate_dirty(int64_t floats)
{
    void *memory = NULL;
    return posix_memalign(&memory, 64, (size_t)round_up(floats * 4 + 64, 64)) ? NULL : memory;
}

/* The same, zeroed. */
static inline float *allocate(int64_t floats)
{
    float *memory = allocate_dirty(floats);
    return memory ? memset(memory, 0, (size_t)floats * 4) : NULL;
}
