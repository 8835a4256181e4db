"""Signatures of records, by OpenSSF model-signing: an in-toto statement in a DSSE bundle.

Either with an elliptic-curve key in a PEM file, such as `openssl ecparam -name prime256v1 -genkey`
makes: everything works offline. Or without a key, by Sigstore: the signer logs in at an OpenID
Connect provider, a certificate binds the signature to that identity, and a public log keeps it.
That needs a network, and anybody can read the identity in the log.

model-signing is in the extra [record].
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, Damaged
from l2l_jax.record import manifest

INSTALL = 'Signing records needs model-signing: pip install "l2l_jax[record]".'


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who signed without a key: such as me@example.org, known to https://accounts.google.com."""

    name: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.name} ({self.issuer})"


def sign(folder: Path, private_key: Path | None, token: str | None = None) -> Path:
    """Signs all files of a record; returns the path of the signature.

    private_key: a PEM file; None: by Sigstore. Then token is the identity token to use; without one
    that of the environment (GitHub Actions, Google Cloud, ...) is taken, else a browser opens.
    ConfigError if the key or Sigstore cannot be used, or model-signing is not installed.
    """
    library, folder = _library(), folder.resolve()  # the library compares absolute paths
    path = folder / manifest.SIGNATURE
    if private_key:
        _check_key(private_key, "PRIVATE KEY")
    config = library.signing.Config().set_hashing_config(_hashing(library, path))
    try:
        if private_key:
            config.use_elliptic_key_signer(private_key=private_key)
        else:
            config.use_sigstore_signer(use_ambient_credentials=not token, identity_token=token)
        with tempfile.TemporaryDirectory() as place:  # an older signature stays if this one fails
            made = Path(place) / manifest.SIGNATURE
            config.sign(folder, made)
            with files.atomic_write(path) as file:
                file.write(made.read_bytes())
    except Exception as error:  # cryptography and sigstore raise many types
        said = f"{private_key} cannot sign" if private_key else _unreachable("sign")
        raise ConfigError(f"{said}: {str(error) or type(error).__name__}") from error
    return path


def check(folder: Path, signer: Path | Identity) -> None:
    """Checks the signature of a record.

    signer: a public key in a PEM file, or who signed without a key. Damaged if the signature is
    missing, or not of this signer and content; ConfigError if the key or Sigstore cannot be used,
    or model-signing is not installed.
    """
    library, folder = _library(), folder.resolve()
    path = folder / manifest.SIGNATURE
    if not path.is_file():
        raise Damaged(f"{folder} is not signed: there is no {manifest.SIGNATURE}.")
    config = library.verifying.Config().set_hashing_config(_hashing(library, path))
    if isinstance(signer, Identity):
        try:
            config.use_sigstore_verifier(identity=signer.name, oidc_issuer=signer.issuer)
        except Exception as error:  # it fetches what Sigstore's services are known by
            raise ConfigError(f"{_unreachable('check')}: {error}") from error
    else:
        _check_key(signer, "PUBLIC KEY")
        config.use_elliptic_key_verifier(public_key=signer)
    try:
        config.verify(folder, path)
    except Exception as error:  # a wrong signature raises ValueError, a cut file other types
        by = "" if isinstance(signer, Identity) else "the key "
        raise Damaged(
            f"{path} is not a signature of these files by {by}{signer}: "
            f"{str(error) or type(error).__name__}"
        ) from error


def _unreachable(what: str) -> str:
    return f"Sigstore cannot {what} (it needs a network and, to sign, a login; or use --key)"


def _check_key(path: Path, kind: str) -> None:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no key in a PEM file: {error}") from error
    if kind not in text:
        raise ConfigError(f"{path} holds no {kind.lower()} in PEM form.")


def _hashing(library: Any, signature: Path) -> Any:
    """All files but the signature itself."""
    return library.hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)


def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    return model_signing
