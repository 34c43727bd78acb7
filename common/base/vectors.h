/* vectors.h: functions whose loops compilers vectorize, in a version for each width of vectors that
 * processors have. What they compute element by element, or in a fixed number of partial sums, has
 * the same bits in all of them.
 *
 *     VECTORS(void, scale, (float *x, size_t count, float factor), (x, count, factor))
 *     {
 *         for (size_t i = 0; i < count; i++)
 *             x[i] *= factor;
 *     }
 *
 * scale() runs the version for the widest vectors of this processor. Functions that the body calls
 * in its loops have to be INLINE. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdbool.h>

/* Of a function that becomes part of each version. */
#define INLINE static inline __attribute__((always_inline))

#ifdef __x86_64__

#define VECTORS_AVX2 __attribute__((target("avx2")))
#define VECTORS_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

static inline bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

/* True if processors have vectors that are worth another algorithm. */
static inline bool has_wide_vectors(void)
{
    return has_avx2();
}

static inline bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* name_any(), name_avx2() and name_avx512() are the versions. */
#define VECTORS(result, name, parameters, arguments)                                               \
    INLINE result name##_any parameters;                                                           \
    VECTORS_AVX2 static result name##_avx2 parameters                                              \
    {                                                                                              \
        return name##_any arguments;                                                               \
    }                                                                                              \
    VECTORS_AVX512 static result name##_avx512 parameters                                          \
    {                                                                                              \
        return name##_any arguments;                                                               \
    }                                                                                              \
    static result name parameters                                                                  \
    {                                                                                              \
        if (has_avx512())                                                                          \
            return name##_avx512 arguments;                                                        \
        if (has_avx2())                                                                            \
            return name##_avx2 arguments;                                                          \
        return name##_any arguments;                                                               \
    }                                                                                              \
    INLINE result name##_any parameters

#else

/* The compiler's own target has the widest that there are. */
#define VECTORS(result, name, parameters, arguments) static result name parameters

static inline bool has_wide_vectors(void)
{
    return true;
}

#endif

#endif
