/* Q3_K: quantize_row_q3_K_ref in ggml-quants.c, and with an importance matrix
 * quantize_row_q3_K_impl. Sixteen blocks of 16 weights make a super-block. See search.h for what
 * is ggml's. */
#include "by_level.h"

#define BLOCKS 16 /* of a super-block */

struct q3_K {
    uint8_t hmask[SUPER / 8];
    uint8_t qs[SUPER / 4];
    uint8_t scales[12];
    uint16_t d;
};

static unsigned search(const float *x, struct symmetric_blocks *blocks, struct by_level *found) {
    unsigned odd = 0;
    search_by_level(x, found);
    for (int first = 0; first < BATCH * BLOCKS; first += LANES) {
        floats sumlx = load(found->sumlx + first), suml2 = load(found->suml2 + first);
        floats scale = choose(less(all(0), suml2), sumlx / suml2, all(0));
        mask beyond_range = beyond(sumlx, LARGEST * LARGEST * LARGEST) | beyond(scale, LARGEST);
        store(blocks->scale + first, scale);
        odd |= odd_supers(bits_of(beyond_range), first, BLOCKS);
    }
    return odd;
}

static unsigned search_weighted(const float *x, const float *w, struct symmetric_blocks *blocks) {
    float sigma2[BATCH];
    sums_of_squares(x, sigma2);
    for (int b = 0; b < BATCH; b++) sigma2[b] = 2 * sigma2[b] / SUPER;
    unsigned odd = 0;
    for (int first = 0; first < BATCH * BLOCKS; first += LANES) {
        floats xs[BLOCK], ws[BLOCK];
        load_lanes(xs, x + first * BLOCK, BLOCK, BLOCK);
        load_lanes(ws, w + first * BLOCK, BLOCK, BLOCK);
        store(blocks->sum_w + first, weigh(xs, ws, BLOCK, of_supers(sigma2, first, BLOCKS)));
        struct symmetric found = search_symmetric(xs, ws, BLOCK, 4);
        keep_symmetric(blocks, first, found);
        odd |= odd_supers(found.odd, first, BLOCKS);
    }
    return odd;
}

/* Six bits for each block's scale, of the largest of the super-block. */
static float share_largest(const float *scale, uint8_t *shares) {
    float max_scale = largest_magnitude(scale, BLOCKS);
    if (max_scale == 0) {
        memset(shares, 0, BLOCKS);
        return 0;
    }
    float iscale = -32.f / max_scale;
    for (int j = 0; j < BLOCKS; j++)
        shares[j] = (uint8_t)(within(scalar_nearest_int(iscale * scale[j]), -32, 31) + 32);
    return 1 / iscale;
}

/* The same for a whole batch, weighted. */
static unsigned share_symmetric(const struct symmetric_blocks *blocks, uint8_t *shares, float *d) {
    unsigned odd = 0;
    for (int b = 0; b < BATCH; b += LANES) {
        floats xs[BLOCKS], ws[BLOCKS], ls[BLOCKS];
        load_lanes(xs, blocks->scale + b * BLOCKS, BLOCKS, BLOCKS);
        load_lanes(ws, blocks->sum_w + b * BLOCKS, BLOCKS, BLOCKS);
        struct symmetric found = search_symmetric(xs, ws, BLOCKS, 32);
        mask zero = equal(found.step, all(0));
        for (int i = 0; i < BLOCKS; i++)
            ls[i] = choose(zero, all(0), symmetric_level(xs[i], found.step, 32) + 32.f);
        store(d + b, found.scale);
        store_levels(shares + b * BLOCKS, ls, BLOCKS);
        odd |= found.odd << b;
    }
    return odd;
}

static void pack(const uint8_t *shares, const uint8_t *levels, struct q3_K *to) {
    memset(to->scales, 0, sizeof to->scales);
    for (int j = 0; j < BLOCKS; j++) {
        to->scales[j % 8] |= (shares[j] & 0xF) << j / 8 * 4;
        to->scales[8 + j % 4] |= shares[j] >> 4 << j / 4 * 2;
    }
    const eight *l = (const eight *)levels;
    eight *hmask = (eight *)to->hmask;
    for (int i = 0; i < 4; i++) {
        hmask[i] = 0;
        for (int j = 0; j < 8; j++) hmask[i] |= (l[4 * j + i] >> 2 & IN_EACH_BYTE(1)) << j;
    }
    pack_two_bits(levels, to->qs);
}

static void take_levels(const float *searched, uint8_t *levels) {
    for (int i = 0; i < BLOCK; i++) levels[i] = (uint8_t)(searched[i] + NMAX);
}

static unsigned convert(const float *x, const float *w, void *y) {
    struct symmetric_blocks blocks;
    struct q3_K *to = y;
    struct by_level searched;
    uint8_t shares[BATCH * BLOCKS], levels[SUPER];
    float scale[BATCH];
    unsigned odd;
    if (w) {
        odd = search_weighted(x, w, &blocks);
        odd |= share_symmetric(&blocks, shares, scale);
    } else {
        odd = search(x, &blocks, &searched);
        for (int b = 0; b < BATCH; b++)
            scale[b] = share_largest(blocks.scale + b * BLOCKS, shares + b * BLOCKS);
    }
    for (int b = 0; b < BATCH; b++) {
        to[b].d = to_half(scale[b]);
        for (int j = 0; j < BLOCKS; j++) {
            int k = b * BLOCKS + j;
            float d = from_half(to[b].d) * (shares[k] - 32);
            if (d == 0 && !w)
                take_levels(searched.levels[k], levels + j * BLOCK);
            else
                symmetric_levels(x + k * BLOCK, d, blocks.step[k], 4, levels + j * BLOCK);
        }
        pack(shares + b * BLOCKS, levels, to + b);
    }
    return odd;
}

void airpack_q3_k(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    quantize_in_batches(x, y, rows, columns, matrix, ggml, 11, sizeof(struct q3_K), convert);
}
