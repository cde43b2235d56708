"""Quantization as ggml does it, bit for bit, with a block in each lane of the CPU's vectors.

The C sources are compiled where and when they are first used (:mod:`.compiling`), compared with
ggml (:mod:`.checking`) and called (:mod:`.compiled`). Where that does not work out, ggml's own
kernels do the same work, only slower.
"""
