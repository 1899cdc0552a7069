"""The reward server that RLHF repositories usually ship, as the peer of `rmkit bench service`.

FastAPI, one route, transformers: the texts of a request are tokenized, padded to the longest and scored in one forward
pass, request after request. The reward is read at the last token, as such servers do. Run: python -m ... FOLDER.
"""

from __future__ import annotations

import json
import socket
import sys

from fastapi import FastAPI, Request


def make_app(folder: str) -> FastAPI:
    """The application over an artifact's weights and tokenizer, as plain transformers loads them."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    app = FastAPI()

    @app.post("/get_reward")
    async def get_reward(request: Request) -> dict[str, list[float]]:
        requests = await request.json()
        inputs = tokenizer(requests["query"], padding=True, truncation=True, max_length=4096, return_tensors="pt")
        with torch.inference_mode():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return {"rewards": logits[:, 0].tolist()}

    return app


def main(folder: str) -> None:
    import uvicorn

    app = make_app(folder)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{bound.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[bound])


if __name__ == "__main__":
    main(sys.argv[1])
