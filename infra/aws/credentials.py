"""AWS sessions: renewed from the workflow runner's token endpoint, or by boto3's own chain."""

import functools
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import boto3
import botocore
import botocore.loaders
import botocore.session
from botocore.credentials import CredentialProvider, DeferredRefreshableCredentials

from gpu_offload.infra import http
from gpu_offload.infra.aws.client_config import client_config
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CredentialsError, EndpointError
from gpu_offload.infra.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

AUDIENCE = "sts.amazonaws.com"
SESSION_S = 3600
"""Seconds that a role's session lasts; botocore renews it a quarter of an hour before."""

TIMEOUT_S = 10

METHODS = {
    "env": "environment variables",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS config file",
    "custom-process": "a credential process",
    "sso": "single sign-on",
    "login": "a console login",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a role assumed with a token file",
    "iam-role": "the instance's role",
    "container-role": "the container's role",
}
"""botocore's name of a credential provider -> the name in messages."""


def open_session(region: str | None = None, *, environ: Mapping[str, str] | None = None) -> boto3.Session:
    """Return a session. Credentials are fetched at the first call that needs them.

    On a workflow's runner with `id-token: write` and a role to assume (`AWS_ROLE_ARN`), credentials come from the runner's token
    endpoint and are renewed from it as long as the session is used, because trainings outlive a role's session.
    They take precedence over credentials in the environment, which would expire. Elsewhere boto3's chain applies.

    Args:
        region: The region of the session's clients; None for that of the environment.
        environ: Instead of the process's environment.
    """
    environ = os.environ if environ is None else environ
    role_arn = environ.get("AWS_ROLE_ARN")
    core = botocore.session.Session()
    url, token = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if url and token and role_arn:
        name = f"gpu-offload-{environ.get('GITHUB_RUN_ID', 'local')}-{environ.get('GITHUB_RUN_ATTEMPT', '1')}"
        provider = _RunnerProvider(url, token, role_arn, name, region)
        core.get_component("credential_provider").insert_before("env", provider)
    loader = _loader()
    core.register_component("data_loader", loader)
    with aws_errors("reading the AWS settings"):
        session = boto3.Session(botocore_session=core, region_name=region)
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # every session of boto3's adds its folder
    return session


@functools.cache
def _loader() -> botocore.loaders.Loader:
    """Return the loader of service models for all sessions: its search through the folders takes 0.2 s."""
    loader: botocore.loaders.Loader = botocore.session.Session().get_component("data_loader")
    return loader


def describe_credentials(session: boto3.Session) -> str:
    """Describe where the session's credentials come from, without showing any."""
    with aws_errors("looking for AWS credentials"):
        credentials = session.get_credentials()
    if credentials is None:
        return "no AWS credentials"
    method = str(credentials.method)
    return METHODS.get(method, method)


class _RunnerProvider(CredentialProvider):
    """A link in botocore's chain: runner's token endpoint -> signed token -> AssumeRoleWithWebIdentity."""

    METHOD = "github-oidc"

    def __init__(self, url: str, token: str, role_arn: str, name: str, region: str | None) -> None:
        super().__init__()
        self._url = url
        self._token = token
        self._role_arn = role_arn
        self._name = name
        self._region = region

    def load(self) -> Any:
        # Deferred: the runner is asked at the first call that needs credentials, which many commands never make.
        return DeferredRefreshableCredentials(self._assume, f"GitHub OIDC as {self._role_arn}")

    def _assume(self) -> dict[str, str]:
        with aws_errors(f"assuming {self._role_arn}"):
            client: STSClient = boto3.Session().client(
                "sts",
                region_name=self._region or os.environ.get("AWS_REGION") or "us-east-1",
                # The token authorizes this call; there are no keys yet to sign it with.
                config=client_config(attempts=4, read_timeout=10, signature_version=botocore.UNSIGNED),
            )
            reply = client.assume_role_with_web_identity(
                RoleArn=self._role_arn,
                RoleSessionName=self._name,
                WebIdentityToken=self._identity_token(),
                DurationSeconds=SESSION_S,
            )
            client.close()
        found = reply["Credentials"]
        return {
            "access_key": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "token": found["SessionToken"],
            "expiry_time": found["Expiration"].isoformat(),
        }

    def _identity_token(self) -> str:
        url = f"{self._url}{'&' if urlsplit(self._url).query else '?'}{urlencode({'audience': AUDIENCE})}"
        secret = {"Authorization": f"bearer {self._token}"}
        accept = {"Accept": "application/json"}
        operation = "asking the runner for an identity token"
        try:
            # GitHub's own client repeats it, too: the endpoint fails now and then.
            for attempt in attempts(lambda error: getattr(error, "is_passing", False), first=0.5):
                with (
                    attempt,
                    http.ask(url, headers=accept, secret=secret, timeout=TIMEOUT_S, redirects=False) as reply,
                ):
                    return str(json.loads(http.read(reply))["value"])
        except http.HttpError as error:
            if error.is_passing:
                raise EndpointError(f"{operation}: {error}", remedy="run the job again") from error
            remedy = "give the job `permissions: id-token: write`"
            raise CredentialsError(f"{operation}: {error}", remedy=remedy) from error
        except (ValueError, KeyError, TypeError) as error:
            raise EndpointError(
                f"{operation}: its answer cannot be read ({type(error).__name__})", remedy="run the job again"
            ) from error
        raise AssertionError  # the loop returns or raises
