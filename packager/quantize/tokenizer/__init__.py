"""Tokenizers as llama.cpp wants them: byte-level BPE and SentencePiece's BPE.

Pure: parsed documents in, entries of the GGUF metadata out.
"""
