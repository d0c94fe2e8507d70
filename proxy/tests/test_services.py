from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from accounts import catalogue, versions
from proxy import services
from proxy.endpoints import ENDPOINTS
from proxy.models import Model, Provider, Route

pytestmark = pytest.mark.django_db


def version() -> int:
    return versions.current().get(versions.CATALOGUE, 0)


def test_secrets_are_kept_replaced_or_removed() -> None:
    provider = Provider(name="p", kind="openai")
    services.save_provider(provider, credential="sk-1", extra_headers={"X-A": "b"})
    services.save_provider(provider)
    assert (provider.read_credential(), provider.read_extra_headers()) == ("sk-1", {"X-A": "b"})
    services.save_provider(provider, credential="sk-2", extra_headers={})
    assert (provider.read_credential(), provider.read_extra_headers()) == ("sk-2", {})
    services.save_provider(provider, credential="")
    assert provider.credential == ""


def test_every_change_of_the_catalogue_is_told_to_the_data_plane() -> None:
    seen = [version()]
    provider = Provider.objects.create(name="p", kind="echo")
    seen.append(version())
    model = Model.objects.create(name="m")
    seen.append(version())
    route = Route.objects.create(model=model, provider=provider)
    seen.append(version())
    route.delete()
    seen.append(version())
    assert seen == sorted(set(seen))


def test_forms_may_offer_the_models_and_endpoints_there_are() -> None:
    Model.objects.create(name="m")
    assert catalogue.model_names() == ["m"]
    assert catalogue.endpoint_names() == list(ENDPOINTS)


def test_one_name_means_one_model() -> None:
    Model.objects.create(name="taken", aliases=["alias"])
    with pytest.raises(ValidationError) as error:
        services.check_model_names("alias", ["taken", "free"], Model())
    assert error.value.message_dict == {
        "name": ["alias is already a name of the model taken."],
        "aliases": ["taken is already a name of the model taken."],
    }
