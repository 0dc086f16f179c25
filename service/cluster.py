"""The same service as a deployment of Ray Serve: `serve run service.cluster:deployed` (extra `cluster`).

One replica, on purpose: one process owns the model and the jobs of a data folder, and a second one behind the same
address would not know the jobs of the first. Ray gives it a place with a GPU, starts it again when it dies (its jobs go
on from their last finished row) and puts its proxies before it. More capacity: several applications, each with its
route and its data folder on a disk that all nodes see.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from service.jobs import Desk
from service.resources import MissingResource
from service.settings import Settings, load

if TYPE_CHECKING:
    from starlette.types import ASGIApp

CONFIG = "DOPAINT_CONFIG"
MOST_ONGOING = 1000  # event streams and waiting status calls among them
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S, STOP_S = 10.0, 30.0, 20.0


def deployment(settings: Settings, desk_of: Callable[[Settings], Desk] | None = None, *, num_gpus: float = 0.0) -> Any:
    """The bound deployment; model and engine are loaded on its replica. `desk_of` lets tests put a fake room there.

    Raises `MissingResource` without Ray.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingResource(
            f"Ray Serve is not installed ({error}): pip install 'dopaint[cluster]', or use dopaint serve"
        ) from error

    def build() -> ASGIApp:
        from service.app import make_app
        from service.serve import check_open
        from service.serve import desk_of as with_model

        check_open(settings)
        return make_app((desk_of or with_model)(settings), settings)

    made = serve.deployment(
        serve.ingress(build)(),
        name="dopaint",
        num_replicas=1,
        max_ongoing_requests=MOST_ONGOING,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=STOP_S,
        ray_actor_options={"num_gpus": num_gpus, "num_cpus": 1},
    )
    return made.bind()


def deployed(args: dict[str, str]) -> Any:
    """For `serve run service.cluster:deployed config=... num_gpus=1`; settings as `dopaint serve --config` has them."""
    config = args.get("config") or os.environ.get(CONFIG)
    return deployment(load(config), num_gpus=float(args.get("num_gpus", 0)))
