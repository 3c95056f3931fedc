"""The image is one of Amazon's or of the account's, and fits."""

import pytest

from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.errors import CloudError, DeniedError, InvalidRequestError
from gpu_offload.infra.aws.image import PARAMETER, find_image

AMAZON_LINUX = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


@pytest.fixture(scope="module")
def session():
    return open_session("us-east-1")


@pytest.fixture
def client(cloud, session):
    client = session.client("ec2", region_name="us-east-1")
    yield client
    client.close()


@pytest.fixture
def own(client):
    """An image of this account: a copy of one of Amazon's."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ec2 import ec2_backends

    copy = client.copy_image(SourceImageId=linux(client), SourceRegion="us-east-1", Name="own")["ImageId"]
    image = ec2_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].amis[copy]
    image.root_device_type, image.root_device_name = "ebs", "/dev/sda1"  # which moto does not copy
    return copy


def linux(client):
    images = client.describe_images(
        Owners=["amazon"],
        Filters=[
            {"Name": "architecture", "Values": ["x86_64"]},
            {"Name": "root-device-type", "Values": ["ebs"]},
        ],
    )["Images"]
    return next(image["ImageId"] for image in images if image.get("Platform") != "windows")


def find(session, wanted=None, **more):
    return find_image("us-east-1", wanted, session=session, **more)


def test_amazons_newest_deep_learning_image_is_asked_for_by_its_public_parameter(cloud, session, client):
    amazon = linux(client)
    asked = []

    def deep_learning(call, answer):
        if call.action != "GetParameter":
            return None
        asked.append(call.body.decode())
        return 200, f'{{"Parameter": {{"Name": "x", "Value": "{amazon}"}}}}'

    cloud.faults.append(deep_learning)
    image = find(session)
    assert image.id == amazon
    assert PARAMETER in asked[0]
    assert image.owner == "amazon"
    assert image.root_device.startswith("/dev/")


def test_a_parameter_that_is_given_names_the_image(session, client):
    image = find(session, AMAZON_LINUX)
    assert image.id.startswith("ami-")
    assert image.owner == "amazon"


def test_an_image_of_this_account_is_taken_by_its_id(session, own):
    assert find(session, own).id == own


def test_an_image_of_an_unknown_account_is_refused(session, own):
    with pytest.raises(DeniedError, match="belongs to"):
        find(session, own, owners=("amazon",))


def test_a_public_parameter_that_names_an_image_of_an_unknown_account_is_refused(cloud, session, own):
    cloud.fail_once(
        lambda call: call.action == "GetParameter", 200, f'{{"Parameter": {{"Name": "x", "Value": "{own}"}}}}'
    )
    with pytest.raises(DeniedError):
        find(session)


def test_an_image_for_another_processor_is_refused(session, client, monkeypatch):
    monkeypatch.setattr("gpu_offload.infra.aws.image.ARCHITECTURE", "arm64")
    with pytest.raises(InvalidRequestError, match="is for x86_64, not arm64"):
        find(session, AMAZON_LINUX)


@pytest.mark.parametrize("wanted", ["ami-00000000000000000", "/no/such/parameter"])
def test_a_missing_image_is_an_error(cloud, session, wanted):
    with pytest.raises(InvalidRequestError):
        find(session, wanted)


def test_a_parameter_without_an_image_is_an_error(cloud, session):
    cloud.fail_once(
        lambda call: call.action == "GetParameter", 200, '{"Parameter": {"Name": "x", "Value": "hello"}}'
    )
    with pytest.raises(CloudError, match="no image's id"):
        find(session, "/mine")
