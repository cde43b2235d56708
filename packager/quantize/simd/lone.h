/* Types whose blocks of 32 weights stand alone: LANES blocks at a time, one in each lane. */
#pragma once

#include "scalars.h"
#include "search.h"

#define BLOCK 32 /* weights */

/* A block in each lane: its values, their columns' weights (or NULL), where it goes. */
struct lone {
    const float *x[LANES], *w[LANES];
    uint8_t *to[LANES];
    int64_t number[LANES];
};

/* The blocks from number `first` of `count` on, the last one again where there are too few. */
INLINE struct lone take_blocks(const float *x, void *y, const float *matrix, int64_t per_row,
                               int64_t first, int64_t count, size_t block_size) {
    struct lone blocks;
    for (int k = 0; k < LANES; k++) {
        int64_t number = first + k < count ? first + k : count - 1;
        blocks.number[k] = number;
        blocks.x[k] = x + number * BLOCK;
        blocks.w[k] = matrix ? matrix + number % per_row * BLOCK : NULL;
        blocks.to[k] = (uint8_t *)y + number * block_size;
    }
    return blocks;
}

/* Quantizes a block in each lane; the result has the bits of lanes that are odd. */
typedef unsigned (*lone_function)(const struct lone *blocks, const floats *x, const floats *w);

/* The mean square of each of `rows` rows, at most LANES, added up in order. */
static void mean_squares(const float *x, int rows, int64_t columns, float *means) {
    const float *starts[LANES];
    for (int k = 0; k < LANES; k++) starts[k] = x + (k < rows ? k : 0) * columns;
    floats sum = all(0), part[BLOCK];
    for (int64_t j = 0; j < columns; j += BLOCK) {
        load_rows(part, starts, BLOCK);
        for (int i = 0; i < BLOCK; i++) sum += part[i] * part[i];
        for (int k = 0; k < LANES; k++) starts[k] += BLOCK;
    }
    store(means, sum / (float)columns);
}

/* `rows` rows, at most LANES; the result has bit r set if row r is ggml's to do. */
INLINE unsigned quantize_rows(const float *x, void *y, int rows, int64_t columns,
                              const float *matrix, size_t block_size, lone_function convert) {
    float means[LANES];
    mean_squares(x, rows, columns, means);
    int64_t per_row = columns / BLOCK, count = rows * per_row;
    unsigned odd_rows = 0;
    for (int64_t first = 0; first < count; first += LANES) {
        struct lone blocks = take_blocks(x, y, matrix, per_row, first, count, block_size);
        float sigma2[LANES];
        floats xs[BLOCK], ws[BLOCK];
        for (int k = 0; k < LANES; k++) sigma2[k] = means[blocks.number[k] / per_row];
        load_rows(xs, blocks.x, BLOCK);
        load_rows(ws, blocks.w, BLOCK);
        weigh(xs, ws, BLOCK, load(sigma2));
        unsigned odd = convert(&blocks, xs, ws);
        for (int k = 0; odd && k < LANES; k++)
            if (odd >> k & 1) odd_rows |= 1u << blocks.number[k] / per_row;
    }
    return odd_rows;
}

/* Rows with an importance matrix, where weights depend on the whole row; odd rows are ggml's. */
INLINE void quantize_weighted(chunk_function ggml, const float *x, void *y, int64_t rows,
                              int64_t columns, const float *matrix, int type, size_t block_size,
                              lone_function convert) {
    size_t row_size = columns / BLOCK * block_size;
    for (int64_t row = 0; row < rows; row += LANES) {
        int count = rows - row < LANES ? (int)(rows - row) : LANES;
        const float *from = x + row * columns;
        char *to = (char *)y + row * row_size;
        unsigned odd = quantize_rows(from, to, count, columns, matrix, block_size, convert);
        for (int r = 0; odd && r < count; r++)
            if (odd >> r & 1)
                ggml(type, from + r * columns, to + r * row_size, 0, 1, columns, matrix);
    }
}

/* Planes of levels to the blocks they are of: four bits of weights i and i + 16 in byte i of
 * `qs` (an offset), and if `qh` is one, a fifth bit of all weights there. */
INLINE void pack_levels(const struct lone *blocks, const floats *levels, int qs, int qh) {
    float *rows[LANES], found[LANES][BLOCK];
    for (int k = 0; k < LANES; k++) rows[k] = found[k];
    store_rows(rows, levels, BLOCK);
    for (int k = 0; k < LANES; k++) {
        uint32_t high = 0;
        for (int i = 0; i < BLOCK / 2; i++) {
            unsigned a = (unsigned)found[k][i], b = (unsigned)found[k][i + BLOCK / 2];
            blocks->to[k][qs + i] = (uint8_t)((a & 0xF) | (b & 0xF) << 4);
            high |= (a >> 4 & 1) << i | (b >> 4 & 1) << (i + BLOCK / 2);
        }
        if (qh) memcpy(blocks->to[k] + qh, &high, sizeof high);
    }
}

/* A half for each block, at an offset. */
INLINE void put_halves(const struct lone *blocks, floats values, int offset) {
    float lanes[LANES];
    store(lanes, values);
    for (int k = 0; k < LANES; k++) {
        uint16_t half = to_half(lanes[k]);
        memcpy(blocks->to[k] + offset, &half, sizeof half);
    }
}
