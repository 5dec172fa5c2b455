"""Routes of the health checks. Some load balancers send HEAD."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.dependencies import deps_of
from api.version import VERSION


class Health(BaseModel):
    status: str = "healthy"
    service: str = "agent-runtime"
    version: str = VERSION


router = APIRouter()


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def check_health() -> Health:
    """Return whether the process is alive."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready")
async def check_readiness(request: Request) -> Health:
    """Return whether the database answers as well; 503 if it does not."""
    await deps_of(request).database.ping()
    return Health()
