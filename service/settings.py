"""What a service is told at its start, by options or by environment variables named REID_...."""

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from reid import cli
from reid.data.images import MAX_MEGAPIXELS
from service.records import Consistency, EngineName

MAX_FILES = 256  # that may ever come in one request; as many may wait for the model


class Backend(BaseSettings):
    """Where a gallery is kept beside its folder, and what finds its items; the same for every process that opens it."""

    model_config = SettingsConfigDict(env_prefix="REID_")

    engine: EngineName = "memory"
    database: SecretStr | None = Field(None, description="of a PostgreSQL database; by default a file")
    milvus_uri: str | None = None
    milvus_token: SecretStr | None = None
    milvus_consistency: Consistency = "Strong"
    # Read from the environment wherever a picture is read; here, so that one that is none is refused at the start.
    max_megapixels: float = Field(MAX_MEGAPIXELS, gt=0, allow_inf_nan=False, description="of one picture")

    @property
    def database_url(self) -> str | None:
        """The URL of the database, with its password; None for a file in the gallery's folder."""
        return None if self.database is None else self.database.get_secret_value()

    @field_validator("database")
    @classmethod
    def _require_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgresql+psycopg://")):
            raise ValueError("expected postgresql://USER:PASSWORD@HOST/DATABASE")
        return url

    @model_validator(mode="after")
    def _require_address(self) -> Self:
        if self.engine == "milvus" and self.milvus_uri is None:
            raise ValueError("engine milvus without REID_MILVUS_URI, such as http://127.0.0.1:19530")
        return self


class Settings(Backend):
    """A gallery with its model, a classifier, or both; one address, who may ask, and how much one request may bring."""

    checkpoint: Path | None = None
    gallery: Path | None = None
    classifier: Path | None = None
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535, description="0 is any free port")
    device: Literal["auto", "cpu", "cuda"] = "auto"
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


Kind = TypeVar("Kind", bound=Backend)


def load(kind: type[Kind], options: Mapping[str, Any] | None = None) -> Kind:
    """The settings of a command from its options, which go first, and the environment.

    Raises `cli.UsageError`, naming them, for those that cannot be used.
    """
    given = options or {}
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise cli.UsageError("; ".join(_complaint(one["loc"], one["msg"], given) for one in error.errors())) from None


def _complaint(where: tuple[int | str, ...], message: str, options: Collection[str]) -> str:
    message = message.removeprefix("Value error, ")
    if not where:  # of several settings, which it names
        return message
    name = str(where[0])
    given = f"--{name} or " if name in options else ""
    return f"{name} ({given}REID_{name.upper()}): {message[0].lower()}{message[1:]}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
