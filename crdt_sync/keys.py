"""The configured keys: what judges tokens, made from the settings."""

from auth import InvalidKeys, Verifier, make_verifier

from .settings import InvalidSettings, Settings


def configured_verifier(settings: Settings) -> Verifier | None:
    """Make what judges tokens, not open yet; None if no key is configured.

    Raises:
        InvalidSettings: With one line for every problem.
    """
    secret = settings.jwt_secret
    try:
        return make_verifier(
            secret=None if secret is None else secret.get_secret_value(),
            public_key=settings.jwt_public_key,
            jwks=settings.jwt_jwks,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            leeway_s=settings.jwt_leeway_s,
            lifetime_max_s=settings.jwt_lifetime_max_s,
        )
    except InvalidKeys as error:
        raise InvalidSettings(str(error)) from error
