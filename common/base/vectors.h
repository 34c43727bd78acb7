/* vectors.h: loops that compilers vectorize, also for AVX2 where the processor has it. What they
 * compute element by element, or in a fixed number of partial sums, has the same bits either way.
 *
 *     INLINE void loop(...) { ... }
 *     WIDE_VECTORS static void wide_loop(...) { loop(...); }
 *     (has_wide_vectors() ? wide_loop : loop)(...) */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdbool.h>

/* Of a function that becomes part of each version. */
#define INLINE static inline __attribute__((always_inline))

#ifdef __x86_64__

/* Of a function to call only if has_wide_vectors(). */
#define WIDE_VECTORS __attribute__((target("avx2")))

static inline bool has_wide_vectors(void)
{
    return __builtin_cpu_supports("avx2");
}

#else

/* The compiler's own target has the widest that there are. */
#define WIDE_VECTORS

static inline bool has_wide_vectors(void)
{
    return true;
}

#endif

#endif
