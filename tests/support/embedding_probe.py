"""Run in a process of its own: ask llama.cpp for the vectors of texts.

Standard input is JSON {"model", "texts"}, and "adapter" if there is one; standard output gets
JSON {"tokens", "vectors"}, each with one list for each text.
"""

from __future__ import annotations

import json
import os
import sys

import xllamacpp
from engine_probe import ask, exact_params


def main() -> None:
    request = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)  # the engine writes its log to standard output
    params = exact_params(request["model"], request.get("adapter"))
    params.embedding = True
    server = xllamacpp.Server(params)
    tokens, vectors = [], []
    for text in request["texts"]:
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens.append(ask(server, "/tokenize", body)["tokens"])
        answer = ask(server, "/v1/embeddings", {"input": text})
        vectors.append(answer["data"][0]["embedding"])
    with os.fdopen(answers, "w") as out:
        json.dump({"tokens": tokens, "vectors": vectors}, out)
        out.flush()
    # The engine's threads end with the process; its own shutdown takes a second.
    os._exit(0)


if __name__ == "__main__":
    main()
