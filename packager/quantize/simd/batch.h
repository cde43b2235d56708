/* What types with super-blocks of 256 weights have in common: many are taken at a time, so that
 * the quantization of their scales, too, can have one of them in each lane. */
#pragma once

#include "scalars.h"
#include "search.h"

#define SUPER 256 /* weights of a super-block */
#define BATCH 32  /* super-blocks: a multiple of LANES, and no more than an unsigned has bits */

/* A batch of super-blocks to `y`, weighted with `w` (as many as weights) unless that is NULL.
 * The result has bit b set if super-block b is odd, and what was written for it worthless. */
typedef unsigned (*batch_function)(const float *x, const float *w, void *y);

/* The weights of `count` super-blocks from number `first` of a tensor with `columns` a row. */
static const float *batch_weights(const float *matrix, int64_t columns, int64_t first, int count,
                                  float *space) {
    int64_t per_row = columns / SUPER;
    if (!matrix) return NULL;
    for (int b = 0; b < BATCH; b++) {
        int64_t column = b < count ? (first + b) % per_row * SUPER : 0;
        memcpy(space + b * SUPER, matrix + column, SUPER * sizeof *space);
    }
    return space;
}

/* Quantize rows of whole super-blocks; those that are odd are ggml's, of `type`, to do. */
INLINE void quantize_in_batches(const float *x, void *y, int64_t rows, int64_t columns,
                                const float *matrix, chunk_function ggml, int type,
                                size_t block_size, batch_function convert) {
    float padded[BATCH * SUPER], weights[BATCH * SUPER];
    char spare[BATCH * SUPER];
    int64_t total = rows * (columns / SUPER);
    for (int64_t first = 0; first < total; first += BATCH) {
        int count = total - first < BATCH ? (int)(total - first) : BATCH;
        const float *from = x + first * SUPER;
        char *to = (char *)y + first * block_size;
        const float *w = batch_weights(matrix, columns, first, count, weights);
        unsigned odd;
        if (count == BATCH) {
            odd = convert(from, w, to);
        } else {
            memset(padded, 0, sizeof padded);
            memcpy(padded, from, count * SUPER * sizeof *padded);
            odd = convert(padded, w, spare);
            memcpy(to, spare, count * block_size);
        }
        for (int b = 0; odd && b < count; b++)
            if (odd >> b & 1)
                ggml(type, from + b * SUPER, to + b * block_size, 0, 1, SUPER,
                     w ? w + b * SUPER : NULL);
    }
}

/* Bits of lanes from block number `first`, `per_super` of which make a super-block, to bits of
 * super-blocks. */
INLINE unsigned odd_supers(unsigned lanes, int first, int per_super) {
    unsigned odd = 0;
    for (int k = 0; lanes >> k; k++)
        if (lanes >> k & 1) odd |= 1u << (first + k) / per_super;
    return odd;
}

/* The sum of squares of each super-block, added up in order. */
INLINE void sums_of_squares(const float *x, float *sums) {
    for (int b = 0; b < BATCH; b += LANES) {
        floats sum = all(0), part[32];
        for (int j = 0; j < SUPER; j += 32) {
            load_lanes(part, x + b * SUPER + j, SUPER, 32);
            for (int i = 0; i < 32; i++) sum += part[i] * part[i];
        }
        store(sums + b, sum);
    }
}

/* Lane k of the result is of the super-block of block number first + k. */
INLINE floats of_supers(const float *values, int first, int per_super) {
    float lanes[LANES];
    for (int k = 0; k < LANES; k++) lanes[k] = values[(first + k) / per_super];
    return load(lanes);
}

/* Lane k of planes[i], integers, to bytes[k * n + i]. */
INLINE void store_levels(uint8_t *bytes, const floats *planes, int n) {
    for (int i = 0; i < n; i++) {
        float lanes[LANES];
        store(lanes, planes[i]);
        for (int k = 0; k < LANES; k++) bytes[k * n + i] = (uint8_t)lanes[k];
    }
}

/* fit_positive for each super-block's scales or minimums, n of them. */
INLINE void share_fitted(const float *values, const float *weights, int n, int nmax,
                         uint8_t *shares, float *d) {
    for (int b = 0; b < BATCH; b += LANES) {
        floats xs[16], ws[16], ls[16];
        load_lanes(xs, values + b * n, n, n);
        load_lanes(ws, weights + b * n, n, n);
        store(d + b, fit_positive(xs, ws, n, nmax, ls));
        store_levels(shares + b * n, ls, n);
    }
}

