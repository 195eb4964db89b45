"""What a service is told at its start, by options or by environment variables named REID_...."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.records import EngineName

MAX_FILES = 256  # that may ever come in one request; as many may wait for the model


class Settings(BaseSettings):
    """A gallery with its model, a classifier, or both; one address, who may ask, and how much one request may bring."""

    model_config = SettingsConfigDict(env_prefix="REID_")

    checkpoint: Path | None = None
    gallery: Path | None = None
    classifier: Path | None = None
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535, description="0 is any free port")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: EngineName = "memory"
    backups: Path | None = Field(None, description="by default the folder backups of the gallery")
    require_keys: bool | None = Field(None, description="by default wherever others than this machine can ask")
    admin_key: SecretStr | None = Field(None, description="a key for everything, beside those stored")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="names, between commas, to ask by without key"
    )
    log_format: Literal["text", "json"] | None = Field(None, description="text on a terminal by default, else json")
    max_body_bytes: int = Field(64 * 2**20, ge=1)
    max_upload_bytes: int = Field(20 * 2**20, ge=1, description="of one image file")
    max_images: int = Field(32, ge=1, le=MAX_FILES, description="in one request")

    @field_validator("admin_key")
    @classmethod
    def _require_printable(cls, key: SecretStr | None) -> SecretStr | None:
        secret = None if key is None else key.get_secret_value()
        if secret is not None and not (32 <= len(secret) <= 200 and secret.isascii() and secret.isprintable()):
            raise ValueError("expected 32 to 200 printable ASCII characters, for others do not survive a header")
        return key

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, hosts: Any) -> Any:
        return [host.strip() for host in hosts.split(",") if host.strip()] if isinstance(hosts, str) else hosts

    @model_validator(mode="after")
    def _require_something_to_serve(self) -> Self:
        if self.checkpoint is None and self.gallery is None and self.classifier is None:
            raise ValueError("nothing to serve: expected --checkpoint with --gallery, or --classifier, or all three")
        if self.checkpoint is None and self.gallery is not None:
            raise ValueError("--gallery without --checkpoint (or REID_CHECKPOINT), the model that embeds its photos")
        if self.gallery is None and self.checkpoint is not None:
            raise ValueError("--checkpoint without --gallery (or REID_GALLERY), the folder of what it embeds")
        return self

    @property
    def admin_secret(self) -> str | None:
        """The secret of `admin_key`, if there is one."""
        return None if self.admin_key is None else self.admin_key.get_secret_value()

    @property
    def keys_required(self) -> bool:
        """Whether a request without key is refused."""
        return not _is_loopback(self.host) if self.require_keys is None else self.require_keys


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
