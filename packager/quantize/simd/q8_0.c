/* Q8_0: quantize_row_q8_0_ref in ggml-quants.c. It has no use for an importance matrix. */
#include "scalars.h"

#define BLOCK 32 /* weights */

struct q8_0 {
    uint16_t d;
    int8_t qs[BLOCK];
};

/* roundf: halves go away from zero. */
INLINE __m256i rounded_away(__m256 v) {
    __m256 sign = _mm256_and_ps(v, _mm256_set1_ps(-0.0f));
    __m256 whole = _mm256_round_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m256 rest = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v - whole); /* exact */
    __m256 one = _mm256_and_ps(_mm256_cmp_ps(rest, _mm256_set1_ps(0.5f), _CMP_GE_OQ),
                               _mm256_set1_ps(1.0f));
    return _mm256_cvttps_epi32(whole + _mm256_or_ps(one, sign));
}

static void quantize_block(const float *x, float amax, struct q8_0 *to) {
    float d = amax / 127;
    __m256 id = _mm256_set1_ps(d != 0 ? 1.0f / d : 0.0f);
    __m256i q[4];
    for (int i = 0; i < 4; i++) q[i] = rounded_away(_mm256_loadu_ps(x + 8 * i) * id);
    __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                       _mm256_packs_epi32(q[2], q[3]));
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packs works in halves */
    _mm256_storeu_si256((__m256i *)to->qs, _mm256_permutevar8x32_epi32(mixed, order));
    to->d = to_half(d);
}

void airpack_q8_0(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    struct q8_0 *to = y;
    for (int64_t b = 0; b < rows * columns / BLOCK; b++, x += BLOCK) {
        float amax = block_peak(x);
        if (is_usual(amax))
            quantize_block(x, amax, to + b);
        else
            ggml(8, x, to + b, 0, 1, BLOCK, matrix);
    }
}
