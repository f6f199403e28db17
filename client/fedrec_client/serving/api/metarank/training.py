"""`POST /train/{model}`: the final ranking learns from the clicks so far."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fedrec.recommend.shelf import Json
from fedrec_client.serving.api.metarank.ranking import arm_named
from fedrec_client.serving.learning_to_rank import Training
from fedrec_client.serving.service import Service


def training_routes(router: APIRouter, service: Service) -> None:
    """Puts it in."""

    @router.post("/train/{model}")
    async def train(model: str, request: Request) -> JSONResponse:
        """Learn, and use it if it is no worse on later lists; the weights that are in force then are told.

        Iteration 0 is the weights before, 1 those that were learnt; the metrics are NDCG of clicks.
        """
        arm = arm_named(service.settings, model)
        training = await service.of(request.state.tenant).learning_to_rank.train(arm)
        headers = {
            "x-fedrec-weights": "learnt" if training.is_used else "kept",
            "x-fedrec-lists": str(training.lists),
        }
        return JSONResponse(_told(training), headers=headers)


def _told(training: Training) -> dict[str, Json]:
    weights = training.weights
    rows = zip(weights.names, weights.row.tolist(), strict=True)
    fits = enumerate((training.before, training.after))
    return {
        "features": [{"name": name, "weight": weight} for name, weight in rows],
        "iterations": [
            {"id": place, "millis": round(fit.millis), "testMetric": fit.test, "trainMetric": fit.train}
            for place, fit in fits
        ],
        "sizeBytes": training.size_bytes,
    }
