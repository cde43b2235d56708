"""Run in a process of its own: ask llama.cpp what it makes of a GGUF file.

Standard input is JSON {"model", "text", "prompts": [[token...]...], "vocabulary"}, and "adapter"
if there is one; standard output gets JSON {"tokens": of the text, "logprobs": for each prompt, by
token}. Computed as exactly as the engine can: float32 keys and values, no flash attention.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request

import xllamacpp


def main() -> None:
    request = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)  # the engine writes its log to standard output
    server = start(request["model"], request.get("adapter"))
    tokens = ask(
        server,
        "/tokenize",
        {"content": request["text"], "add_special": True, "parse_special": True},
    )["tokens"]
    logprobs = [next_logprobs(server, p, request["vocabulary"]) for p in request["prompts"]]
    with os.fdopen(answers, "w") as out:
        json.dump({"tokens": tokens, "logprobs": logprobs}, out)
        out.flush()
    # The engine's threads end with the process; its own shutdown takes a second.
    os._exit(0)


def start(model: str, adapter: str | None = None) -> xllamacpp.Server:
    return xllamacpp.Server(exact_params(model, adapter))


def exact_params(model: str, adapter: str | None = None) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = model
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    params.n_ctx = 256
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
    params.verbosity = 0
    return params


def next_logprobs(server: xllamacpp.Server, prompt: list[int], vocabulary: int) -> list[float]:
    # An answer that ends within a character is held back with its probabilities: have it
    # answer "a". The bias does not touch the probabilities, which are those before sampling.
    easy = ask(server, "/tokenize", {"content": "a", "add_special": False})["tokens"][-1]
    answer = ask(
        server,
        "/completion",
        {
            "prompt": prompt,
            "n_predict": 1,
            "n_probs": vocabulary,
            "temperature": 0,
            "logit_bias": [[easy, 1000]],
        },
    )
    found = {
        item["id"]: item["logprob"]
        for item in answer["completion_probabilities"][0]["top_logprobs"]
    }
    return [found[token] for token in range(vocabulary)]


def ask(server: xllamacpp.Server, route: str, body: object) -> dict:
    request = urllib.request.Request(
        server.listening_address + route,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


if __name__ == "__main__":
    main()
