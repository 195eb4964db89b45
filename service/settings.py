"""What a service is told at its start, by options or by environment variables named REID_...."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One model, one gallery, one address, and how much one request may bring."""

    model_config = SettingsConfigDict(env_prefix="REID_")

    checkpoint: Path
    gallery: Path
    host: str = "127.0.0.1"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    port: int = Field(8000, ge=0, le=65535, description="0 is any free port")
    max_body_bytes: int = Field(64 * 2**20, ge=1)
    max_upload_bytes: int = Field(20 * 2**20, ge=1, description="of one image file")
    max_images: int = Field(32, ge=1, le=256, description="in one request; 256 may wait for the model")

    @field_validator("host")
    @classmethod
    def _require_loopback(cls, host: str) -> str:
        try:
            loopback = host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(
                f"{host!r} is not this machine alone; the service has no authentication yet, so it listens on "
                "127.0.0.1, ::1 or localhost only"
            )
        return host
