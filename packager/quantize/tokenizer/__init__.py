"""Tokenizers as llama.cpp wants them: byte-level BPE, SentencePiece's two kinds, WordPiece.

Pure: parsed documents in, entries of the GGUF metadata out.
"""
