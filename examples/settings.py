"""Settings of the examples, from environment variables that begin with ``JOBTAPE_EXAMPLE_``."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The settings, read when an object is created. Raises pydantic's ValidationError, which names the wrong variable.

    ``files`` is the upload folder; thumbnails go into its folder ``thumbnails``. By default mail goes to a mail catcher
    on this machine (see ``examples.mail``); ``smtp_tls`` is the encryption that a real mail server requires (usually
    ``starttls`` on port 587, ``tls`` on port 465).
    """

    model_config = SettingsConfigDict(env_prefix="JOBTAPE_EXAMPLE_")

    files: Path = Path(".jobtape/example-files")
    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(default=2525, ge=0, le=65535)
    smtp_sender: str = "jobtape@example.org"
    smtp_tls: Literal["none", "starttls", "tls"] = "none"
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_timeout: float = Field(default=15.0, gt=0, description="seconds for each answer of the mail server")
