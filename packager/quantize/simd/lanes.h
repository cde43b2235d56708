/* Eight floats (AVX2) or sixteen (AVX-512) at a time, one independent calculation in each lane.
 *
 * Every operation rounds as its scalar counterpart does, and none is fused or reordered: what
 * happens in a lane is, bit for bit, what a scalar loop would do. min_of and max_of choose their
 * second operand when neither compares, as `a < b ? a : b` does.
 */
#pragma once

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__

#define LANES 16
typedef __m512 floats;
typedef int32_t ints __attribute__((vector_size(64)));
typedef __mmask16 mask;

INLINE floats all(float value) { return _mm512_set1_ps(value); }
INLINE floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, floats v) { _mm512_storeu_ps(to, v); }
INLINE mask less(floats a, floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE mask equal(floats a, floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE mask not_equal(floats a, floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
INLINE floats choose(mask m, floats yes, floats no) { return _mm512_mask_blend_ps(m, no, yes); }
INLINE unsigned bits_of(mask m) { return m; }
INLINE floats min_of(floats a, floats b) { return _mm512_min_ps(a, b); }
INLINE floats max_of(floats a, floats b) { return _mm512_max_ps(a, b); }
INLINE floats root(floats v) { return _mm512_sqrt_ps(v); }
INLINE floats magnitude(floats v) { return _mm512_abs_ps(v); }
INLINE ints as_bits(floats v) { return (ints)_mm512_castps_si512(v); }
INLINE floats to_floats(ints v) { return _mm512_cvtepi32_ps((__m512i)v); }
INLINE void store_bytes(uint8_t *to, ints v) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)v));
}
/* Sixteen floats to choose from by number. */
typedef __m512 table;
INLINE table load_table(const float *from) { return _mm512_loadu_ps(from); }
INLINE floats look_up(table t, ints index) { return _mm512_permutexvar_ps((__m512i)index, t); }
INLINE ints add_where(mask m, ints v, int more) {
    return (ints)_mm512_mask_add_epi32((__m512i)v, m, (__m512i)v, _mm512_set1_epi32(more));
}
INLINE ints min_int(ints v, int limit) {
    return (ints)_mm512_min_epi32((__m512i)v, _mm512_set1_epi32(limit));
}
INLINE ints max_int(ints v, int limit) {
    return (ints)_mm512_max_epi32((__m512i)v, _mm512_set1_epi32(limit));
}

#else

#define LANES 8
typedef __m256 floats;
typedef int32_t ints __attribute__((vector_size(32)));
typedef __m256i mask;

INLINE floats all(float value) { return _mm256_set1_ps(value); }
INLINE floats load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store(float *to, floats v) { _mm256_storeu_ps(to, v); }
INLINE mask less(floats a, floats b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
INLINE mask equal(floats a, floats b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
INLINE mask not_equal(floats a, floats b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ));
}
INLINE floats choose(mask m, floats yes, floats no) {
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m));
}
INLINE unsigned bits_of(mask m) { return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }
INLINE floats min_of(floats a, floats b) { return _mm256_min_ps(a, b); }
INLINE floats max_of(floats a, floats b) { return _mm256_max_ps(a, b); }
INLINE floats root(floats v) { return _mm256_sqrt_ps(v); }
INLINE floats magnitude(floats v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
INLINE ints as_bits(floats v) { return (ints)_mm256_castps_si256(v); }
INLINE floats to_floats(ints v) { return _mm256_cvtepi32_ps((__m256i)v); }
INLINE void store_bytes(uint8_t *to, ints v) { /* of 0..255 each */
    __m128i low = _mm256_castsi256_si128((__m256i)v);
    __m128i words = _mm_packus_epi32(low, _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}
/* Sixteen floats to choose from by number. */
typedef struct {
    __m256 low, high;
} table;
INLINE table load_table(const float *from) {
    return (table){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
INLINE floats look_up(table t, ints index) {
    __m256 low = _mm256_permutevar8x32_ps(t.low, (__m256i)index);
    __m256 high = _mm256_permutevar8x32_ps(t.high, (__m256i)index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps((__m256i)(index << 28)));
}
INLINE ints add_where(mask m, ints v, int more) { return v + ((ints)m & more); }
INLINE ints min_int(ints v, int limit) {
    return (ints)_mm256_min_epi32((__m256i)v, _mm256_set1_epi32(limit));
}
INLINE ints max_int(ints v, int limit) {
    return (ints)_mm256_max_epi32((__m256i)v, _mm256_set1_epi32(limit));
}

#endif

INLINE bool any(mask m) { return bits_of(m) != 0; }
INLINE mask not(mask m) { return (mask)~m; }
INLINE mask none(void) { return (mask){0}; }

/* ROUNDING + v has no room for a fraction, so adding rounds to the nearest integer, ties to even. */
#define ROUNDING 12582912.0f /* 1.5 * 2^23 */
/* Beyond this magnitude nearest_int wraps around, and rounded() does not. */
#define ROUNDING_REACH 4.0e6f

/* The nearest integer to v, for |v| < ROUNDING_REACH only. */
INLINE floats rounded(floats v) { return (v + ROUNDING) - ROUNDING; }

INLINE floats clamped(floats v, float low, float high) {
    return max_of(all(low), min_of(all(high), v));
}

/* ggml's nearest_int, with what it gives beyond its reach. */
INLINE ints nearest_int(floats v) { return (as_bits(v + ROUNDING) & 0x007fffff) - 0x00400000; }

INLINE ints clamped_int(ints v, int low, int high) { return max_int(min_int(v, high), low); }

/* Rows of eight floats to columns, `stride` floats apart. */
INLINE void transpose_tile(const float *const rows[8], float *to, int stride) {
    __m256 r[8], s[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(rows[i]);
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i + 0] = _mm256_shuffle_ps(s[i + 0], s[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
        r[i + 1] = _mm256_shuffle_ps(s[i + 0], s[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
        r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
        r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* Lane k of to[i] = rows[k][i], for `n` values of i, a multiple of 8. */
INLINE void load_rows(floats *to, const float *const rows[LANES], int n) {
    for (int lane = 0; lane < LANES; lane += 8)
        for (int i = 0; i < n; i += 8) {
            const float *tile[8];
            for (int k = 0; k < 8; k++) tile[k] = rows[lane + k] + i;
            transpose_tile(tile, (float *)(to + i) + lane, LANES);
        }
}

/* rows[k][i] = lane k of from[i]. */
INLINE void store_rows(float *const rows[LANES], const floats *from, int n) {
    for (int lane = 0; lane < LANES; lane += 8)
        for (int i = 0; i < n; i += 8) {
            const float *tile[8];
            float columns[64];
            for (int k = 0; k < 8; k++) tile[k] = (const float *)(from + i + k) + lane;
            transpose_tile(tile, columns, 8);
            for (int k = 0; k < 8; k++)
                _mm256_storeu_ps(rows[lane + k] + i, _mm256_loadu_ps(columns + 8 * k));
        }
}

/* Lane k of to[i] = from[k * stride + i]. */
INLINE void load_lanes(floats *to, const float *from, int64_t stride, int n) {
    const float *rows[LANES];
    for (int k = 0; k < LANES; k++) rows[k] = from + k * stride;
    load_rows(to, rows, n);
}
