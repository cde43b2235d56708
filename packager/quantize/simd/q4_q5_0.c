/* Q4_0: quantize_row_q4_0_ref in ggml-quants.c. Q4_0 and Q5_0 with an importance matrix:
 * quantize_row_q4_0_impl and quantize_row_q5_0_impl. See search.h for what is ggml's. */
#include "lone.h"

struct q4_0 {
    uint16_t d;
    uint8_t qs[BLOCK / 2];
};

struct q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[BLOCK / 2];
};

/* The first value whose magnitude is amax, and 0 for zeros of either sign. */
static float first_peak(const float *x, float amax) {
    if (amax == 0) return 0;
    __m256 peak = _mm256_set1_ps(amax);
    for (int i = 0; i < BLOCK; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        __m256 ax = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
        int found = _mm256_movemask_ps(_mm256_cmp_ps(ax, peak, _CMP_EQ_OQ));
        if (found) return x[i + __builtin_ctz((unsigned)found)];
    }
    return 0;
}

/* Levels of 16 weights, (int8_t)(x * id + 8.5) or 15, as 16-bit integers in halves' order. */
INLINE __m256i levels(const float *x, __m256 id) {
    __m256 half = _mm256_set1_ps(8.5f);
    __m256i low = _mm256_cvttps_epi32(_mm256_loadu_ps(x) * id + half);
    __m256i high = _mm256_cvttps_epi32(_mm256_loadu_ps(x + 8) * id + half);
    return _mm256_min_epi16(_mm256_packs_epi32(low, high), _mm256_set1_epi16(15));
}

static void quantize_block(const float *x, float amax, struct q4_0 *to) {
    float d = first_peak(x, amax) / -8;
    __m256 id = _mm256_set1_ps(d != 0 ? 1.0f / d : 0.0f);
    __m256i pairs = _mm256_or_si256(levels(x, id), _mm256_slli_epi16(levels(x + 16, id), 4));
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5); /* packs works in halves */
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(pairs, pairs), order);
    _mm_storeu_si128((__m128i *)to->qs, _mm256_castsi256_si128(bytes));
    to->d = to_half(d);
}

INLINE unsigned convert(const struct lone *blocks, const floats *x, const floats *w, int nmax,
                        int qs, int qh) {
    struct symmetric found = search_symmetric(x, w, BLOCK, nmax);
    mask zero = equal(found.step, all(0));
    floats levels[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        levels[i] = choose(zero, all(0), symmetric_level(x[i], found.step, nmax) + (float)nmax);
    put_halves(blocks, found.scale, 0);
    pack_levels(blocks, levels, qs, qh);
    return found.odd;
}

static unsigned convert_q4_0(const struct lone *blocks, const floats *x, const floats *w) {
    return convert(blocks, x, w, 8, offsetof(struct q4_0, qs), 0);
}

static unsigned convert_q5_0(const struct lone *blocks, const floats *x, const floats *w) {
    return convert(blocks, x, w, 16, offsetof(struct q5_0, qs), offsetof(struct q5_0, qh));
}

void airpack_q4_0(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    if (matrix) {
        quantize_weighted(ggml, x, y, rows, columns, matrix, 2, sizeof(struct q4_0), convert_q4_0);
        return;
    }
    struct q4_0 *to = y;
    for (int64_t b = 0; b < rows * (columns / BLOCK); b++, x += BLOCK) {
        float amax = block_peak(x);
        if (is_usual(amax))
            quantize_block(x, amax, to + b);
        else
            ggml(2, x, to + b, 0, 1, BLOCK, NULL);
    }
}

void airpack_q5_0(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    if (matrix)
        quantize_weighted(ggml, x, y, rows, columns, matrix, 6, sizeof(struct q5_0), convert_q5_0);
    else
        ggml(6, x, y, 0, rows, columns, NULL);
}
