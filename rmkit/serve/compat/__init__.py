"""The dialects of trainers and inference servers, each under its own prefix and one of them at the root.

    /openrlhf        OpenRLHF --reward.remote_url             also /openrlhf/get_reward
    /slime           slime --rm-type remote_rm
    /vllm            vLLM /classify, /pooling, /score         verl's discriminative reward models ask so
    /sglang          SGLang /classify, /v1/embeddings         verl with SGLang asks the latter
    /llama-factory   LLaMA-Factory PPO                        also /llama-factory/v1/score/evaluation
    /nemo-gym        NeMo-Gym /verify, /seed_session, /aggregate_metrics

Two dialects share the name /classify, so a request's body never decides which is meant: `--compat NAME` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmkit import plugins

if TYPE_CHECKING:
    from fastapi import FastAPI


def mount(
    app: FastAPI, *, root: str | None = None, policy_template: str = "auto", unscored_reward: float | None = None
) -> None:
    """Add all dialects under their prefixes, and `root` without one.

    `policy_template` says how policy text is read (see `policy_readers.policy_text`); `unscored_reward` is sent for
    what cannot be scored, where a dialect has no word for that. Raises UsageError for an unknown dialect, ConfigError
    for an unknown template.
    """
    from fastapi import APIRouter

    from rmkit.serve.compat.dialect import CompatSettings, DialectRoute
    from rmkit.serve.compat.policy_readers import policy_text

    if root is not None:
        plugins.resolve("dialects", root)
    policy_text(policy_template)
    app.state.compat = CompatSettings(policy_template, unscored_reward)
    for name in plugins.names("dialects"):
        dialect = plugins.resolve("dialects", name)
        app.include_router(dialect.router, prefix=f"/{name}")
        if (bare := getattr(dialect, "bare", None)) is not None:
            short = APIRouter(route_class=DialectRoute, tags=[name])
            short.add_api_route(f"/{name}", bare, methods=["POST"])
            app.include_router(short)
        if name == root:
            app.include_router(dialect.router)
