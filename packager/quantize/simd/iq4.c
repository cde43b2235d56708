/* IQ4_NL and IQ4_XS: quantize_row_iq4_nl_impl in ggml-quants.c, where levels stand for sixteen
 * unevenly spaced values. Blocks of 32 weights stand alone or make a super-block of eight. See
 * search.h for what is ggml's. */
#include "batch.h"
#include "lone.h"

#define BLOCKS 8 /* of a super-block */
#define TRIES 7

static const float VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

/* best_index_int8: a number is nearest to value i from BEGINS[i] on, to the first below. */
static const float BEGINS[16] = {-INFINITY, -115.5f, -93.5f, -74, -57,   -42,   -28.5f, -16,
                                 -4.5f,     7,       19,     31.5f, 45.5f, 61,  79,     101};

struct codebook {
    table values, begins;
};

INLINE struct codebook load_codebook(void) {
    return (struct codebook){load_table(VALUES), load_table(BEGINS)};
}

/* The number of the value nearest to v, found in four steps. */
INLINE ints nearest_value(struct codebook book, floats v) {
    ints index = {0};
    for (int step = 8; step; step /= 2) {
        floats begin = look_up(book.begins, index + step);
        index = add_where(not(less(v, begin)), index, step);
    }
    return index;
}

struct fit {
    floats scale;
    unsigned odd;
};

/* x is about scale * a value. */
INLINE struct fit search_values(struct codebook book, const floats *x, const floats *w) {
    struct peak peak = find_peak(x, BLOCK);
    mask zero = less(peak.magnitude, all(GROUP_MAX_EPS));
    mask odd = beyond(peak.magnitude, LARGEST);
    floats scale = all(0), best = all(0);
    for (int try = -TRIES - 1; try <= TRIES; try++) {
        bool is_first = try < -TRIES;
        floats inverse = is_first ? all(1) / (-peak.value / all(VALUES[0]))
                                  : all(try + VALUES[0]) / peak.value;
        floats sumqx = all(0), sumq2 = all(0);
        for (int i = 0; i < BLOCK; i++) {
            floats q = look_up(book.values, nearest_value(book, inverse * x[i]));
            floats wq = w[i] * q;
            sumqx += wq * x[i];
            sumq2 += wq * q;
        }
        mask better = less(all(0), sumq2);
        if (is_first)
            odd |= beyond(sumqx, LARGEST * LARGEST * LARGEST) |
                   beyond(sumq2, LARGEST * LARGEST * LARGEST);
        else
            better &= less(best * sumq2, sumqx * sumqx);
        floats this_scale = sumqx / sumq2;
        scale = choose(better, this_scale, scale);
        best = choose(better, this_scale * sumqx, best);
    }
    odd |= beyond(scale, LARGEST);
    return (struct fit){choose(zero, all(0), scale), bits_of(odd & not(zero))};
}

/* Without a matrix, what is large matters. */
INLINE void weigh_values(const floats *x, floats *w, bool has_matrix, floats sigma2) {
    if (has_matrix)
        weigh(x, w, BLOCK, sigma2);
    else
        for (int i = 0; i < BLOCK; i++) w[i] = x[i] * x[i];
}

struct iq4_nl {
    uint16_t d;
    uint8_t qs[BLOCK / 2];
};

static unsigned convert_lone(struct codebook book, const struct lone *blocks, bool has_matrix) {
    floats xs[BLOCK], ws[BLOCK], levels[BLOCK], sum_x2 = all(0);
    load_rows(xs, blocks->x, BLOCK);
    if (has_matrix) load_rows(ws, blocks->w, BLOCK);
    for (int i = 0; i < BLOCK; i++) sum_x2 += xs[i] * xs[i];
    weigh_values(xs, ws, has_matrix, sum_x2 * (2.f / BLOCK));
    struct fit found = search_values(book, xs, ws);
    floats inverse = choose(equal(found.scale, all(0)), all(0), all(1) / found.scale);
    for (int i = 0; i < BLOCK; i++) levels[i] = to_floats(nearest_value(book, inverse * xs[i]));
    put_halves(blocks, found.scale, 0);
    pack_levels(blocks, levels, offsetof(struct iq4_nl, qs), 0);
    return found.odd;
}

void airpack_iq4_nl(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                    const float *matrix) {
    struct codebook book = load_codebook();
    int64_t per_row = columns / BLOCK, count = rows * per_row;
    for (int64_t first = 0; first < count; first += LANES) {
        struct lone blocks =
            take_blocks(x, y, matrix, per_row, first, count, sizeof(struct iq4_nl));
        unsigned odd = convert_lone(book, &blocks, matrix != NULL);
        for (int k = 0; odd && k < LANES; k++)
            if (odd >> k & 1) ggml(20, blocks.x[k], blocks.to[k], 0, 1, BLOCK, blocks.w[k]);
    }
}

struct iq4_xs {
    uint16_t d, scales_h;
    uint8_t scales_l[BLOCKS / 2];
    uint8_t qs[SUPER / 2];
};

static unsigned search(struct codebook book, const float *x, const float *w, float *scales) {
    float sigma2[BATCH];
    sums_of_squares(x, sigma2);
    for (int b = 0; b < BATCH; b++) sigma2[b] *= 2.f / SUPER;
    unsigned odd = 0;
    for (int first = 0; first < BATCH * BLOCKS; first += LANES) {
        floats xs[BLOCK], ws[BLOCK];
        load_lanes(xs, x + first * BLOCK, BLOCK, BLOCK);
        if (w) load_lanes(ws, w + first * BLOCK, BLOCK, BLOCK);
        weigh_values(xs, ws, w != NULL, of_supers(sigma2, first, BLOCKS));
        struct fit found = search_values(book, xs, ws);
        store(scales + first, found.scale);
        odd |= odd_supers(found.odd, first, BLOCKS);
    }
    return odd;
}

/* A super-block, its blocks' scales found. */
static void finish(struct codebook book, const float *x, const float *scales, struct iq4_xs *to) {
    float d = -largest_magnitude(scales, BLOCKS) / 32;
    float id = d != 0 ? 1 / d : 0;
    uint8_t levels[SUPER];
    memset(to, 0, sizeof *to);
    to->d = to_half(d);
    for (int j = 0; j < BLOCKS; j++) {
        int l = within(scalar_nearest_int(id * scales[j]), -32, 31);
        float dl = d * l;
        floats inverse = all(dl != 0 ? 1 / dl : 0);
        for (int i = j * BLOCK; i < (j + 1) * BLOCK; i += LANES)
            store_bytes(levels + i, nearest_value(book, inverse * load(x + i)));
        to->scales_l[j / 2] |= ((l + 32) & 0xF) << j % 2 * 4;
        to->scales_h |= (l + 32) >> 4 << 2 * j;
    }
    const eight *from = (const eight *)levels;
    eight *q = (eight *)to->qs;
    for (int j = 0; j < BLOCKS; j++, from += 4, q += 2)
        for (int i = 0; i < 2; i++) q[i] = from[i] | from[i + 2] << 4;
}

static unsigned convert_supers(const float *x, const float *w, void *y) {
    struct codebook book = load_codebook();
    struct iq4_xs *to = y;
    float scales[BATCH * BLOCKS];
    unsigned odd = search(book, x, w, scales);
    for (int b = 0; b < BATCH; b++) finish(book, x + b * SUPER, scales + b * BLOCKS, to + b);
    return odd;
}

void airpack_iq4_xs(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                    const float *matrix) {
    quantize_in_batches(x, y, rows, columns, matrix, ggml, 23, sizeof(struct iq4_xs),
                        convert_supers);
}
