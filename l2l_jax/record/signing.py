"""Signatures of records, by OpenSSF model-signing: an in-toto statement in a DSSE bundle.

Keys are elliptic-curve keys in PEM files, such as `openssl ecparam -name prime256v1 -genkey` makes.
Everything works offline. model-signing is in the extra [record].
"""

from pathlib import Path
from typing import Any

from l2l_jax.lib.errors import ConfigError, Damaged
from l2l_jax.record import manifest

INSTALL = 'Signing records needs model-signing: pip install "l2l_jax[record]".'


def sign(folder: Path, private_key: Path) -> Path:
    """Signs all files of a record; returns the path of the signature.

    ConfigError if the key cannot be used or model-signing is not installed.
    """
    library, folder = _library(), folder.resolve()  # the library compares absolute paths
    path = folder / manifest.SIGNATURE
    path.unlink(missing_ok=True)
    _check_key(private_key, "PRIVATE KEY")
    config = library.signing.Config().set_hashing_config(_hashing(library, path))
    try:
        config.use_elliptic_key_signer(private_key=private_key).sign(folder, path)
    except Exception as error:  # cryptography raises many types
        raise ConfigError(f"{private_key} cannot sign: {error}") from error
    return path


def check(folder: Path, public_key: Path) -> None:
    """Checks the signature of a record. Damaged if it is missing, or not of this key and content.

    ConfigError if the key cannot be used or model-signing is not installed.
    """
    library, folder = _library(), folder.resolve()
    path = folder / manifest.SIGNATURE
    if not path.is_file():
        raise Damaged(f"{folder} is not signed: there is no {manifest.SIGNATURE}.")
    _check_key(public_key, "PUBLIC KEY")
    config = library.verifying.Config().set_hashing_config(_hashing(library, path))
    try:
        config.use_elliptic_key_verifier(public_key=public_key).verify(folder, path)
    except Exception as error:  # a wrong signature raises ValueError, a cut file other types
        raise Damaged(
            f"{path} is not a signature of these files by the key {public_key}: "
            f"{str(error) or type(error).__name__}"
        ) from error


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