/* What search_affine found for every block of a batch, eight or sixteen to a super-block. */
struct affine_blocks {
    float scale[BATCH * 16], minimum[BATCH * 16], step[BATCH * 16], base[BATCH * 16];
    float sum_w[BATCH * 16];
};

INLINE void keep_affine(struct affine_blocks *blocks, int first, struct affine found) {
    store(blocks->scale + first, found.scale);
    store(blocks->minimum + first, found.minimum);
    store(blocks->step + first, found.step);
    store(blocks->base + first, found.base);
}

/* search_affine for all blocks, of `n` weights each, with the weights `w` of their columns; ggml
 * takes `times` the mean square of the super-block. */
INLINE unsigned search_affine_weighted(const float *x, const float *w,
                                       struct affine_blocks *blocks, int n, int nmax,
                                       int times) {
    int per_super = SUPER / n;
    float sigma2[BATCH];
    sums_of_squares(x, sigma2);
    for (int b = 0; b < BATCH; b++) sigma2[b] = times * sigma2[b] / SUPER;
    unsigned odd = 0;
    for (int first = 0; first < BATCH * per_super; first += LANES) {
        floats xs[32], ws[32];
        load_lanes(xs, x + first * n, n, n);
        load_lanes(ws, w + first * n, n, n);
        store(blocks->sum_w + first, weigh(xs, ws, n, of_supers(sigma2, first, per_super)));
        struct affine found = search_affine(xs, ws, n, nmax, -0.9f, 0.05f, 36, false);
        keep_affine(blocks, first, found);
        odd |= odd_supers(found.odd, first, per_super);
    }
    return odd;
}

/* The levels of `n` weights in a block of scale d and minimum m; where d is 0, the search's. */
INLINE void affine_levels(const float *x, int n, float d, float m, float step, float base,
                          int nmax, uint8_t *levels) {
    if (d == 0)
        for (int i = 0; i < n; i += LANES) {
            ints nearest = nearest_int(all(step) * (load(x + i) - all(base)));
            store_bytes(levels + i, clamped_int(nearest, 0, nmax));
        }
    else
        for (int i = 0; i < n; i += LANES) {
            ints nearest = nearest_int((load(x + i) + all(m)) / all(d));
            store_bytes(levels + i, clamped_int(nearest, 0, nmax));
        }
}

/* What search_symmetric or search_by_level found for every block, sixteen to a super-block. */
struct symmetric_blocks {
    float scale[BATCH * 16], step[BATCH * 16], sum_w[BATCH * 16];
};

INLINE void keep_symmetric(struct symmetric_blocks *blocks, int first, struct symmetric found) {
    store(blocks->scale + first, found.scale);
    store(blocks->step + first, found.step);
}

/* The first value of the largest magnitude, or 0. */
INLINE float largest_magnitude(const float *values, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(values[i]) > fabsf(largest)) largest = values[i];
    return largest;
}

/* The levels of a block of 16 weights of scale d; where d is 0, those of search_symmetric. */
INLINE void symmetric_levels(const float *x, float d, float step, int nmax, uint8_t *levels) {
    if (d == 0 && step == 0) {
        memset(levels, 0, 16);
        return;
    }
    for (int i = 0; i < 16; i += LANES) {
        ints nearest = nearest_int(d == 0 ? all(step) * load(x + i) : load(x + i) / all(d));
        store_bytes(levels + i, clamped_int(nearest, -nmax, nmax - 1) + nmax);
    }
}

/* The low two bits of 256 levels. */
INLINE void pack_two_bits(const uint8_t *levels, uint8_t *qs) {
    const eight *l = (const eight *)levels, low = IN_EACH_BYTE(3);
    eight *q = (eight *)qs;
    for (int j = 0; j < 2; j++, l += 16, q += 4)
        for (int i = 0; i < 4; i++)
            q[i] = (l[i] & low) | (l[i + 4] & low) << 2 | (l[i + 8] & low) << 4 |
                   (l[i + 12] & low) << 6;
}
