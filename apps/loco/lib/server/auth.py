"""MONAI Label's login, made to work: tokens are verified as OpenID Connect asks, and a higher role has the lower ones.

MONAI Label 0.8.5 decodes tokens without naming an algorithm, which PyJWT refuses, and checks neither issuer nor audience.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from jwt import InvalidTokenError, PyJWKClient, PyJWTError
from monailabel.config import settings
from monailabel.endpoints.user import auth as stock
from monailabel.endpoints.user.auth import User
from requests import RequestException

logger = logging.getLogger(__name__)

_LEEWAY_S = 30
_KEYS_KEPT_S = 300
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of public keys alone: with a shared secret, whoever can check a token could also make one."""


@dataclass(frozen=True)
class TokenRule:
    """What a token must show: who gave it and for whom."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256",)


def role_names() -> tuple[str, str, str, str]:
    """Roles, lowest first: user, annotator, reviewer, admin."""
    return (
        settings.MONAI_LABEL_AUTH_ROLE_USER,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
    )


def with_lower_roles(roles: Sequence[str], order: Sequence[str]) -> list[str]:
    """All roles up to the highest of `roles` in `order`, and what else was given.

    >>> with_lower_roles(["annotator", "guest"], ["user", "annotator", "admin"])
    ['user', 'annotator', 'guest']
    """
    held = max((order.index(role) for role in roles if role in order), default=-1)
    return [*order[: held + 1], *(role for role in roles if role not in order)]


class Tokens:
    """Verifies tokens with the keys that the realm publishes; keys that are replaced there are fetched again."""

    def __init__(self, rule: TokenRule) -> None:
        unusable = sorted(set(rule.algorithms) - set(_ALGORITHMS))
        if unusable or not rule.algorithms:
            raise ValueError(
                f"expected algorithms of {', '.join(_ALGORITHMS)}, but got {', '.join(unusable) or 'none'}"
            )
        self._rule = rule
        self._keys: PyJWKClient | None = None
        self._lock = threading.Lock()

    def user(self, token: str) -> User:
        """Who a token speaks of. Raises `InvalidTokenError` when it proves nothing."""
        if not settings.MONAI_LABEL_AUTH_ENABLE:
            return stock.DEFAULT_USER
        claims = self.claims(token)
        name = claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME) or claims.get("sub")
        if not isinstance(name, str):
            raise InvalidTokenError("expected a user name in the token, but it has none")
        roles = with_lower_roles(_roles(claims), role_names())
        email, full = (
            claims.get(k) for k in (settings.MONAI_LABEL_AUTH_TOKEN_EMAIL, settings.MONAI_LABEL_AUTH_TOKEN_NAME)
        )
        return User(username=name, email=_text(email), name=_text(full), roles=roles)

    def claims(self, token: str) -> dict[str, Any]:
        """The verified contents of a token: signature, algorithm, issuer, audience, times."""
        try:
            key = self._client().get_signing_key_from_jwt(token)
            return jwt.decode(
                token,
                key.key,
                algorithms=list(self._rule.algorithms),
                issuer=self._rule.issuer,
                audience=self._rule.audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except InvalidTokenError:
            raise
        except (PyJWTError, RequestException, ValueError) as e:
            raise InvalidTokenError(f"expected keys of {self._rule.issuer} to verify the token, but: {e}") from e

    def _client(self) -> PyJWKClient:
        with self._lock:
            if self._keys is None:
                address = stock.open_id_configuration(settings.MONAI_LABEL_AUTH_REALM_URI).get("jwks_uri")
                if not isinstance(address, str):
                    raise InvalidTokenError("expected `jwks_uri` in the realm's configuration, but there is none")
                self._keys = PyJWKClient(address, lifespan=_KEYS_KEPT_S, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
            return self._keys


def rule_of(conf: Mapping[str, str]) -> TokenRule:
    """`--conf auth_issuer | auth_audience | auth_algorithms`; else what MONAI Label's settings name."""
    algorithms = tuple(a.strip() for a in conf.get("auth_algorithms", "RS256").split(",") if a.strip())
    return TokenRule(
        issuer=conf.get("auth_issuer") or settings.MONAI_LABEL_AUTH_REALM_URI,
        audience=conf.get("auth_audience") or settings.MONAI_LABEL_AUTH_CLIENT_ID,
        algorithms=algorithms,
    )


def annotator_of(user: User, given: Any) -> Any:
    """Who did something: with the login on the user who is logged in, else whom the viewer names."""
    return user.username if settings.MONAI_LABEL_AUTH_ENABLE else given


def use(tokens: Tokens) -> None:
    """Let MONAI Label's own checks of roles ask `tokens`."""
    stock.from_token = tokens.user


def _roles(claims: Mapping[str, Any]) -> list[str]:
    """Roles at MONAI_LABEL_AUTH_TOKEN_ROLES, a path of keys joined by #."""
    found: Any = claims
    for key in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return [role for role in found if isinstance(role, str)] if isinstance(found, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
